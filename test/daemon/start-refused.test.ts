/**
 * A start ends no process but the one that it launched itself: not when it is refused, not when it fails, not when the
 * daemon dies in the middle of it and the next one takes it back.
 */
import { describe, expect, test } from 'vitest';
import type { StepObserver } from '../../daemon/operations/steps.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { OperationView } from '../../protocol/operation.ts';
import { aGuest, type FakeDaemon, type FakeHouse, fakeHouse, freezeAt } from './fake-house.ts';

const spec = aGuest('web1', { nics: [{ network: 'lan' }] });

const wait = ({ client }: FakeDaemon, operation: OperationView['id']): Promise<OperationView> =>
  client.call('operation-wait', { operation });

const pidOf = async ({ client }: FakeDaemon): Promise<number | undefined> =>
  (await client.call('query-guest', { guest: 'web1' })).process?.pid;

const running = async (house: FakeHouse, options: Parameters<FakeHouse['start']>[0] = {}) => {
  const daemon = await house.start(options);
  await daemon.client.done('network-create', { name: 'lan' });
  await daemon.client.done('guest-create', { ...spec, start: true });
  return daemon;
};

/** A daemon that has no line to the guest's process, and a stop that waits for it: a start can be asked for. */
const outOfReach = async (house: FakeHouse, options: Parameters<FakeHouse['start']>[0] = {}) => {
  const before = await running(house);
  house.host.silence('web1');
  await before.crash();
  const daemon = await house.start(options);
  expect(await daemon.client.call('query-guest', { guest: 'web1' })).toMatchObject({ state: 'unresponsive' });
  const stop = await daemon.client.call('guest-stop', { guest: 'web1' });
  return { daemon, stop: stop.operation };
};

/** Lets the start have its turn. */
const startInstead = async (daemon: FakeDaemon, stop: OperationView['id']): Promise<OperationView['id']> => {
  const { operation } = await daemon.client.call('guest-start', { guest: 'web1' });
  await daemon.client.call('operation-cancel', { operation: stop });
  return operation;
};

const expectUntouched = async (house: FakeHouse, daemon: FakeDaemon): Promise<void> => {
  expect(house.host.isAlive('web1')).toBe(true);
  expect(house.host.calls.filter((call) => call === 'kill web1')).toEqual([]);
  expect(house.host.calls.filter((call) => call === 'launch web1')).toHaveLength(1);
  expect(daemon.ledger).toEqual(await daemon.host());
};

describe('a start whose guest has a process that does not answer', () => {
  test('is refused and leaves the process, its port and its rows alone; it heals by itself', async () => {
    const house = await fakeHouse();
    const { daemon, stop } = await outOfReach(house);
    const pid = await pidOf(daemon);
    const start = await startInstead(daemon, stop);
    expect(await wait(daemon, start)).toMatchObject({
      state: 'failed',
      error: { class: 'FailedPrecondition', desc: expect.stringContaining('silent') },
    });
    await expectUntouched(house, daemon);
    expect(await daemon.client.call('query-guest', { guest: 'web1' })).toMatchObject({
      state: 'unresponsive',
      target: 'running',
    });
    house.host.speak('web1');
    await daemon.client.waitForState('web1', 'running');
    expect(await pidOf(daemon)).toBe(pid);
    await expectUntouched(house, daemon);
  });

  test('takes it over when it answers by then', async () => {
    const house = await fakeHouse();
    const { daemon, stop } = await outOfReach(house);
    const pid = await pidOf(daemon);
    const { operation } = await daemon.client.call('guest-start', { guest: 'web1' });
    house.host.speak('web1');
    await daemon.client.call('operation-cancel', { operation: stop });
    expect(await wait(daemon, operation)).toMatchObject({ state: 'succeeded' });
    expect(await pidOf(daemon)).toBe(pid);
    await expectUntouched(house, daemon);
  });

  test.each(
    (['before', 'after'] as const).flatMap((moment) =>
      ['volumes', 'ports', 'launch', 'resume'].map((step) => [moment, step] as const),
    ),
  )('and that dies with its daemon %s %s leaves it alone, too', async (moment, step) => {
    const house = await fakeHouse();
    const freeze = freezeAt(
      (place) => place.kind === 'guest-start' && place.step === step && place.moment === moment,
    );
    const { daemon: doomed, stop } = await outOfReach(house, { observeStep: freeze.observeStep });
    const { operation } = await doomed.client.call('guest-start', { guest: 'web1' });
    // Only where the guest answers the start gets any further than its first step.
    if (step !== 'volumes' || moment !== 'before') house.host.speak('web1');
    await doomed.client.call('operation-cancel', { operation: stop });
    await freeze.reached;
    house.host.silence('web1');
    await doomed.crash(freeze.thaw);

    const next = await house.start();
    expect(await wait(next, operation)).toMatchObject({
      state: 'failed',
      error: { class: 'FailedPrecondition' },
    });
    await expectUntouched(house, next);
  });
});

const failing =
  (step: string): StepObserver =>
  (place) => {
    if (place.kind === 'guest-start' && place.step === step && place.moment === 'after')
      throw new RoostError('HostError', 'the test says no');
  };

test.each(['volumes', 'ports', 'launch', 'resume'])(
  'a second start that fails after %s leaves the process of the first',
  async (step) => {
    const house = await fakeHouse();
    let armed = false;
    const daemon = await running(house, {
      observeStep: (place) => (armed ? failing(step)(place) : undefined),
    });
    const pid = await pidOf(daemon);
    armed = true;
    house.host.silence('web1');
    const pause = await daemon.client.call('guest-pause', { guest: 'web1' });
    const { operation } = await daemon.client.call('guest-start', { guest: 'web1' });
    house.host.speak('web1');
    await wait(daemon, pause.operation);
    expect(await wait(daemon, operation)).toMatchObject({ state: 'failed' });
    expect(await pidOf(daemon)).toBe(pid);
    await expectUntouched(house, daemon);
  },
);

test('a start that is cancelled by a crash before it was begun leaves the process of the first', async () => {
  const house = await fakeHouse();
  const doomed = await running(house);
  house.host.silence('web1');
  await doomed.client.call('guest-pause', { guest: 'web1' });
  const { operation } = await doomed.client.call('guest-start', { guest: 'web1' });
  doomed.daemon.inventory.operations.write({
    ...must(doomed.daemon.inventory.operations.byId(operation)),
    cancelRequested: true,
  });
  await doomed.crash();
  house.host.speak('web1');
  const next = await house.start();
  expect(await wait(next, operation)).toMatchObject({ state: 'cancelled' });
  await expectUntouched(house, next);
});

test('a start ends the process that it launched itself, also when its daemon died and it is silent now', async () => {
  const house = await fakeHouse();
  const freeze = freezeAt(
    ({ kind, step, moment }) => kind === 'guest-start' && step === 'launch' && moment === 'after',
  );
  const doomed = await house.start({ observeStep: freeze.observeStep });
  await doomed.client.done('network-create', { name: 'lan' });
  const { operation } = await doomed.client.call('guest-create', { ...spec, start: true });
  await freeze.reached;
  house.host.silence('web1');
  await doomed.crash(freeze.thaw);
  const next = await house.start();
  expect(await wait(next, operation)).toMatchObject({ state: 'failed', error: { class: 'Unavailable' } });
  expect(house.host.isAlive('web1')).toBe(false);
  expect(next.ledger).toEqual(await next.host());
});

const must = <T>(value: T | undefined): T => {
  if (value === undefined) throw new Error('it is not there');
  return value;
};
