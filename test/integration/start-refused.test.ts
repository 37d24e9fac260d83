/** A start that finds a QEMU that does not answer ends it not, whatever becomes of the start or its daemon. */
import { expect, it } from 'vitest';
import { describeWith } from '../harness/needs.ts';
import {
  type DaemonHome,
  type RealDaemon,
  type StartOptions,
  testDaemonHome,
} from '../harness/real-daemon.ts';
import { importBootSector, tinyGuest } from '../harness/tiny-guests.ts';

/** A running guest whose QEMU is stopped by a signal, under a daemon that found it so. */
const stoppedGuest = async (
  home: DaemonHome,
  options: StartOptions = {},
): Promise<{ readonly daemon: RealDaemon; readonly pid: number }> => {
  const before = await home.start();
  await importBootSector(before, 'acpi');
  await before.succeed('network-create', { name: 'lan' });
  const spec = tinyGuest('one', 'acpi', { nics: [{ network: 'lan' }] });
  await before.succeed('guest-create', { ...spec, start: true });
  const pid = (await before.guest('one')).process?.pid ?? 0;
  process.kill(pid, 'SIGSTOP');
  await before.kill9();
  const daemon = await home.start(options);
  expect(await daemon.guest('one')).toMatchObject({ state: 'unresponsive', reason: 'stopped' });
  return { daemon, pid };
};

/** A start that has its turn when a stop before it is cancelled. */
const startInstead = async ({ client }: RealDaemon): Promise<string> => {
  const stop = await client.call('guest-stop', { guest: 'one', timeoutMs: 600_000 });
  const start = await client.call('guest-start', { guest: 'one' });
  await client.call('operation-cancel', { operation: stop.operation });
  return start.operation;
};

const expectHealed = async (home: DaemonHome, daemon: RealDaemon, pid: number): Promise<void> => {
  process.kill(pid, 'SIGCONT');
  await daemon.guestWhen('one', ({ state }) => state === 'running');
  expect(await daemon.guest('one')).toMatchObject({ process: { pid } });
  await daemon.stop();
  const { ledger, host } = await home.compare();
  expect(host).toEqual(ledger);
};

describeWith(
  ['root', 'qemu', 'qemu-img', 'nft', 'ip', 'dnsmasq', 'tun'],
  'a start that finds a process which does not answer',
  () => {
    it('is refused, and the process runs on once it is continued', async () => {
      const home = await testDaemonHome();
      const { daemon, pid } = await stoppedGuest(home);
      const operation = await startInstead(daemon);
      expect(await daemon.client.callAny('operation-wait', { operation })).toMatchObject({
        state: 'failed',
        error: { class: 'FailedPrecondition' },
      });
      await expectHealed(home, daemon, pid);
    });

    it.each(['guest-start/volumes/before', 'guest-start/volumes/before-undo'])(
      'and whose daemon dies at %s leaves the process to the next one',
      async (crashAt) => {
        const home = await testDaemonHome();
        const { daemon: doomed, pid } = await stoppedGuest(home, { crashAt });
        const operation = await startInstead(doomed);
        expect(await doomed.ended).toEqual({ code: null, signal: 'SIGKILL' });

        const next = await home.start();
        expect(await next.client.callAny('operation-wait', { operation })).toMatchObject({
          state: 'failed',
          error: { class: 'FailedPrecondition' },
        });
        await expectHealed(home, next, pid);
      },
    );
  },
);
