/** Guests outlive the daemon; a new daemon takes them back and learns what happened meanwhile. */
import { expect, it } from 'vitest';
import { openPidfd, watchReadable } from '../../native/index.ts';
import { describeWith } from '../harness/needs.ts';
import { type RealDaemon, testDaemonHome, waitForConsole } from '../harness/real-daemon.ts';
import { importBootSector, tinyGuest } from '../harness/tiny-guests.ts';

const pidOf = async (daemon: RealDaemon, guest: string): Promise<number> => {
  const { process } = await daemon.guest(guest);
  if (!process) throw new Error(`Guest ${guest} has no process`);
  return process.pid;
};

/** Resolves when a process that is no child of ours is gone. */
const processGone = (pid: number): Promise<void> =>
  new Promise((resolve) => {
    const watch = watchReadable(openPidfd(pid), () => {
      watch.close();
      resolve();
    });
  });

describeWith(['root', 'qemu', 'qemu-img', 'nft', 'ip', 'dnsmasq', 'tun'], 'a restart of the daemon', () => {
  it.each(['stop', 'kill9'] as const)(
    'after %s finds the guests running and takes them back',
    async (how) => {
      const home = await testDaemonHome();
      const before = await home.start();
      await importBootSector(before, 'acpi');
      await before.succeed('network-create', { name: 'lan' });
      for (const name of ['a', 'b'])
        await before.succeed('guest-create', {
          ...tinyGuest(name, 'acpi', { nics: [{ network: 'lan' }] }),
          start: true,
        });
      await before.succeed('guest-pause', { guest: 'b' });
      const pids = [await pidOf(before, 'a'), await pidOf(before, 'b')];
      await before[how]();

      const after = await home.start();
      expect(await after.guest('a')).toMatchObject({
        state: 'running',
        stale: false,
        process: { pid: pids[0] },
      });
      expect(await after.guest('b')).toMatchObject({
        state: 'paused',
        stale: false,
        process: { pid: pids[1] },
      });
      await waitForConsole(after, 'a', (text) => text.includes('ROOST-BOOT-SECTOR'));
      await after.succeed('guest-stop', { guest: 'a' });
      expect(await after.guest('a')).toMatchObject({
        state: 'stopped',
        lastExit: { cause: 'guest-shutdown' },
      });
      await after.succeed('guest-stop', { guest: 'b', force: true });
      await after.stop();
      const { ledger, host } = await home.compare();
      expect(host).toEqual(ledger);
    },
  );

  it('learns that a guest powered itself off meanwhile, and leaves it off', async () => {
    const home = await testDaemonHome();
    const before = await home.start();
    await importBootSector(before, 'poweroff');
    await before.succeed(
      'guest-create',
      tinyGuest('short', 'poweroff', { restartPolicy: { when: 'on-failure' } }),
    );
    await before.succeed('guest-start', { guest: 'short', paused: true });
    const pid = await pidOf(before, 'short');
    // Let it run just as the daemon dies, so that it powers off with nobody watching.
    const gone = processGone(pid);
    await before.change('guest-resume', { guest: 'short' });
    await before.kill9();
    await gone;

    const after = await home.start();
    expect(await after.guest('short')).toMatchObject({
      state: 'stopped',
      target: 'stopped',
      targetActor: 'guest',
      lastExit: { cause: 'guest-shutdown' },
    });
  });

  it('learns that a guest was killed meanwhile, and starts it by its policy', async () => {
    const home = await testDaemonHome();
    const before = await home.start();
    await importBootSector(before, 'idle');
    const policy = { restartPolicy: { when: 'on-failure', delayMs: 10 } } as const;
    for (const name of ['tough', 'meek'])
      await before.succeed('guest-create', {
        ...tinyGuest(name, 'idle', name === 'tough' ? policy : {}),
        start: true,
      });
    const pids = await Promise.all(['tough', 'meek'].map((name) => pidOf(before, name)));
    await before.kill9();
    const gone = pids.map(processGone);
    for (const pid of pids) process.kill(pid, 'SIGKILL');
    await Promise.all(gone);

    // The exit status went to nobody, and the black box ends without a word: that much can be known.
    const after = await home.start();
    const tough = await after.guestWhen('tough', (guest) => guest.state === 'running');
    expect(tough).toMatchObject({ restarts: { count: 1 }, lastExit: { cause: 'unknown' } });
    expect(await after.guest('meek')).toMatchObject({
      state: 'failed',
      target: 'running',
      lastExit: { cause: 'unknown' },
    });
    await after.succeed('guest-stop', { guest: 'meek' });
  });

  it('finishes a stop whose deadline passed while nobody watched', async () => {
    const home = await testDaemonHome();
    const before = await home.start();
    await importBootSector(before, 'idle');
    await before.succeed('guest-create', { ...tinyGuest('deaf', 'idle'), start: true });
    await before.client.call('guest-stop', { guest: 'deaf', timeoutMs: 1 });
    await before.kill9();
    const after = await home.start();
    expect(await after.guestWhen('deaf', (guest) => guest.state === 'stopped')).toMatchObject({
      target: 'stopped',
    });
  });

  it('is refused on a state directory that another daemon holds, naming it; a second directory lives beside', async () => {
    const home = await testDaemonHome();
    const daemon = await home.start();
    await expect(home.start()).rejects.toThrow(new RegExp(`is held by roostd with pid ${daemon.pid}`));
    const other = await testDaemonHome();
    const beside = await other.start();
    expect((await beside.client.call('query-daemon', {})).instance).not.toBe(
      (await daemon.client.call('query-daemon', {})).instance,
    );
  });

  it('shows a stopped monitor as unresponsive, lists at once all the same, and heals', async () => {
    const home = await testDaemonHome();
    const before = await home.start();
    await importBootSector(before, 'idle');
    await before.succeed('guest-create', { ...tinyGuest('frozen', 'idle'), start: true });
    await before.succeed('guest-create', { ...tinyGuest('lively', 'idle'), start: true });
    const pid = await pidOf(before, 'frozen');
    process.kill(pid, 'SIGSTOP');
    await before.kill9();
    const after = await home.start();
    const { guests } = await after.client.call('query-guests', {});
    expect(guests.map(({ name, state }) => ({ name, state }))).toEqual([
      { name: 'frozen', state: 'unresponsive' },
      { name: 'lively', state: 'running' },
    ]);
    process.kill(pid, 'SIGCONT');
    await after.guestWhen('frozen', (guest) => guest.state === 'running');
  });
});
