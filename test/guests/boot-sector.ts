/**
 * Guests of 512 bytes: a boot sector in 16-bit code that says {@link bootSectorBanner} on COM1 and then behaves as
 * asked. They start in milliseconds, need no file but themselves, run under KVM and TCG on `pc` and `q35`, and
 * sleep in `hlt`, so that dozens of them idle on one processor.
 *
 * The machine code is written by hand, one instruction a line, and assembled here; no assembler is needed.
 * Ports: 8250 UART at 0x3f8, 8259 masks at 0x21 and 0xa1, ACPI PM1 registers (ACPI 6.5, 4.8.3) at 0x600, where
 * SeaBIOS puts them on both machines, reset control at 0xcf9.
 */

/**
 * - `idle`: sleeps for ever with interrupts off; ignores the power button.
 * - `acpi`: powers off when the power button is pressed.
 * - `poweroff`: powers off at once.
 * - `reset`: resets itself after about 0.2 s, again and again.
 * - `crash`: a triple fault, which the machine answers with a reset, again and again (under a KVM without hardware
 *   support the guest may stop with `internal-error` instead).
 * - `echo`: sends back every byte that comes in on COM1.
 */
export type BootSectorBehaviour = 'idle' | 'acpi' | 'poweroff' | 'reset' | 'crash' | 'echo';

export const bootSectorBehaviours: readonly BootSectorBehaviour[] = [
  'idle',
  'acpi',
  'poweroff',
  'reset',
  'crash',
  'echo',
];

/** What every boot sector prints first. */
export const bootSectorBanner = 'ROOST-BOOT-SECTOR\r\n';
/** The last words of the behaviour `acpi`, before it powers off. */
export const bootSectorFarewell = 'ROOST-POWER-OFF\r\n';

/** Bytes, a place to jump to, or an operand that is such a place. */
type Item =
  | { readonly bytes: readonly number[] }
  | { readonly label: string }
  /** Opcode and the distance to a label in one or two bytes. */
  | { readonly opcode: number; readonly distanceTo: string; readonly width: 1 | 2 }
  /** Opcode and the address of a label in two bytes. */
  | { readonly opcodes: readonly number[]; readonly addressOf: string; readonly after?: readonly number[] };

const loadAddress = 0x7c00;
const op = (...bytes: readonly number[]): Item => ({ bytes });
const at = (label: string): Item => ({ label });
const jump = (opcode: number, distanceTo: string): Item => ({ opcode, distanceTo, width: 1 });
const call = (distanceTo: string): Item => ({ opcode: 0xe8, distanceTo, width: 2 });
const address = (opcodes: readonly number[], addressOf: string, after: readonly number[] = []): Item => ({
  opcodes,
  addressOf,
  after,
});

/**
 * A raw disk of 1 MiB whose first sector is {@link bootSector}. It has to be larger than its one sector: SeaBIOS
 * gives a disk of less than a cylinder (504 KiB) the geometry 0/16/63 and then can't read it.
 */
export function bootSectorDisk(behaviour: BootSectorBehaviour): Buffer {
  const disk = Buffer.alloc(1024 * 1024);
  disk.set(bootSector(behaviour));
  return disk;
}

/** The 512 bytes of a guest that behaves so. */
export function bootSector(behaviour: BootSectorBehaviour): Buffer {
  const { ready, afterwards } = behaviours[behaviour];
  const code = assemble([
    ...start,
    ...(ready ?? []),
    ...printBanner,
    ...afterwards,
    ...putCharacter,
    ...data,
  ]);
  const sector = Buffer.alloc(512);
  if (code.length > 510) throw new Error(`the boot sector ${behaviour} has ${code.length} bytes`);
  sector.set(code);
  sector.set([0x55, 0xaa], 510);
  return sector;
}

/** Sets up segments and stack, with interrupts off. */
const start: readonly Item[] = [
  op(0xfa), // cli
  op(0xfc), // cld
  address([0xea], 'normalized', [0x00, 0x00]), // jmp 0:normalized
  at('normalized'),
  op(0x31, 0xc0), // xor ax, ax
  op(0x8e, 0xd8), // mov ds, ax
  op(0x8e, 0xc0), // mov es, ax
  op(0x8e, 0xd0), // mov ss, ax
  op(0xbc, 0x00, 0x7c), // mov sp, 0x7c00
];

