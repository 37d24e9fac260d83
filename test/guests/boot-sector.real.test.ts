import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { describeWith } from '../harness/needs.ts';
import {
  type BootSectorBehaviour,
  bootSector,
  bootSectorBanner,
  bootSectorBehaviours,
  bootSectorDisk,
} from './boot-sector.ts';
import { type RawQemu, startRawQemu, type TestAccelerator, type TestMachine } from './raw-qemu.ts';

const timeout = 60_000;
let folder: string;
let qemu: RawQemu | undefined;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'roost-boot-sector-'));
  qemu = undefined;
});

afterEach(async () => {
  await qemu?.dispose();
  await rm(folder, { recursive: true, force: true });
});

async function start(
  behaviour: BootSectorBehaviour,
  machine: TestMachine,
  accelerator: TestAccelerator,
): Promise<RawQemu> {
  const disk = join(folder, 'disk.raw');
  await writeFile(disk, bootSectorDisk(behaviour));
  qemu = await startRawQemu(machine, accelerator, [
    '-m',
    '16',
    '-drive',
    `file=${disk},format=raw,if=virtio`,
  ]);
  return qemu;
}

describe('bootSector', () => {
  it.each(bootSectorBehaviours)(
    '%s is one signed sector that leaves the partition table empty',
    (behaviour) => {
      const sector = bootSector(behaviour);
      expect(sector).toHaveLength(512);
      expect(sector.readUInt16LE(510)).toBe(0xaa55);
      expect(sector.subarray(446, 510).every((byte) => byte === 0)).toBe(true);
    },
  );
});

for (const accelerator of ['tcg', 'kvm'] as const) {
  describeWith(accelerator === 'kvm' ? ['qemu', 'kvm'] : ['qemu'], `boot sector under ${accelerator}`, () => {
    for (const machine of ['pc', 'q35'] as const) {
      it(`powers ${machine} off when the power button is pressed`, { timeout }, async () => {
        const guest = await start('acpi', machine, accelerator);
        await guest.waitForText(bootSectorBanner);
        guest.execute('system_powerdown');
        expect((await guest.waitForEvent('SHUTDOWN')).data).toEqual({
          guest: true,
          reason: 'guest-shutdown',
        });
        expect(await guest.ended).toMatchObject({ exitCode: 0, signal: null });
      });
    }

    it('powers itself off', { timeout }, async () => {
      const guest = await start('poweroff', 'q35', accelerator);
      await guest.waitForText(bootSectorBanner);
      expect((await guest.waitForEvent('SHUTDOWN')).data).toEqual({ guest: true, reason: 'guest-shutdown' });
      expect(await guest.ended).toMatchObject({ exitCode: 0, signal: null });
    });

    it('resets itself again and again', { timeout }, async () => {
      const guest = await start('reset', 'q35', accelerator);
      await guest.waitForText(bootSectorBanner);
      expect((await guest.waitForEvent('RESET')).data).toEqual({ guest: true, reason: 'guest-reset' });
      await guest.waitForText(bootSectorBanner);
      await guest.waitForEvent('RESET');
    });

    it('echoes what it is sent', { timeout }, async () => {
      const guest = await start('echo', 'pc', accelerator);
      await guest.waitForText(bootSectorBanner);
      guest.type('hello, sector');
      expect(await guest.waitForText('hello, sector')).toBe('hello, sector');
    });

    it('idles on, whatever the button says', { timeout }, async () => {
      const guest = await start('idle', 'q35', accelerator);
      await guest.waitForText(bootSectorBanner);
      guest.execute('system_powerdown');
      await guest.waitForEvent('POWERDOWN');
      guest.execute('quit');
      expect((await guest.waitForEvent('SHUTDOWN')).data).toEqual({ guest: false, reason: 'host-qmp-quit' });
    });
  });
}

// A KVM that emulates the processor (kvm-pvm) gives up on this with internal-error; that is not the guest's doing.
it('starts anew after a triple fault under tcg', { timeout }, async () => {
  const guest = await start('crash', 'pc', 'tcg');
  await guest.waitForText(bootSectorBanner);
  expect((await guest.waitForEvent('RESET')).data).toEqual({ guest: true, reason: 'guest-reset' });
  await guest.waitForText(bootSectorBanner);
});
