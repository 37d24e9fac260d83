import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { SmallImage } from '../../tools/small-image/build-small-image.ts';
import { guestImages, guestImagesTimeoutMs } from './guest-images.ts';
import { type RawQemu, startRawQemu, type TestMachine } from './raw-qemu.ts';

const timeout = 120_000;
const poweredOff = { guest: true, reason: 'guest-shutdown' };

let images: SmallImage;
let qemu: RawQemu | undefined;

beforeAll(async () => {
  images = await guestImages();
}, guestImagesTimeoutMs);

afterEach(async () => {
  await qemu?.dispose();
  qemu = undefined;
});

async function start(machine: TestMachine, deviceArguments: readonly string[]): Promise<RawQemu> {
  qemu = await startRawQemu(machine, 'tcg', ['-m', '192', ...deviceArguments]);
  return qemu;
}

async function startTiny(parameters: string): Promise<RawQemu> {
  const { vmlinuz, tinyInitramfs } = images;
  const commandLine = `console=ttyS0 quiet ${parameters}`;
  return await start('q35', ['-kernel', vmlinuz, '-initrd', tinyInitramfs, '-append', commandLine]);
}

function directBoot(parameters: string): readonly string[] {
  const commandLine = `root=/dev/vda console=ttyS0 quiet ${parameters}`;
  return ['-kernel', images.vmlinuz, '-initrd', images.initrd, '-append', commandLine];
}

function disk(): string {
  return `file=${images.smallDisk},format=qcow2,snapshot=on`;
}

describe('the small image', () => {
  it.each(['q35', 'pc'] as const)(
    'boots from its own disk on %s, takes its address and name from DHCP, and heeds the power button',
    { timeout },
    async (machine) => {
      const guest = await start(machine, [
        '-drive',
        `${disk()},if=virtio`,
        '-netdev',
        'user,id=net,hostname=named-by-dhcp',
        '-device',
        'virtio-net-pci,netdev=net',
      ]);
      await guest.waitForText('eth0: address 10.0.2.15/24, gateway 10.0.2.2');
      await guest.waitForText('named-by-dhcp login: ');
      guest.execute('system_powerdown');
      expect((await guest.waitForEvent('SHUTDOWN')).data).toEqual(poweredOff);
      expect(await guest.ended).toMatchObject({ exitCode: 0 });
    },
  );

  it('lets root in with the documented password, reboots, and powers off', { timeout }, async () => {
    const guest = await start('q35', [...directBoot('hostname=by-kernel'), '-drive', `${disk()},if=virtio`]);
    await guest.waitForText('by-kernel login: ');
    guest.type('root\n');
    await guest.waitForText('Password: ');
    guest.type('roost\n');
    await guest.waitForText('root@by-kernel:~# ');
    guest.type('echo uid=$(id -u), owner=$(stat -c %u:%g /etc/shadow)\n');
    await guest.waitForText('uid=0, owner=0:0');
    guest.type('reboot\n');
    expect((await guest.waitForEvent('RESET')).data).toEqual({ guest: true, reason: 'guest-reset' });
    await guest.waitForText('by-kernel login: ');
    guest.type('root\n');
    await guest.waitForText('Password: ');
    guest.type('roost\n');
    await guest.waitForText('root@by-kernel:~# ');
    guest.type('poweroff\n');
    expect((await guest.waitForEvent('SHUTDOWN')).data).toEqual(poweredOff);
    expect(await guest.ended).toMatchObject({ exitCode: 0 });
  });

  // A microvm without KVM has nothing to measure the TSC by; without the parameter the kernel hangs every third boot.
  it('boots on microvm with virtio-mmio devices described by ACPI', { timeout }, async () => {
    const guest = await start('microvm', [
      ...directBoot('tsc_early_khz=2000000'),
      '-drive',
      `${disk()},if=none,id=disk`,
      '-device',
      'virtio-blk-device,drive=disk',
      '-netdev',
      'user,id=net',
      '-device',
      'virtio-net-device,netdev=net',
    ]);
    await guest.waitForText('eth0: address 10.0.2.15/24');
    await guest.waitForText('small login: ');
    guest.execute('system_powerdown');
    expect((await guest.waitForEvent('SHUTDOWN')).data).toEqual(poweredOff);
    expect(await guest.ended).toMatchObject({ exitCode: 0 });
  });
});

describe('the initramfs guest', () => {
  it('gives a shell on the console and heeds the power button', { timeout }, async () => {
    const guest = await startTiny('');
    await guest.waitForText('ROOST-GUEST-READY');
    await guest.waitForText('tiny# ');
    guest.type('echo $((6 * 7)) is the answer\n');
    expect(await guest.waitForText('42 is the answer')).toContain('echo');
    guest.execute('system_powerdown');
    expect((await guest.waitForEvent('SHUTDOWN')).data).toEqual(poweredOff);
    expect(await guest.ended).toMatchObject({ exitCode: 0 });
  });

  it('powers itself off when told to', { timeout }, async () => {
    const guest = await startTiny('roost.action=poweroff');
    await guest.waitForText('ROOST-GUEST-READY');
    expect((await guest.waitForEvent('SHUTDOWN')).data).toEqual(poweredOff);
    expect(await guest.ended).toMatchObject({ exitCode: 0 });
  });

  it('reboots when told to', { timeout }, async () => {
    const guest = await startTiny('roost.action=reboot');
    await guest.waitForText('ROOST-GUEST-READY');
    expect((await guest.waitForEvent('RESET')).data).toEqual({ guest: true, reason: 'guest-reset' });
    expect(await guest.waitForText('ROOST-GUEST-READY')).toContain('ROOST');
  });

  it('panics when told to', { timeout }, async () => {
    const guest = await startTiny('roost.action=panic');
    await guest.waitForText('ROOST-GUEST-READY');
    expect(await guest.waitForText('Kernel panic')).toContain('sysrq');
  });
});
