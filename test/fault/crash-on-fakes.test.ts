/**
 * The daemon dies at every place of the operations of a guest; a new one on what it left makes ledger and host agree,
 * ends the operation, and knows the guest's state.
 */
import { describe, expect, test } from 'vitest';
import type { StepObserver } from '../../daemon/operations/steps.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { OperationView } from '../../protocol/operation.ts';
import {
  aContainer,
  aGuest,
  type FakeDaemon,
  type FakeHouse,
  fakeHouse,
  freezeAt,
  importRoot,
} from '../daemon/fake-house.ts';

type Kind = 'guest-create' | 'guest-start' | 'guest-stop' | 'guest-delete';
const stepsOf: Readonly<Record<Kind, readonly string[]>> = {
  'guest-create': ['directory', 'volumes', 'record'],
  'guest-start': ['volumes', 'ports', 'launch', 'resume'],
  'guest-stop': ['ask', 'end', 'settle'],
  'guest-delete': ['end', 'remove'],
};
const guests = {
  machine: aGuest('web1', {
    nics: [{ network: 'lan' }],
    disks: [{ sizeBytes: 512 }, { sizeBytes: 1024 }],
    cloudInit: { user: 'alice' },
  }),
  container: aContainer('web1', { nics: [{ network: 'lan' }], limits: { processes: 64 } }),
} as const;
type What = keyof typeof guests;
const whats = Object.keys(guests) as What[];

const places = whats.flatMap((what) =>
  (Object.keys(stepsOf) as Kind[]).flatMap((kind) =>
    stepsOf[kind].flatMap((step) =>
      (['before', 'after'] as const).map((moment) => ({ what, kind, step, moment })),
    ),
  ),
);

/** Brings a guest to where the operation can be asked for, with a daemon that nothing happens to. */
const prepare = async (house: FakeHouse, what: What, kind: Kind): Promise<void> => {
  const daemon = await house.start();
  if (what === 'container') await importRoot(house, daemon);
  await daemon.client.done('network-create', { name: 'lan' });
  if (kind !== 'guest-create') await daemon.client.done('guest-create', guests[what]);
  if (kind === 'guest-stop' || kind === 'guest-delete')
    await daemon.client.done('guest-start', { guest: 'web1' });
  await daemon.stop();
};

const ask = async ({ client }: FakeDaemon, what: What, kind: Kind): Promise<OperationView['id']> => {
  switch (kind) {
    case 'guest-create':
      return (await client.call('guest-create', guests[what])).operation;
    case 'guest-start':
      return (await client.call('guest-start', { guest: 'web1' })).operation;
    case 'guest-stop':
      return (await client.call('guest-stop', { guest: 'web1' })).operation;
    case 'guest-delete':
      return (await client.call('guest-delete', { guest: 'web1', force: true })).operation;
  }
};

const stateAfter: Readonly<Record<Kind, string | undefined>> = {
  'guest-create': 'stopped',
  'guest-start': 'running',
  'guest-stop': 'stopped',
  'guest-delete': undefined,
};

const stateOf = async ({ client }: FakeDaemon): Promise<string | undefined> => {
  const { guests } = await client.call('query-guests', { nameGlob: 'web1' });
  return guests[0]?.state;
};

const expectAgreement = async (daemon: FakeDaemon): Promise<void> => {
  expect(daemon.ledger).toEqual(await daemon.host());
};

describe.each(places)('a crash $moment $step of $kind of a $what', ({ what, kind, step, moment }) => {
  const isThere: Parameters<typeof freezeAt>[0] = (place) =>
    place.kind === kind && place.step === step && place.moment === moment;

  test('is made good by the next daemon: the operation succeeds', async () => {
    const house = await fakeHouse();
    await prepare(house, what, kind);
    const { observeStep, reached, thaw } = freezeAt(isThere);
    const doomed = await house.start({ observeStep });
    const operation = await ask(doomed, what, kind);
    await reached;
    await doomed.crash(thaw);

    const next = await house.start();
    const ended = await next.client.call('operation-wait', { operation });
    expect(ended).toMatchObject({ state: 'succeeded' });
    expect(await stateOf(next)).toBe(stateAfter[kind]);
    await expectAgreement(next);
    expect(house.host.isAlive('web1')).toBe(kind === 'guest-start');
    expect(house.host.calls.filter((call) => call === 'launch web1').length).toBeLessThanOrEqual(1);
  });

  test('is made good although the host was booted as well', async () => {
    const house = await fakeHouse();
    await prepare(house, what, kind);
    const { observeStep, reached, thaw } = freezeAt(isThere);
    const doomed = await house.start({ observeStep });
    const operation = await ask(doomed, what, kind);
    await reached;
    await doomed.crash(thaw);
    house.host.host.reboot();
    // A tap goes with the process that holds it, a veth pair with the namespace of its guest; what nft and bridges are made of is mended by the network.
    for (const [key, { kind: made }] of house.network.host)
      if (made === 'tap' || made === 'veth') house.network.host.delete(key);

    const next = await house.start({ bootId: 'second boot' });
    const ended = await next.client.call('operation-wait', { operation });
    expect(ended.state).toBe(kind === 'guest-start' ? 'cancelled' : 'succeeded');
    expect(await stateOf(next)).toBe(kind === 'guest-start' ? 'stopped' : stateAfter[kind]);
    await expectAgreement(next);
  });

  test('twice in a row is made good as well', async () => {
    const house = await fakeHouse();
    await prepare(house, what, kind);
    const first = freezeAt(isThere);
    const doomed = await house.start({ observeStep: first.observeStep });
    const operation = await ask(doomed, what, kind);
    await first.reached;
    await doomed.crash(first.thaw);

    const second = freezeAt(isThere);
    const alsoDoomed = await house.start({ observeStep: second.observeStep });
    await second.reached;
    await alsoDoomed.crash(second.thaw);

    const next = await house.start();
    expect((await next.client.call('operation-wait', { operation })).state).toBe('succeeded');
    expect(await stateOf(next)).toBe(stateAfter[kind]);
    await expectAgreement(next);
  });
});

