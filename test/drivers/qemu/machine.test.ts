import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { PinnedMachine } from '../../../drivers/driver.ts';
import { familyOfType, fitMachine, pinMachine } from '../../../drivers/qemu/machine.ts';
import { type GuestSpec, guestSpec, machineFamilies } from '../../../protocol/guest.ts';
import type { MacAddress } from '../../../protocol/types.ts';

const mac = '52:54:00:00:00:01' as MacAddress;
const specOf = (
  disks: readonly string[],
  nics: readonly string[],
  cdroms: readonly string[] = [],
): GuestSpec => ({
  ...guestSpec.parse({ name: 'tested' }),
  disks: disks.map((name) => ({ name, sizeBytes: 512, readOnly: false })),
  nics: nics.map((name) => ({ name, network: 'default', mac })),
  cdroms: cdroms.map((name) => ({ name })),
});
const basicsOf = (family: (typeof machineFamilies)[number]) => ({
  type: family,
  family,
  serialPrefix: '0123456789ab',
});

const devicesOf = (
  { disks, nics, cdroms = [] }: PinnedMachine,
  kind: string,
): readonly { readonly name: string; readonly address: string }[] =>
  kind === 'disks' ? disks : kind === 'nics' ? nics : cdroms;

describe('directories of the host', () => {
  const shared = (count: number): GuestSpec['filesystems'] =>
    Array.from({ length: count }, (_, index) => ({
      source: '/srv',
      target: `/${index}`,
      readOnly: false,
      mode: 'share',
    }));

  it.each(['microvm', 'q35'] as const)('have places of their own on %s, which they keep', (family) => {
    const spec = { ...specOf(['a', 'b'], ['c']), filesystems: shared(2) };
    const machine = pinMachine(spec, basicsOf(family));
    const { disks, nics, filesystems = [] } = machine;
    expect(filesystems.map(({ name }) => name)).toEqual(['fs0', 'fs1']);
    const addresses = [...disks, ...nics, ...filesystems].map(({ address }) => address);
    expect(new Set(addresses).size).toBe(5);
    const changed = fitMachine({ ...spec, nics: [], disks: specOf(['a', 'b', 'd'], []).disks }, machine);
    expect(changed.filesystems).toEqual(filesystems);
    expect(filesystems.map(({ address }) => address)).not.toContain(changed.disks[2]?.address);
    // Five, and the spare ones.
    expect(machine.settings['ports']).toBe(family === 'q35' ? 9 : 0);
  });

  it('are refused where a machine has no room for them', () => {
    expect(() =>
      pinMachine(
        { ...specOf(['a', 'b'], ['c', 'd', 'e', 'f', 'g']), filesystems: shared(16) },
        basicsOf('microvm'),
      ),
    ).toThrow('takes at most 22 disks, NICs and directories');
  });
});

describe('a pinned machine', () => {
  const names = fc.uniqueArray(fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f'), { maxLength: 6 });
  /** As many as a machine has places for; a microvm has none. */
  const drives = fc.uniqueArray(fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f'), { maxLength: 4 });
  const devices = fc.tuple(names, names, drives);

  it('keeps every address and serial through any sequence of changes, and gives none twice', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...machineFamilies),
        fc.array(devices, { minLength: 1, maxLength: 6 }),
        (family, steps) => {
          const everySerial: string[] = [];
          let machine = pinMachine(specOf([], []), basicsOf(family));
          for (const [disks, nics, drivesAsked] of steps) {
            const before = machine;
            const cdroms = family === 'microvm' ? [] : drivesAsked;
            machine = fitMachine(specOf(disks, nics, cdroms), machine);
            const everything: Readonly<Record<string, readonly string[]>> = { disks, nics, cdroms };
            for (const [kind, asked] of Object.entries(everything)) {
              const now = devicesOf(machine, kind);
              const then = devicesOf(before, kind);
              expect(now.map(({ name }) => name)).toEqual(asked);
              const stayed = then.filter(({ name }) => asked.includes(name));
              const stays = now.filter(({ name }) => then.some((one) => one.name === name));
              expect(new Set(stays)).toEqual(new Set(stayed));
            }
            const addresses = [...machine.disks, ...machine.nics, ...(machine.cdroms ?? [])].map(
              ({ address }) => address,
            );
            expect(new Set(addresses).size).toBe(addresses.length);
            const fresh = machine.disks.filter(
              ({ name }) => !before.disks.some((disk) => disk.name === name),
            );
            for (const { serial } of fresh) {
              expect(everySerial).not.toContain(serial);
              expect(serial.length).toBeLessThanOrEqual(20);
              everySerial.push(serial);
            }
            expect(Number(machine.settings['ports'])).toBeGreaterThanOrEqual(
              Number(before.settings['ports']),
            );
          }
        },
      ),
    );
  });

  it('has spare ports on q35 behind all that are used', () => {
    const machine = pinMachine(specOf(['a', 'b'], ['x']), basicsOf('q35'));
    expect(machine.disks.map(({ address }) => address)).toEqual(['port0', 'port1']);
    expect(machine.nics.map(({ address }) => address)).toEqual(['port2']);
    expect(machine.settings['ports']).toBe(7);
  });

  it('takes as many devices as a guest may have, but not more than the machine can', () => {
    const many = (count: number): string[] => Array.from({ length: count }, (_, index) => `d${index}`);
    expect(pinMachine(specOf(many(16), many(8)), basicsOf('pc')).nics.at(-1)?.address).toBe('0x1b');
    expect(pinMachine(specOf(many(14), many(8)), basicsOf('microvm')).nics.at(-1)?.address).toBe(
      'virtio-mmio-bus.22',
    );
    expect(() => pinMachine(specOf(many(15), many(8)), basicsOf('microvm'))).toThrow(
      expect.objectContaining({ class: 'InvalidArgument' }),
    );
  });

  it.each([
    ['q35', 4],
    ['pc', 4],
    ['microvm', 0],
  ] as const)('has on %s room for %i CD-ROM drives, and takes one again that was left', (family, room) => {
    const names = Array.from({ length: room }, (_, index) => `cd${index}`);
    const full = pinMachine(specOf([], [], names), basicsOf(family));
    const more = specOf([], [], [...names, 'more']);
    expect(() => fitMachine(more, full)).toThrow(expect.objectContaining({ class: 'Unsupported' }));
    const others = [...names.slice(1), 'more'];
    if (room === 0) return;
    const changed = fitMachine(specOf([], [], others), full);
    expect(changed.cdroms?.at(-1)).toEqual({ name: 'more', address: full.cdroms?.[0]?.address });
  });

  it('refuses twins', () => {
    expect(() => pinMachine(specOf(['a', 'a'], []), basicsOf('q35'))).toThrow('Two disks are called a');
  });

  it("refuses limits, which are a container's", () => {
    const limited = { ...specOf([], []), limits: { processes: 64 } };
    expect(() => pinMachine(limited, basicsOf('q35'))).toThrow(
      expect.objectContaining({
        class: 'Unsupported',
        data: expect.objectContaining({ member: 'limits.processes' }) as unknown,
      }),
    );
  });

  it('refuses a record from the future', () => {
    const machine = { ...pinMachine(specOf([], []), basicsOf('q35')), formatVersion: 3 };
    expect(() => fitMachine(specOf([], []), machine)).toThrow(
      expect.objectContaining({ class: 'Unsupported' }),
    );
  });
});

