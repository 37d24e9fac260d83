/** Containers saved as images and cloned, on a pretended host: what comes of it, whose turn it takes, what is refused. */
import { describe, expect, onTestFinished, test } from 'vitest';
import { deferred } from '../../lib/abort.ts';
import type { CommandInput } from '../../protocol/commands.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { GuestId, OperationId } from '../../protocol/types.ts';
import type { PoolEffect } from '../../storage/fake/fake-pool.ts';
import {
  aContainer,
  aGuest,
  type FakeDaemon,
  type FakeHouse,
  fakeHouse,
  freezeAt,
  importRoot,
} from './fake-house.ts';

interface Begun {
  readonly house: FakeHouse;
  readonly daemon: FakeDaemon;
  readonly client: FakeDaemon['client'];
  readonly id: GuestId;
}

const settings: Partial<CommandInput<'guest-create'>> = {
  nics: [{ network: 'lan', forwards: [{ hostPort: 8080, guestPort: 80 }] }],
  labels: { tier: 'web' },
  limits: { processes: 64 },
  autostart: { enabled: true },
  deleteProtection: true,
  boot: { kind: 'root', image: 'busybox', nesting: true },
};

/** A stopped container. */
const begin = async (more: Partial<CommandInput<'guest-create'>> = settings): Promise<Begun> => {
  const house = await fakeHouse();
  const daemon = await house.start();
  const { client } = daemon;
  await importRoot(house, daemon);
  await client.done('network-create', { name: 'lan', kind: 'nat', subnet: '10.91.7.0/24' });
  const id = (await client.done('guest-create', aContainer('c1', more))) as GuestId;
  return { house, daemon, client, id };
};

const agreed = async (daemon: FakeDaemon): Promise<void> => {
  expect(daemon.ledger).toEqual(await daemon.host());
};

/** Holds an effect of the pool up until it is let go. */
const holdUp = (
  house: FakeHouse,
  effect: PoolEffect,
): { readonly begun: Promise<void>; letGo: () => void } => {
  const begun = deferred<void>();
  const held = deferred<void>();
  onTestFinished(() => held.resolve());
  house.beforePool = (each) => {
    if (each !== effect) return undefined;
    begun.resolve();
    return held.promise;
  };
  return { begun: begun.promise, letGo: () => held.resolve() };
};

const ask = {
  'guest-save': ({ client }: Begun) => client.call('guest-save', { guest: 'c1' }),
  'guest-clone': ({ client }: Begun) => client.call('guest-clone', { guest: 'c1', name: 'c2' }),
} as const;
const effects = { 'guest-save': 'saveRoot', 'guest-clone': 'cloneRoot' } as const;
const kinds = Object.keys(ask) as (keyof typeof ask)[];

const operationOf = async (begun: Begun, kind: keyof typeof ask) => (await ask[kind](begun)).operation;

test('a saved container is an image that tells what it was, and of which another container is made', async () => {
  const { house, daemon, client, id } = await begin();
  const ended = await client.finish('guest-save', { guest: 'c1', name: 'web', version: '1' });
  expect(ended).toMatchObject({ state: 'succeeded', result: { name: 'web', version: '1' } });
  const [busybox, web] = (await client.call('query-images', {})).images;
  expect(web).toMatchObject({
    name: 'web',
    version: '1',
    kind: 'root',
    state: 'ready',
    format: 'raw',
    source: { kind: 'guest', guest: 'c1', id, image: `busybox@${busybox?.version}` },
    usedBy: [],
  });
  expect(house.pool.calls.filter((call) => call.startsWith('saveRoot'))).toEqual([`saveRoot ${id}`]);
  expect(await client.call('query-guest', { guest: 'c1' })).toMatchObject({ state: 'stopped' });
  await client.done('guest-create', aContainer('c2', { boot: { kind: 'root', image: 'web' }, start: true }));
  expect(house.host.launchOf('c2')?.boot).toMatchObject({
    root: { image: { path: expect.stringContaining(web?.id ?? '?') as string } },
  });
  await agreed(daemon);
});

test('without a name the image has that of the container, and further ones are versions', async () => {
  const { client } = await begin();
  await client.done('guest-save', { guest: 'c1' });
  await client.done('guest-save', { guest: 'c1' });
  const { images } = await client.call('query-images', { names: ['c1'] });
  expect(images.map(({ version }) => version)).toEqual([
    expect.stringMatching(/^\d{8}\.2$/) as string,
    expect.stringMatching(/^\d{8}$/) as string,
  ]);
});

