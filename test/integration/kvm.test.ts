/**
 * Guests under real KVM. A guest's own uid must open the device, which a host may keep to root: the daemon runs in a
 * mount namespace of its own, where a node of the wanted mode lies over /dev/kvm. The host's own node is never touched.
 */
import { readFileSync, statSync } from 'node:fs';
import { expect, it } from 'vitest';
import type { GuestSpecInput } from '../../protocol/guest.ts';
import { describeWith } from '../harness/needs.ts';
import { type RealDaemon, testDaemonHome, waitForConsole } from '../harness/real-daemon.ts';
import { testDirectory } from '../harness/test-directory.ts';
import { importBootSector, tinyGuest } from '../harness/tiny-guests.ts';

/** Executes the rest of its arguments where /dev/kvm has this mode and belongs to root. */
const withKvmMode = async (mode: '0666' | '0600'): Promise<readonly string[]> => {
  const { rdev } = statSync('/dev/kvm');
  // Numbers as in makedev(3).
  const major = ((rdev >> 8) & 0xfff).toString();
  const minor = ((rdev & 0xff) | ((rdev >> 12) & 0xfff00)).toString();
  const script = `set -e
    mount -t tmpfs tmpfs "$1"
    mknod -m "$2" "$1/kvm" c "$3" "$4"
    mount --bind "$1/kvm" /dev/kvm
    shift 4
    exec "$@"`;
  const place = await testDirectory('kvm');
  const unshare = ['unshare', '--mount', '--propagation', 'private'];
  return [...unshare, 'sh', '-c', script, 'sh', place, mode, major, minor];
};

/** The model is a plain one: not every nested KVM can do all that it says of `max`. */
const kvmGuest = (name: string, accel: 'auto' | 'kvm'): GuestSpecInput =>
  tinyGuest(name, 'acpi', { cpu: { model: 'qemu64' }, qemu: { accel } });

const accelOf = async (daemon: RealDaemon, guest: string): Promise<string | undefined> =>
  (await daemon.guest(guest)).process?.accel;

const processorCan = /^flags\s*:.*\b(vmx|svm)\b/m.test(readFileSync('/proc/cpuinfo', 'utf8'));

describeWith(['root', 'kvm', 'qemu', 'qemu-img'], 'a guest under KVM', () => {
  it('is started, paused, resumed, reset, taken back by a new daemon, and stopped by ACPI', async () => {
    const home = await testDaemonHome();
    const within = await withKvmMode('0666');
    const before = await home.start({ within });
    await importBootSector(before, 'acpi');
    await before.succeed('guest-create', { ...kvmGuest('fast', 'kvm'), start: true });
    expect(await before.guest('fast')).toMatchObject({ state: 'running', process: { accel: 'kvm' } });
    await waitForConsole(before, 'fast', (text) => text.includes('ROOST-BOOT-SECTOR'));
    await before.succeed('guest-pause', { guest: 'fast' });
    await before.succeed('guest-resume', { guest: 'fast' });
    await before.succeed('guest-reset', { guest: 'fast' });
    await waitForConsole(before, 'fast', (text) => text.split('ROOST-BOOT-SECTOR').length > 2);
    const { process } = await before.guest('fast');
    await before.kill9();

    const after = await home.start({ within });
    expect(await after.guest('fast')).toMatchObject({
      state: 'running',
      process: { pid: process?.pid, accel: 'kvm' },
    });
    await after.succeed('guest-stop', { guest: 'fast' });
    expect(await after.guest('fast')).toMatchObject({
      state: 'stopped',
      lastExit: { cause: 'guest-shutdown' },
    });
    await after.succeed('guest-delete', { guest: 'fast' });
    await after.succeed('image-delete', { image: 'acpi' });
    await after.stop();
    expect(await home.compare()).toEqual({ ledger: [], host: [] });
  });

  it('is what `auto` makes where the processor can, and query-host says why', async () => {
    const home = await testDaemonHome();
    const daemon = await home.start({ within: await withKvmMode('0666') });
    const expected = processorCan ? 'kvm' : 'tcg';
    const { accelerator } = await daemon.client.call('query-host', {});
    expect(accelerator).toEqual({
      auto: expected,
      why: processorCan ? '/dev/kvm opens and the processor can' : 'the processor shows neither vmx nor svm',
    });
    await importBootSector(daemon, 'acpi');
    await daemon.succeed('guest-create', { ...kvmGuest('either', 'auto'), start: true });
    expect(await accelOf(daemon, 'either')).toBe(expected);
  });

  it('is refused where its uid may not open the device, in words that name the group', async () => {
    const home = await testDaemonHome();
    const daemon = await home.start({ within: await withKvmMode('0600') });
    const { accelerator } = await daemon.client.call('query-host', {});
    expect(accelerator).toEqual({
      auto: 'tcg',
      why: "/dev/kvm (mode 0600, group 0) does not open for the guest's user",
    });
    await importBootSector(daemon, 'acpi');
    await daemon.succeed('guest-create', kvmGuest('insists', 'kvm'));
    const started = await daemon.change('guest-start', { guest: 'insists' });
    expect(started).toMatchObject({
      state: 'failed',
      error: {
        class: 'Unsupported',
        desc: expect.stringContaining('/dev/kvm'),
        hint: expect.stringContaining('group kvm'),
        data: { device: '/dev/kvm', found: 'denied', group: 0 },
      },
    });
    expect(await daemon.guest('insists')).toMatchObject({ state: 'failed', target: 'running' });
    await daemon.succeed('guest-create', { ...kvmGuest('content', 'auto'), start: true });
    expect(await accelOf(daemon, 'content')).toBe('tcg');
    await daemon.succeed('guest-stop', { guest: 'content', force: true });
    await daemon.stop();
    const { ledger, host } = await home.compare();
    expect(host).toEqual(ledger);
  });
});
