/**
 * Kill -9 of the daemon before and after every step of create, start, stop and delete, with real QEMU, disks and
 * bridges; then a new daemon. Afterwards the ledger equals the host, the operation has an end, and the guest is in a
 * stated state.
 */
import { expect, it } from 'vitest';
import { describeWith } from '../harness/needs.ts';
import { type DaemonHome, type RealDaemon, testDaemonHome } from '../harness/real-daemon.ts';
import { importBootSector, tinyGuest } from '../harness/tiny-guests.ts';

interface Operation {
  readonly kind: 'guest-create' | 'guest-start' | 'guest-stop' | 'guest-delete';
  readonly steps: readonly string[];
  /** State of the guest when the operation begins; absent when there is none. */
  readonly from?: 'stopped' | 'running';
  /** State afterwards; `absent` when there is no guest. */
  readonly to: 'stopped' | 'running' | 'absent';
}

const operations: readonly Operation[] = [
  { kind: 'guest-create', steps: ['directory', 'volumes', 'record'], to: 'stopped' },
  { kind: 'guest-start', steps: ['volumes', 'ports', 'launch', 'resume'], from: 'stopped', to: 'running' },
  { kind: 'guest-stop', steps: ['ask', 'end', 'settle'], from: 'running', to: 'stopped' },
  { kind: 'guest-delete', steps: ['end', 'remove'], from: 'running', to: 'absent' },
];

const spec = tinyGuest('one', 'acpi', {
  nics: [{ network: 'lan' }],
  cloudInit: { user: 'alice' },
  stopTimeoutMs: 20_000,
});

const ask = (daemon: RealDaemon, kind: Operation['kind']): Promise<unknown> => {
  switch (kind) {
    case 'guest-create':
      return daemon.change('guest-create', spec);
    case 'guest-delete':
      return daemon.change('guest-delete', { guest: 'one', force: true });
    case 'guest-start':
    case 'guest-stop':
      return daemon.change(kind, { guest: 'one' });
  }
};

const prepare = async (home: DaemonHome, from: Operation['from']): Promise<void> => {
  const daemon = await home.start();
  await importBootSector(daemon, 'acpi');
  await daemon.succeed('network-create', { name: 'lan' });
  if (from !== undefined) await daemon.succeed('guest-create', { ...spec, start: from === 'running' });
  await daemon.stop();
};

/** The guest's state once nothing is under way any more. */
const settledState = async (daemon: RealDaemon): Promise<string> => {
  const { operations: open } = await daemon.client.call('query-operations', {
    states: ['queued', 'running', 'undoing'],
  });
  for (const { id } of open) await daemon.client.call('operation-wait', { operation: id });
  const { guests } = await daemon.client.call('query-guests', {});
  return guests[0]?.state ?? 'absent';
};

describeWith(
  ['root', 'qemu', 'qemu-img', 'nft', 'ip', 'dnsmasq', 'tun'],
  'a daemon killed in the middle',
  () => {
    for (const { kind, steps, from, to } of operations)
      for (const step of steps)
        it.each(['before', 'after'])(`of ${kind}, %s ${step}: the next one finishes it`, async (moment) => {
          const home = await testDaemonHome();
          await prepare(home, from);
          const doomed = await home.start({ crashAt: `${kind}/${step}/${moment}` });
          await expect(ask(doomed, kind)).rejects.toThrow(/connection/i);
          expect(await doomed.ended).toEqual({ code: null, signal: 'SIGKILL' });

          const next = await home.start();
          expect(await settledState(next)).toBe(to);
          await next.stop();
          const { ledger, host } = await home.compare();
          expect(host).toEqual(ledger);
        });
  },
);