test('a clone has the settings and what was written, and an identity of its own', async () => {
  const { house, daemon, client, id } = await begin();
  const accepted = await client.call('guest-clone', { guest: 'c1', name: 'c2' });
  expect(accepted.warnings).toEqual([
    expect.stringContaining('Port 8080 of the host stays with c1') as string,
  ]);
  expect(await client.call('operation-wait', { operation: accepted.operation })).toMatchObject({
    state: 'succeeded',
    result: { guest: accepted.id },
  });
  const first = await client.call('query-guest', { guest: 'c1' });
  const second = await client.call('query-guest', { guest: 'c2' });
  expect(second).toMatchObject({
    id: accepted.id,
    state: 'stopped',
    driver: 'lxc',
    machine: first.machine,
    boot: first.boot,
    memoryBytes: first.memoryBytes,
    labels: { tier: 'web' },
    limits: { processes: 64 },
    autostart: { enabled: true },
    deleteProtection: true,
    nics: [{ name: 'nic0', network: 'lan', ipv4: '10.91.7.3' }],
  });
  expect(second.nics[0]?.mac).not.toBe(first.nics[0]?.mac);
  expect(second.nics[0]).not.toHaveProperty('forwards');
  expect(second.idRange?.count).toBe(first.idRange?.count);
  expect(second.idRange?.first).not.toBe(first.idRange?.first);
  expect(house.pool.calls).toContain(`cloneRoot ${second.id}`);
  expect(house.pool.calls).not.toContain(`prepareRoot ${second.id}`);
  expect(daemon.ledger.filter((key) => key.includes(second.id))).toHaveLength(
    daemon.ledger.filter((key) => key.includes(id)).length,
  );
  await agreed(daemon);
  await client.done('guest-start', { guest: 'c1' });
  await client.done('guest-start', { guest: 'c2' });
  expect(house.host.launchOf('c2')?.boot).toMatchObject({ idRange: second.idRange });
  await agreed(daemon);
});

test('a clone is started where that is asked, and its history tells of what it is one', async () => {
  const { house, client } = await begin({});
  await client.done('guest-clone', { guest: 'c1', name: 'c2', start: true });
  expect(house.host.isAlive('c2')).toBe(true);
  expect(house.host.isAlive('c1')).toBe(false);
  const { entries } = await client.call('query-guest-history', { guest: 'c2' });
  expect(entries.find(({ what }) => what === 'guest-clone')).toMatchObject({ detail: 'of c1' });
});

test('a clone goes on when that of which it is one is deleted', async () => {
  const { house, daemon, client } = await begin({});
  const id = (await client.done('guest-clone', { guest: 'c1', name: 'c2' })) as GuestId;
  await client.done('guest-delete', { guest: 'c1' });
  expect(house.pool.hasRoot(id)).toBe(true);
  await client.done('guest-start', { guest: 'c2' });
  await agreed(daemon);
});