const printBanner: readonly Item[] = [
  address([0xbe], 'banner'), // mov si, banner
  at('print'),
  op(0xac), // lodsb
  op(0x84, 0xc0), // test al, al
  jump(0x74, 'behave'), // jz behave
  call('putCharacter'), // call putCharacter
  jump(0xeb, 'print'), // jmp print
  at('behave'),
];

/** Sends al to COM1 when it is ready; uses dx. */
const putCharacter: readonly Item[] = [
  at('putCharacter'),
  op(0x50), // push ax
  op(0xba, 0xfd, 0x03), // mov dx, 0x3fd   line status
  at('full'),
  op(0xec), // in al, dx
  op(0xa8, 0x20), // test al, 0x20   transmitter empty
  jump(0x74, 'full'), // jz full
  op(0x58), // pop ax
  op(0xba, 0xf8, 0x03), // mov dx, 0x3f8
  op(0xee), // out dx, al
  op(0xc3), // ret
];

const data: readonly Item[] = [
  at('banner'),
  op(...Buffer.from(`${bootSectorBanner}\0`)),
  at('farewell'),
  op(...Buffer.from(`${bootSectorFarewell}\0`)),
  at('emptyTable'),
  op(0, 0, 0, 0, 0, 0),
];

const haltForEver: readonly Item[] = [
  at('halt'),
  op(0xf4), // hlt
  jump(0xeb, 'halt'), // jmp halt
];

/** Lets through only the given interrupt of the first 8259, so that `hlt` ends by nothing else. */
const unmaskOnly = (line: number): readonly Item[] => [
  op(0xb0, 0xff & ~(1 << line)), // mov al, mask
  op(0xe6, 0x21), // out 0x21, al
  op(0xb0, 0xff), // mov al, 0xff
  op(0xe6, 0xa1), // out 0xa1, al
];

/** Sleep state S5 is type 0 on both of QEMU's machines. */
const powerOff: readonly Item[] = [
  op(0xba, 0x04, 0x06), // mov dx, 0x604   PM1_CNT
  op(0xb8, 0x00, 0x20), // mov ax, 0x2000  SLP_EN
  op(0xef), // out dx, ax
  ...haltForEver,
];

/** `ready` runs before the banner, so that who has seen the banner may press, type or pull at once. */
interface Behaviour {
  readonly ready?: readonly Item[];
  readonly afterwards: readonly Item[];
}

