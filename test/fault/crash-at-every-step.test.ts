/**
 * Kill -9 of the daemon before and after every step of create, start, stop, delete and of changes of devices, with real
 * QEMU, disks and bridges; then a new daemon. Afterwards the ledger equals the host, the operation has an end, and the
 * guest is in a stated state.
 */
import { expect, it } from 'vitest';
import { describeWith } from '../harness/needs.ts';
import { type DaemonHome, type RealDaemon, testDaemonHome } from '../harness/real-daemon.ts';
import { importBootSector, tinyGuest } from '../harness/tiny-guests.ts';

interface Operation {
  readonly kind:
    | 'guest-create'
    | 'guest-start'
    | 'guest-stop'
    | 'guest-delete'
    | 'guest-disk-attach'
    | 'guest-disk-detach'
    | 'guest-nic-attach';
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
  { kind: 'guest-disk-attach', steps: ['record', 'volume', 'plug'], from: 'running', to: 'running' },
  { kind: 'guest-nic-attach', steps: ['record', 'plug'], from: 'running', to: 'running' },
  { kind: 'guest-disk-detach', steps: ['unplug', 'record', 'delete'], from: 'stopped', to: 'stopped' },
];

const spec = tinyGuest('one', 'acpi', {
  disks: [{ image: 'acpi' }, { name: 'data', sizeBytes: 1024 * 1024 }],
  nics: [{ network: 'lan' }],
  cloudInit: { user: 'alice' },
  stopTimeoutMs: 20_000,
});

/** Names of the guest's devices after an operation that is about them. */
const devicesAfter: Readonly<Partial<Record<Operation['kind'], readonly string[]>>> = {
  'guest-disk-attach': ['disk0', 'data', 'new', 'nic0'],
  'guest-nic-attach': ['disk0', 'data', 'nic0', 'new'],
  'guest-disk-detach': ['disk0', 'nic0'],
};

const ask = (daemon: RealDaemon, kind: Operation['kind']): Promise<unknown> => {
  switch (kind) {
    case 'guest-create':
      return daemon.change('guest-create', spec);
    case 'guest-delete':
      return daemon.change('guest-delete', { guest: 'one', force: true });
    case 'guest-disk-attach':
      return daemon.change(kind, { guest: 'one', name: 'new', sizeBytes: 1024 * 1024 });
    case 'guest-disk-detach':
      return daemon.change(kind, { guest: 'one', disk: 'data', delete: true });
    case 'guest-nic-attach':
      return daemon.change(kind, { guest: 'one', name: 'new', network: 'lan' });
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

/** Of an operation that is not about them. */
const devicesOf = (state: Operation['to']): readonly string[] =>
  state === 'absent' ? [] : ['disk0', 'data', 'nic0'];

const devicesIn = async (daemon: RealDaemon): Promise<readonly string[]> => {
  const { guests } = await daemon.client.call('query-guests', {});
  return guests.flatMap(({ disks = [], nics = [] }) => [...disks, ...nics].map(({ name }) => name));
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
          expect(await devicesIn(next)).toEqual(devicesAfter[kind] ?? devicesOf(to));
          await next.stop();
          const { ledger, host } = await home.compare();
          expect(host).toEqual(ledger);
        });
  },
);
