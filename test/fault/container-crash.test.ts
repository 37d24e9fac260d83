/**
 * Kill -9 of the daemon, and a failure, before and after every step of create, start, stop and delete of a container with a
 * NIC, with real liblxc, mounts and bridges. Afterwards the operation has an end, the ledger equals the host, and the
 * container is in a stated state, or nothing of it is left.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import {
  agentUp,
  beginWithBusybox,
  type ContainerHome,
  container,
  shellIn,
  tracesOf,
} from '../harness/containers.ts';
import { leaveNothing } from '../harness/leave-nothing.ts';
import { describeWith } from '../harness/needs.ts';
import type { RealDaemon } from '../harness/real-daemon.ts';
import { testDirectory } from '../harness/test-directory.ts';

interface Operation {
  readonly kind:
    | 'guest-create'
    | 'guest-start'
    | 'guest-stop'
    | 'guest-pause'
    | 'guest-reset'
    | 'guest-delete';
  readonly steps: readonly string[];
  /** State of the container when the operation begins; absent when there is none. */
  readonly from?: 'stopped' | 'running' | 'paused';
  /** State afterwards; `absent` when there is no container. */
  readonly to: 'stopped' | 'running' | 'paused' | 'absent';
  /** What is asked for besides the container. */
  readonly more?: Readonly<Record<string, unknown>>;
}

const operations: readonly Operation[] = [
  { kind: 'guest-create', steps: ['directory', 'volumes', 'record'], to: 'stopped' },
  { kind: 'guest-start', steps: ['volumes', 'ports', 'launch', 'resume'], from: 'stopped', to: 'running' },
  { kind: 'guest-stop', steps: ['ask', 'end', 'settle'], from: 'running', to: 'stopped' },
  {
    kind: 'guest-stop',
    steps: ['ask', 'end', 'settle'],
    from: 'paused',
    to: 'stopped',
    more: { force: true },
  },
  { kind: 'guest-delete', steps: ['end', 'remove'], from: 'running', to: 'absent', more: { force: true } },
];

const rows = operations.flatMap((operation) =>
  operation.steps.flatMap((step) =>
    ['before', 'after'].map((moment) => ({
      ...operation,
      place: `${operation.kind}/${step}/${moment}`,
      title: `${operation.kind}${operation.from === undefined ? '' : ` of one that is ${operation.from}`} at ${step}/${moment}`,
    })),
  ),
);

const titled = (given: typeof rows) => given.map((row) => [row.title, row] as const);

const spec = container('one', { nics: [{ network: 'lan' }], stopTimeoutMs: 20_000 });

const ask = (daemon: RealDaemon, { kind, more = {} }: Operation): ReturnType<RealDaemon['change']> =>
  kind === 'guest-create' ? daemon.change(kind, spec) : daemon.change(kind, { guest: 'one', ...more });

/** A home where no daemon runs and the operation can be asked for. */
const prepared = async ({ from }: Operation): Promise<ContainerHome> => {
  const at = await beginWithBusybox();
  const { daemon } = at;
  await daemon.succeed('network-create', { name: 'lan' });
  if (from !== undefined) await daemon.succeed('guest-create', { ...spec, start: from !== 'stopped' });
  if (from === 'paused') await daemon.succeed('guest-pause', { guest: 'one' });
  await daemon.stop();
  return at;
};

/** The container's state once nothing is under way any more. */
const settledState = async (daemon: RealDaemon): Promise<string> => {
  const { operations: open } = await daemon.client.call('query-operations', {
    states: ['queued', 'running', 'undoing'],
  });
  for (const { id } of open) await daemon.client.call('operation-wait', { operation: id });
  const { guests } = await daemon.client.call('query-guests', {});
  return guests[0]?.state ?? 'absent';
};

const expectAgreement = async (daemon: RealDaemon): Promise<void> => {
  expect((await daemon.client.call('query-fsck', {})).differences).toEqual([]);
};

/** It works, whatever it has been through, and goes without a trace. */
const expectWell = async (at: ContainerHome, state: string): Promise<void> => {
  const { daemon } = at;
  if (state === 'absent') await daemon.succeed('guest-create', { ...spec, start: true });
  if (state === 'stopped') await daemon.succeed('guest-start', { guest: 'one' });
  if (state === 'paused') await daemon.succeed('guest-resume', { guest: 'one' });
  await agentUp(daemon, 'one');
  expect(await shellIn(at, 'one')('cat /sys/class/net/eth0/operstate; hostname')).toBe('up\none');
  await daemon.succeed('guest-delete', { guest: 'one', force: true });
  // The network is there still, and its server.
  expect((await tracesOf(at)).filter((trace) => !trace.startsWith('dnsmasq '))).toEqual([]);
  await leaveNothing(at);
};

describeWith(['root', 'lxc', 'sqfstar', 'nft', 'ip', 'dnsmasq'], 'a container whose', () => {
  it.each(titled(rows))('daemon is killed in %s: the next one finishes it', async (_title, row) => {
    const at = await prepared(row);
    const { home } = at;
    const doomed = await home.start({ crashAt: row.place });
    await expect(ask(doomed, row)).rejects.toThrow(/connection/i);
    expect(await doomed.ended).toEqual({ code: null, signal: 'SIGKILL' });

    const next = await home.start();
    expect(await settledState(next)).toBe(row.to);
    await expectAgreement(next);
    await expectWell({ home, daemon: next }, row.to);
  });

  it.each(titled(rows.filter(({ from }) => from !== 'paused')))(
    '%s fails: it is undone, and can be asked for again',
    async (_title, row) => {
      const at = await prepared(row);
      const { home } = at;
      const daemon = await home.start({ failAt: row.place });
      expect(await ask(daemon, row)).toMatchObject({ state: 'failed', error: { desc: 'the test says no' } });
      // What is deleted in part is deleted by the next try.
      if (row.to !== 'absent') await expectAgreement(daemon);
      expect(await ask(daemon, row)).toMatchObject({ state: 'succeeded' });
      expect(await settledState(daemon)).toBe(row.to);
      await expectAgreement(daemon);
      await expectWell({ home, daemon }, row.to);
    },
  );

  it.each(operations)('steps of $kind are these', async (operation) => {
    const { home } = await prepared(operation);
    const placesPath = join(await testDirectory(), 'places');
    await writeFile(placesPath, '');
    const daemon = await home.start({ placesPath });
    expect(await ask(daemon, operation)).toMatchObject({ state: 'succeeded' });
    const places = (await readFile(placesPath, 'utf8')).split('\n').filter(Boolean);
    expect(places).toEqual(
      rows
        .filter(({ kind, from }) => kind === operation.kind && from === operation.from)
        .map(({ place }) => place),
    );
    await leaveNothing({ home, daemon });
  });
});
