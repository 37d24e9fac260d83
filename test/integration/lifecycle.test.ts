/** The life of a guest with real QEMU, real disks and a real bridge, through the daemon's own socket. */
import { readFile } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { describeWith } from '../harness/needs.ts';
import { testDaemonHome, waitForConsole } from '../harness/real-daemon.ts';
import { importBootSector, tinyGuest } from '../harness/tiny-guests.ts';

describeWith(['root', 'qemu', 'qemu-img', 'nft', 'ip', 'dnsmasq', 'tun'], 'a guest in a real daemon', () => {
  it('is created, started, paused, resumed, reset, stopped by ACPI and deleted without a trace', async () => {
    const home = await testDaemonHome();
    const daemon = await home.start();
    await importBootSector(daemon, 'acpi');
    await daemon.succeed('network-create', { name: 'lan' });
    await daemon.succeed('guest-create', tinyGuest('one', 'acpi', { nics: [{ network: 'lan' }] }));
    expect(await daemon.guest('one')).toMatchObject({
      state: 'stopped',
      target: 'stopped',
      machine: expect.stringMatching(/^pc-q35-/),
    });

    await daemon.succeed('guest-start', { guest: 'one' });
    const running = await daemon.guest('one');
    expect(running).toMatchObject({ state: 'running', target: 'running', process: { accel: 'tcg' } });
    const status = await readFile(`/proc/${running.process?.pid}/status`, 'utf8');
    expect(status).toMatch(/^Uid:\t(\d{7,})\t\1\t\1\t\1$/m);
    expect(status).toMatch(/^CapBnd:\t0+$/m);
    expect(status).toMatch(/^Seccomp:\t2$/m);

    await waitForConsole(daemon, 'one', (text) => text.includes('ROOST-BOOT-SECTOR'));
    await daemon.succeed('guest-pause', { guest: 'one' });
    expect((await daemon.guest('one')).state).toBe('paused');
    await daemon.succeed('guest-resume', { guest: 'one' });
    expect((await daemon.guest('one')).state).toBe('running');
    await daemon.succeed('guest-reset', { guest: 'one' });
    await waitForConsole(daemon, 'one', (text) => text.split('ROOST-BOOT-SECTOR').length > 2);

    await daemon.succeed('guest-stop', { guest: 'one' });
    expect(await daemon.guest('one')).toMatchObject({
      state: 'stopped',
      lastExit: { cause: 'guest-shutdown' },
    });
    await daemon.succeed('guest-delete', { guest: 'one' });
    await daemon.succeed('network-delete', { network: 'lan' });
    await daemon.succeed('image-delete', { image: 'acpi' });
    await daemon.stop();
    const { ledger, host } = await home.compare();
    expect({ ledger, host }).toEqual({ ledger: [], host: [] });
  });

  it('that ignores ACPI is ended by force after the deadline', async () => {
    const home = await testDaemonHome();
    const daemon = await home.start();
    await importBootSector(daemon, 'idle');
    await daemon.succeed('guest-create', { ...tinyGuest('deaf', 'idle'), start: true });
    await daemon.succeed('guest-stop', { guest: 'deaf', timeoutMs: 200 });
    expect(await daemon.guest('deaf')).toMatchObject({ state: 'stopped', lastExit: { cause: 'asked' } });
  });

  it('that powers itself off stays off, and says that it did so itself', async () => {
    const home = await testDaemonHome();
    const daemon = await home.start();
    await importBootSector(daemon, 'poweroff');
    await daemon.succeed(
      'guest-create',
      tinyGuest('short', 'poweroff', { restartPolicy: { when: 'on-failure' } }),
    );
    await daemon.succeed('guest-start', { guest: 'short' });
    const stopped = await daemon.guestWhen('short', (guest) => guest.state === 'stopped');
    expect(stopped).toMatchObject({
      target: 'stopped',
      targetActor: 'guest',
      lastExit: { cause: 'guest-shutdown' },
    });
  });

  it('that is killed is started again by its policy, and an explicit stop is final', async () => {
    const home = await testDaemonHome();
    const daemon = await home.start();
    await importBootSector(daemon, 'idle');
    await daemon.succeed(
      'guest-create',
      tinyGuest('tough', 'idle', { restartPolicy: { when: 'on-failure', delayMs: 10, maxDelayMs: 50 } }),
    );
    await daemon.succeed('guest-start', { guest: 'tough' });
    const first = (await daemon.guest('tough')).process?.pid ?? 0;
    process.kill(first, 'SIGKILL');
    const again = await daemon.guestWhen(
      'tough',
      (guest) => guest.state === 'running' && guest.process !== undefined && guest.process.pid !== first,
    );
    expect(again).toMatchObject({ target: 'running', restarts: { count: 1 }, lastExit: { cause: 'killed' } });
    await daemon.succeed('guest-stop', { guest: 'tough', force: true });
    expect(await daemon.guest('tough')).toMatchObject({ state: 'stopped', target: 'stopped' });
  });

  it('keeps its machine when a NIC is renamed elsewhere, and shows what a start would run', async () => {
    const home = await testDaemonHome();
    const daemon = await home.start();
    await importBootSector(daemon, 'idle');
    await daemon.succeed('guest-create', tinyGuest('planned', 'idle'));
    const plan = await daemon.client.call('guest-plan', { guest: 'planned' });
    expect(plan.argv).toContain('-sandbox');
    await daemon.succeed('guest-start', { guest: 'planned' });
    const pid = (await daemon.guest('planned')).process?.pid;
    const real = (await readFile(`/proc/${pid}/cmdline`, 'utf8')).split('\0').slice(0, -1);
    expect(plan.argv.slice(plan.argv.indexOf('--') + 1)).toEqual(real);
  });
});