describe.each(kinds)('%s', (kind) => {
  test('is refused while the container runs or is started, with what to do', async () => {
    const begun = await begin({});
    const { house, daemon, client } = begun;
    const before = daemon.ledger;
    const refusal = { class: 'FailedPrecondition', hint: expect.stringContaining('Stop it first') as string };
    await client.done('guest-start', { guest: 'c1' });
    await expect(ask[kind](begun)).rejects.toMatchObject({
      ...refusal,
      data: { guest: 'c1', state: 'running' },
    });
    await client.done('guest-pause', { guest: 'c1' });
    await expect(ask[kind](begun)).rejects.toMatchObject(refusal);
    await client.done('guest-stop', { guest: 'c1' });
    const { begun: starting, letGo } = holdUp(house, 'leaseRoot');
    const { operation } = await client.call('guest-start', { guest: 'c1' });
    await starting;
    await expect(ask[kind](begun)).rejects.toMatchObject(refusal);
    letGo();
    await client.call('operation-wait', { operation });
    await client.done('guest-stop', { guest: 'c1' });
    expect(daemon.ledger).toEqual(before);
    expect((await client.call('query-images', {})).images).toHaveLength(1);
  });

  test('waits for a stop that is under way', async () => {
    const begun = await begin({});
    const { client, house } = begun;
    await client.done('guest-start', { guest: 'c1' });
    const { operation } = await client.call('guest-stop', { guest: 'c1', force: true });
    expect(await client.call('operation-wait', { operation: await operationOf(begun, kind) })).toMatchObject({
      state: 'succeeded',
    });
    expect(await client.call('operation-wait', { operation })).toMatchObject({ state: 'succeeded' });
    expect(house.pool.calls.some((call) => call.startsWith(effects[kind]))).toBe(true);
  });

  test('keeps the container stopped: a start and a deletion wait for it, and say for what', async () => {
    const begun = await begin({});
    const { house, daemon, client } = begun;
    const { begun: copying, letGo } = holdUp(house, effects[kind]);
    const operation = await operationOf(begun, kind);
    await copying;
    const { operation: starting } = await client.call('guest-start', { guest: 'c1' });
    const waiting = await client.call('query-operation', { operation: starting });
    expect(waiting).toMatchObject({ state: 'queued', waitsFor: operation });
    expect(house.host.isAlive('c1')).toBe(false);
    letGo();
    expect((await client.call('operation-wait', { operation })).state).toBe('succeeded');
    expect((await client.call('operation-wait', { operation: starting })).state).toBe('succeeded');
    await agreed(daemon);
  });

  test('that is cancelled leaves nothing, and the container as it was', async () => {
    const begun = await begin({});
    const { house, daemon, client } = begun;
    const before = daemon.ledger;
    const { begun: copying, letGo } = holdUp(house, effects[kind]);
    const operation = await operationOf(begun, kind);
    await copying;
    await client.call('operation-cancel', { operation });
    letGo();
    expect((await client.call('operation-wait', { operation })).state).toBe('cancelled');
    expect(daemon.ledger).toEqual(before);
    expect((await client.call('query-images', {})).images).toHaveLength(1);
    expect((await client.call('query-guests', {})).guests).toHaveLength(1);
    await agreed(daemon);
    await client.done('guest-start', { guest: 'c1' });
  });

  test('that is cancelled while it waits for its turn gives that up', async () => {
    const begun = await begin({});
    const { house, daemon, client } = begun;
    const { begun: stopping, letGo } = holdUp(house, 'saveRoot');
    const { operation: first } = await client.call('guest-save', { guest: 'c1', name: 'first' });
    await stopping;
    const operation = await operationOf(begun, kind);
    await client.call('operation-cancel', { operation });
    expect((await client.call('operation-wait', { operation })).state).toBe('cancelled');
    letGo();
    expect((await client.call('operation-wait', { operation: first })).state).toBe('succeeded');
    await client.done('guest-start', { guest: 'c1' });
    await agreed(daemon);
  });

  test('fails where the container is gone by its turn', async () => {
    const begun = await begin({});
    const { house, daemon, client } = begun;
    const { begun: removing, letGo } = holdUp(house, 'removeGuest');
    await client.done('guest-start', { guest: 'c1' });
    const { operation: stopping } = await client.call('guest-stop', { guest: 'c1', force: true });
    await client.call('operation-wait', { operation: stopping });
    const { operation: deletion } = await client.call('guest-delete', { guest: 'c1' });
    await removing;
    await expect(ask[kind](begun)).rejects.toMatchObject({ class: 'FailedPrecondition' });
    letGo();
    await client.call('operation-wait', { operation: deletion });
    await expect(ask[kind](begun)).rejects.toMatchObject({ class: 'NotFound' });
    await agreed(daemon);
  });

  test('a crash while it works is made good, and the container is free then', async () => {
    const begun = await begin({});
    const { house, daemon } = begun;
    const { begun: copying, letGo } = holdUp(house, effects[kind]);
    const operation = await operationOf(begun, kind);
    await copying;
    await daemon.crash(letGo);
    house.beforePool = () => undefined;
    const next = await house.start();
    expect(await next.client.call('operation-wait', { operation })).toMatchObject({ state: 'succeeded' });
    await agreed(next);
    await next.client.done('guest-start', { guest: 'c1' });
  });

  test('that a crash left fails where the container runs by then', async () => {
    const begun = await begin({});
    const { house, daemon } = begun;
    await daemon.stop();
    const step = kind === 'guest-save' ? 'save' : 'copy';
    const freeze = freezeAt(
      (place) => place.kind === kind && place.step === step && place.moment === 'before',
    );
    const doomed = await house.start({ observeStep: freeze.observeStep });
    const operation = await operationOf({ ...begun, client: doomed.client }, kind);
    await freeze.reached;
    const { operation: starting } = await doomed.client.call('guest-start', { guest: 'c1' });
    await doomed.client.call('operation-wait', { operation: starting });
    await doomed.crash(freeze.thaw);
    const next = await house.start();
    expect(await next.client.call('operation-wait', { operation })).toMatchObject({
      state: 'failed',
      error: { class: 'FailedPrecondition', desc: 'Guest c1 is running' },
    });
    await agreed(next);
  });

  test('asked for again under its key is the same, also when the container runs by then', async () => {
    const { client } = await begin({});
    const key = { idempotencyKey: '01890a5d-ac96-774b-bcce-b302099a8057' };
    const once = (): Promise<{ readonly operation: OperationId; readonly id: string }> =>
      kind === 'guest-save'
        ? client.call('guest-save', { guest: 'c1', ...key })
        : client.call('guest-clone', { guest: 'c1', name: 'c2', ...key });
    const first = await once();
    await client.call('operation-wait', { operation: first.operation });
    await client.done('guest-start', { guest: 'c1' });
    expect(await once()).toEqual(first);
  });

  test('a machine is refused, with what there is instead', async () => {
    const { client } = await begin();
    await client.done('guest-create', aGuest('m1'));
    const refused =
      kind === 'guest-save'
        ? client.call('guest-save', { guest: 'm1' })
        : client.call('guest-clone', { guest: 'm1', name: 'm2' });
    await expect(refused).rejects.toMatchObject({
      class: 'Unsupported',
      message: expect.stringMatching(
        /^Guest m1 is a machine: only a container is (saved as an image|cloned)$/,
      ) as string,
      hint: expect.stringMatching(
        kind === 'guest-save' ? /template-create.*image-import/ : /guest-fork/,
      ) as string,
    });
  });
});