describe('a record of form 1', () => {
  const form1 = (family: (typeof machineFamilies)[number]) => ({
    ...pinMachine(specOf([], []), basicsOf(family)),
    formatVersion: 1,
  });

  it('stays of form 1 through a change', () => {
    expect(fitMachine(specOf(['a'], []), form1('q35')).formatVersion).toBe(1);
  });

  it('has on microvm the last transport for a device too', () => {
    const names = Array.from({ length: 15 }, (_, index) => `d${index}`);
    expect(fitMachine(specOf(names, names.slice(0, 8)), form1('microvm')).nics.at(-1)?.address).toBe(
      'virtio-mmio-bus.23',
    );
  });

  it('has no place for an agent', () => {
    const spec = { ...specOf(['a'], []), agent: { enabled: true } };
    expect(() => fitMachine(spec, form1('q35'))).toThrow(expect.objectContaining({ class: 'Unsupported' }));
    expect(fitMachine(spec, pinMachine(spec, basicsOf('q35'))).formatVersion).toBe(2);
  });
});

describe('the place of a seed', () => {
  const told = (disks: readonly string[], nics: readonly string[]): GuestSpec => ({
    ...specOf(disks, nics),
    cloudInit: {},
  });

  it('comes after the devices there are, and is kept when the seed is gone', () => {
    const plain = pinMachine(specOf(['a'], ['x']), basicsOf('q35'));
    expect(plain.settings).not.toHaveProperty('seed');
    const seeded = fitMachine(told(['a'], ['x']), plain);
    expect(seeded.settings['seed']).toBe('port2');
    expect(seeded).toMatchObject({ disks: plain.disks, nics: plain.nics });
    const gone = fitMachine(specOf(['a', 'b'], ['x']), seeded);
    expect(gone.disks.map(({ address }) => address)).toEqual(['port0', 'port3']);
    expect(fitMachine(told(['a', 'b'], ['x']), gone).settings['seed']).toBe('port2');
    expect(gone.settings['ports']).toBe(8);
  });

  it.each(machineFamilies)('is the same that nothing else has on %s', (family) => {
    const names = fc.uniqueArray(fc.constantFrom('a', 'b', 'c', 'd'), { maxLength: 4 });
    fc.assert(
      fc.property(fc.array(fc.tuple(names, names, fc.boolean()), { minLength: 1, maxLength: 6 }), (steps) => {
        let machine = pinMachine(told([], []), basicsOf(family));
        const { seed } = machine.settings;
        for (const [disks, nics, isTold] of steps) {
          machine = fitMachine((isTold ? told : specOf)(disks, nics), machine);
          expect(machine.settings['seed']).toBe(seed);
          expect([...machine.disks, ...machine.nics].map(({ address }) => address)).not.toContain(seed);
        }
      }),
    );
  });
});

describe('familyOfType', () => {
  it.each([
    ['q35', 'q35'],
    ['pc-q35-7.2', 'q35'],
    ['pc', 'pc'],
    ['pc-i440fx-7.2', 'pc'],
    ['microvm', 'microvm'],
    ['isapc', undefined],
    ['none', undefined],
  ])('%s is %s', (type, family) => {
    expect(familyOfType(type)).toBe(family);
  });
});
