/** The command line goes on waiting while roostd is killed, or stopped, and started again under a running guest. */
import { expect, it } from 'vitest';
import { deferred } from '../../lib/abort.ts';
import { describeWith } from '../harness/needs.ts';
import { testDaemonHome } from '../harness/real-daemon.ts';
import { runRoost } from '../harness/roost-cli.ts';
import { importBootSector, tinyGuest } from '../harness/tiny-guests.ts';

describeWith(['qemu', 'qemu-img'], 'a command that waits while the daemon is restarted', () => {
  it.each(['kill9', 'stop'] as const)('by %s ends as its operation does', async (how) => {
    const home = await testDaemonHome({ ownNamespace: false });
    const before = await home.start();
    await importBootSector(before, 'idle');
    // It never hears its power button, so that its stop takes until somebody forces it.
    await before.succeed('guest-create', {
      ...tinyGuest('deaf', 'idle', { stopTimeoutMs: 3_600_000 }),
      start: true,
    });

    const following = deferred<void>();
    const events = runRoost(home, ['events', '--follow', '--all'], {
      interruptAt: 'to=stopped',
      onStdout: () => following.resolve(),
    });
    const away = deferred<void>();
    const back = deferred<void>();
    const stop = runRoost(home, ['stop', 'deaf'], {
      onStderr: (text) => {
        if (text.includes('roostd is away')) away.resolve();
        if (text.includes('roostd is back')) back.resolve();
      },
    });
    await before.guestWhen('deaf', ({ state }) => state === 'stopping');
    await following.promise;
    await before[how]();
    await away.promise;
    const after = await home.start();
    await back.promise;
    expect(await runRoost(home, ['stop', '--force', 'deaf'])).toMatchObject({ code: 0 });

    expect(await stop).toMatchObject({ code: 0, stdout: 'deaf stopped\n' });
    const { stdout, stderr, code } = await events;
    expect({ code, stderr }).toEqual({
      code: 130,
      stderr: expect.stringMatching(/^roost: roostd is away.*\nroost: roostd is back\n$/),
    });
    // Every event from the first that it saw, in order and once.
    const sequences = stdout
      .trim()
      .split('\n')
      .map((line) => Number(line.split('  ')[0]));
    expect(sequences).toEqual(sequences.map((_, index) => (sequences[0] ?? 0) + index));
    expect(stdout).toContain('to=stopped');
    await after.stop();
  });
});