test('nothing is saved where this host cannot, nor under a name or a version that is taken', async () => {
  const { house, daemon, client } = await begin({});
  const { version } = await client.call('query-image', { image: 'busybox' });
  const saved = client.call('guest-save', { guest: 'c1', name: 'busybox', version });
  await expect(saved).rejects.toMatchObject({ class: 'AlreadyExists' });
  house.pool.unsaveable = 'there is no mksquashfs';
  await expect(client.call('guest-save', { guest: 'c1' })).rejects.toMatchObject({ class: 'Unsupported' });
  expect(house.pool.calls.some((call) => call.startsWith('saveRoot'))).toBe(false);
  await agreed(daemon);
});

test('a failure of the host is told, and what was begun is taken away', async () => {
  const { house, daemon, client } = await begin({});
  const before = daemon.ledger;
  house.beforePool = (effect) => {
    if (effect === 'saveRoot' || effect === 'cloneRoot')
      throw new RoostError('ResourceExhausted', 'the disk is full');
  };
  for (const ended of [
    await client.finish('guest-save', { guest: 'c1' }),
    await client.finish('guest-clone', { guest: 'c1', name: 'c2' }),
  ])
    expect(ended).toMatchObject({ state: 'failed', error: { class: 'ResourceExhausted' } });
  expect(daemon.ledger).toEqual(before);
  await agreed(daemon);
});

test('a clone is refused a name that is taken, and memory that is not there', async () => {
  const { client } = await begin({ memoryBytes: 2 ** 40 * 64 });
  await expect(client.call('guest-clone', { guest: 'c1', name: 'c1' })).rejects.toMatchObject({
    class: 'AlreadyExists',
  });
  await expect(client.call('guest-clone', { guest: 'c1', name: 'c2', start: true })).rejects.toMatchObject({
    class: 'ResourceExhausted',
  });
  await client.done('guest-clone', { guest: 'c1', name: 'c2' });
});

test('a clone of a clone that is not made yet waits for it', async () => {
  const { house, daemon, client } = await begin({});
  const { begun, letGo } = holdUp(house, 'cloneRoot');
  const { operation: first } = await client.call('guest-clone', { guest: 'c1', name: 'c2' });
  await begun;
  const { operation: second } = await client.call('guest-clone', { guest: 'c2', name: 'c3' });
  letGo();
  for (const operation of [first, second])
    expect((await client.call('operation-wait', { operation })).state).toBe('succeeded');
  await agreed(daemon);
});