const behaviours: Readonly<Record<BootSectorBehaviour, Behaviour>> = {
  idle: { afterwards: haltForEver },

  // The BIOS's timer, 18 times a second, ends each hlt; then the button is looked at.
  acpi: {
    ready: [
      ...unmaskOnly(0),
      op(0xba, 0x02, 0x06), // mov dx, 0x602   PM1_EN
      op(0xb8, 0x00, 0x01), // mov ax, 0x100   PWRBTN_EN: QEMU ignores the button without it
      op(0xef), // out dx, ax
    ],
    afterwards: [
      at('poll'),
      op(0xfb), // sti
      op(0xf4), // hlt
      op(0xfa), // cli
      op(0xba, 0x00, 0x06), // mov dx, 0x600   PM1_STS
      op(0xed), // in ax, dx
      op(0xf6, 0xc4, 0x01), // test ah, 1      PWRBTN_STS
      jump(0x74, 'poll'), // jz poll
      address([0xbe], 'farewell'), // mov si, farewell
      at('leave'),
      op(0xac), // lodsb
      op(0x84, 0xc0), // test al, al
      jump(0x74, 'off'), // jz off
      call('putCharacter'), // call putCharacter
      jump(0xeb, 'leave'), // jmp leave
      at('off'),
      ...powerOff,
    ],
  },

  poweroff: { afterwards: powerOff },

  reset: {
    afterwards: [
      ...unmaskOnly(0),
      op(0xb9, 0x04, 0x00), // mov cx, 4
      at('tick'),
      op(0xfb), // sti
      op(0xf4), // hlt
      jump(0xe2, 'tick'), // loop tick
      op(0xfa), // cli
      op(0xba, 0xf9, 0x0c), // mov dx, 0xcf9
      op(0xb0, 0x06), // mov al, 6       hard reset
      op(0xee), // out dx, al
      op(0xb0, 0xfe), // mov al, 0xfe    or else by the keyboard controller
      op(0xe6, 0x64), // out 0x64, al
      ...haltForEver,
    ],
  },

  // Without an interrupt table int3 faults, the fault faults, and that faults.
  crash: {
    afterwards: [
      address([0x0f, 0x01, 0x1e], 'emptyTable'), // lidt [emptyTable]
      op(0xcc), // int3
      ...haltForEver,
    ],
  },

  // COM1 is interrupt 4, which the BIOS has put at vector 12.
  echo: {
    ready: [
      address([0xc7, 0x06, 0x30, 0x00], 'received'), // mov word [12 * 4], received
      op(0xc7, 0x06, 0x32, 0x00, 0x00, 0x00), // mov word [12 * 4 + 2], 0
      op(0xba, 0xfc, 0x03), // mov dx, 0x3fc   modem control
      op(0xb0, 0x0b), // mov al, 0x0b    DTR, RTS, OUT2: OUT2 lets the interrupt out
      op(0xee), // out dx, al
      op(0xba, 0xf9, 0x03), // mov dx, 0x3f9   interrupt enable
      op(0xb0, 0x01), // mov al, 1       received data
      op(0xee), // out dx, al
      ...unmaskOnly(4),
    ],
    afterwards: [
      at('listen'),
      op(0xfb), // sti
      op(0xf4), // hlt
      jump(0xeb, 'listen'), // jmp listen
      at('received'),
      op(0x50), // push ax
      op(0x52), // push dx
      at('more'),
      op(0xba, 0xfd, 0x03), // mov dx, 0x3fd
      op(0xec), // in al, dx
      op(0xa8, 0x01), // test al, 1      data ready
      jump(0x74, 'drained'), // jz drained
      op(0xba, 0xf8, 0x03), // mov dx, 0x3f8
      op(0xec), // in al, dx
      call('putCharacter'), // call putCharacter
      jump(0xeb, 'more'), // jmp more
      at('drained'),
      op(0xb0, 0x20), // mov al, 0x20    end of interrupt
      op(0xe6, 0x20), // out 0x20, al
      op(0x5a), // pop dx
      op(0x58), // pop ax
      op(0xcf), // iret
    ],
  },
};

/** Two passes: where the labels are, then the bytes. */
function assemble(items: readonly Item[]): Buffer {
  const labels = new Map<string, number>();
  let offset = 0;
  for (const item of items) {
    if ('label' in item) labels.set(item.label, offset);
    offset += sizeOf(item);
  }
  const place = (label: string): number => {
    const found = labels.get(label);
    if (found === undefined) throw new Error(`the boot sector has no label ${label}`);
    return found;
  };

  const output: number[] = [];
  for (const item of items) {
    if ('bytes' in item) output.push(...item.bytes);
    else if ('addressOf' in item) {
      output.push(
        ...item.opcodes,
        ...littleEndian(loadAddress + place(item.addressOf)),
        ...(item.after ?? []),
      );
    } else if ('distanceTo' in item) {
      const distance = place(item.distanceTo) - (output.length + sizeOf(item));
      if (item.width === 1 && (distance < -128 || distance > 127)) {
        throw new Error(`${item.distanceTo} is ${distance} bytes away, too far for a short jump`);
      }
      output.push(item.opcode, ...littleEndian(distance).slice(0, item.width));
    }
  }
  return Buffer.from(output);
}

function sizeOf(item: Item): number {
  if ('bytes' in item) return item.bytes.length;
  if ('addressOf' in item) return item.opcodes.length + 2 + (item.after?.length ?? 0);
  if ('distanceTo' in item) return 1 + item.width;
  return 0;
}

function littleEndian(value: number): readonly number[] {
  return [value & 0xff, (value >> 8) & 0xff];
}