describe.each(places)('a failure $moment $step of $kind of a $what', ({ what, kind, step, moment }) => {
  test('is told, and what was done is undone: ledger and host agree, and it can be asked for again', async () => {
    const house = await fakeHouse();
    await prepare(house, what, kind);
    let failing = true;
    const observeStep: StepObserver = (place) => {
      if (failing && place.kind === kind && place.step === step && place.moment === moment)
        throw new RoostError('HostError', 'the test says no');
    };
    const daemon = await house.start({ observeStep });
    const ended = await daemon.client.call('operation-wait', { operation: await ask(daemon, what, kind) });
    expect(ended).toMatchObject({ state: 'failed', error: { class: 'HostError', desc: 'the test says no' } });
    if (kind !== 'guest-delete') await expectAgreement(daemon);
    failing = false;
    const again = await daemon.client.call('operation-wait', { operation: await ask(daemon, what, kind) });
    expect(again).toMatchObject({ state: 'succeeded' });
    expect(await stateOf(daemon)).toBe(stateAfter[kind]);
    await expectAgreement(daemon);
  });
});

const undone = whats.flatMap((what) =>
  (['guest-create', 'guest-start'] as const).flatMap((kind) =>
    stepsOf[kind].flatMap((step) =>
      (['before-undo', 'after-undo'] as const).map((moment) => ({ what, kind, step, moment })),
    ),
  ),
);

describe.each(undone)('a crash $moment of $step of $kind of a $what', ({ what, kind, step, moment }) => {
  test('is made good: the undo is finished', async () => {
    const house = await fakeHouse();
    await prepare(house, what, kind);
    const last = stepsOf[kind].at(-1);
    const freeze = freezeAt((place) => place.kind === kind && place.step === step && place.moment === moment);
    const doomed = await house.start({
      observeStep: (place) => {
        if (place.kind === kind && place.step === last && place.moment === 'after')
          throw new RoostError('HostError', 'the test says no');
        return freeze.observeStep(place);
      },
    });
    const operation = await ask(doomed, what, kind);
    const frozen = await Promise.race([
      freeze.reached.then(() => true),
      doomed.client.call('operation-wait', { operation }).then(
        () => false,
        () => true,
      ),
    ]);
    // Not every step has an undo.
    if (!frozen) return;
    await doomed.crash(freeze.thaw);
    const next = await house.start();
    const ended = await next.client.call('operation-wait', { operation });
    // What it failed with is known to the daemon that only finishes the undoing.
    expect(ended).toMatchObject({ state: 'failed', error: { class: 'HostError', desc: 'the test says no' } });
    await expectAgreement(next);
    expect(house.host.isAlive('web1')).toBe(false);
    expect(await stateOf(next)).toBe(kind === 'guest-start' ? 'failed' : undefined);
  });
});

test('a deletion that ends before every guest was looked at stays what it was: a success', async () => {
  const house = await fakeHouse();
  const daemon = await house.start();
  await daemon.client.done('guest-create', { ...aGuest('slow'), start: true });
  await daemon.client.done('guest-create', aGuest('gone'));
  await daemon.stop();
  const { observeStep, reached, thaw } = freezeAt(
    ({ kind, step }) => kind === 'guest-delete' && step === 'end',
  );
  const doomed = await house.start({ observeStep });
  const { operation } = await doomed.client.call('guest-delete', { guest: 'gone' });
  await reached;
  await doomed.crash(thaw);

  // The look at the slow guest takes until the deletion of the other one has ended.
  let deleted: () => void = () => undefined;
  const afterDeletion = new Promise<void>((resolve) => {
    deleted = resolve;
  });
  house.host.before = (call, name) => (call === 'attach' && name === 'slow' ? afterDeletion : undefined);
  const starting = house.start({
    observeStep: ({ kind, step, moment }) => {
      if (kind === 'guest-delete' && step === 'remove' && moment === 'after') setImmediate(deleted);
    },
  });
  const next = await starting;
  expect(await next.client.call('operation-wait', { operation })).toMatchObject({ state: 'succeeded' });
});
