import { describe, expect, test, vi } from 'vitest';
import { GuestTable } from '../../daemon/inventory/guest-table.ts';
import { RoostError } from '../../protocol/errors.ts';
import { aGuest, type FakeDaemon, type FakeHouse, fakeHouse, freezeAt } from './fake-house.ts';

const begin = async (): Promise<{ house: FakeHouse; daemon: FakeDaemon; client: FakeDaemon['client'] }> => {
  const house = await fakeHouse();
  const daemon = await house.start();
  return { house, daemon, client: daemon.client };
};
const onFailure = { restartPolicy: { when: 'on-failure' as const, delayMs: 1000, maxDelayMs: 4000 } };

/** The guest dies; resolves when its policy has decided. */
const dieAndSchedule = async (house: FakeHouse, { client }: FakeDaemon): Promise<number> => {
  const from = client.events.length;
  house.host.kill('web1');
  const { data } = await client.waitForEvent(
    ({ event }) => event === 'GUEST_RESTART_SCHEDULED',
    undefined,
    from,
  );
  return Number(data['delayMs']);
};

const advanceToRunning = async (house: FakeHouse, { client }: FakeDaemon, ms: number): Promise<void> => {
  const from = client.events.length;
  house.clock.advance(ms);
  await client.waitForEvent(
    ({ event, data }) =>
      event === 'OPERATION_CHANGED' && data['kind'] === 'guest-start' && data['state'] === 'succeeded',
    undefined,
    from,
  );
};

describe('a guest that powers itself off', () => {
  test('is to be stopped from then on, by itself', async () => {
    const { house, client } = await begin();
    await client.done('guest-create', aGuest('web1', { start: true, ...onFailure }));
    house.host.powerOff('web1');
    await client.waitForState('web1', 'stopped');
    expect(await client.call('query-guest', { guest: 'web1' })).toMatchObject({
      target: 'stopped',
      targetActor: 'guest',
      lastExit: { cause: 'guest-shutdown' },
      restarts: { count: 0 },
    });
    expect(house.clock.delays).toEqual([]);
  });

  test('stays off after a restart of the daemon and after a boot of the host', async () => {
    const { house, daemon, client } = await begin();
    await client.done('guest-create', aGuest('web1', { start: true, ...onFailure }));
    house.host.powerOff('web1');
    await client.waitForState('web1', 'stopped');
    await daemon.stop();
    const second = await house.start();
    expect(await second.client.call('query-guest', { guest: 'web1' })).toMatchObject({
      state: 'stopped',
      target: 'stopped',
    });
    await second.stop();
    house.host.host.reboot();
    const third = await house.start({ bootId: 'second boot' });
    expect(await third.client.call('query-guest', { guest: 'web1' })).toMatchObject({
      state: 'stopped',
      target: 'stopped',
    });
    expect(house.host.calls.filter((call) => call === 'launch web1')).toHaveLength(1);
  });

  test('while the daemon is away is found stopped by itself, and everything of its run is freed', async () => {
    const { house, daemon, client } = await begin();
    await client.done('guest-create', aGuest('web1', { start: true, ...onFailure }));
    await daemon.stop();
    house.host.powerOff('web1');
    const next = await house.start();
    expect(await next.client.call('query-guest', { guest: 'web1' })).toMatchObject({
      state: 'stopped',
      target: 'stopped',
      targetActor: 'guest',
      lastExit: { cause: 'guest-shutdown' },
    });
    expect(next.ledger).toEqual(await next.host());
    expect(next.client.events.map(({ event }) => event)).toContain('GUEST_EXITED');
  });

  test('is started again if its policy is always', async () => {
    const { house, daemon, client } = await begin();
    await client.done(
      'guest-create',
      aGuest('web1', { start: true, restartPolicy: { when: 'always', delayMs: 500 } }),
    );
    house.host.powerOff('web1');
    await client.waitForEvent(({ event }) => event === 'GUEST_RESTART_SCHEDULED');
    expect((await client.call('query-guest', { guest: 'web1' })).target).toBe('running');
    await advanceToRunning(house, daemon, 500);
    expect(house.host.isAlive('web1')).toBe(true);
  });
});

describe('a guest that is killed', () => {
  test('without a policy has failed, and says how', async () => {
    const { house, client } = await begin();
    await client.done('guest-create', aGuest('web1', { start: true }));
    house.host.kill('web1');
    await client.waitForState('web1', 'failed');
    expect(await client.call('query-guest', { guest: 'web1' })).toMatchObject({
      target: 'running',
      reason: 'ended by SIGKILL',
      lastExit: { cause: 'killed' },
    });
  });

  test('restarts with doubling delays up to the cap; the count shows', async () => {
    const { house, daemon, client } = await begin();
    await client.done('guest-create', aGuest('web1', { start: true, ...onFailure }));
    for (const [index, delayMs] of [1000, 2000, 4000, 4000].entries()) {
      expect(await dieAndSchedule(house, daemon)).toBe(delayMs);
      expect((await client.call('query-guest', { guest: 'web1' })).restarts).toEqual({
        count: index + 1,
        nextAt: house.clock.now() + delayMs,
      });
      house.clock.advance(delayMs - 1);
      expect(house.host.isAlive('web1')).toBe(false);
      await advanceToRunning(house, daemon, 1);
    }
    expect(daemon.ledger).toEqual(await daemon.host());
  });

  test('after a run that lasted begins with the first delay again', async () => {
    const { house, daemon, client } = await begin();
    await client.done('guest-create', aGuest('web1', { start: true, ...onFailure }));
    await dieAndSchedule(house, daemon);
    await advanceToRunning(house, daemon, 1000);
    house.clock.advance(60_000);
    expect(await dieAndSchedule(house, daemon)).toBe(1000);
  });

  test('is not restarted once it was stopped explicitly', async () => {
    const { house, daemon, client } = await begin();
    await client.done('guest-create', aGuest('web1', { start: true, ...onFailure }));
    await dieAndSchedule(house, daemon);
    await client.done('guest-stop', { guest: 'web1' });
    expect(house.clock.delays).toEqual([]);
    const stopped = await client.call('query-guest', { guest: 'web1' });
    expect(stopped).toMatchObject({ state: 'stopped', target: 'stopped' });
    expect(stopped.restarts).not.toHaveProperty('nextAt');
  });

  test('an explicit start counts anew', async () => {
    const { house, daemon, client } = await begin();
    await client.done('guest-create', aGuest('web1', { start: true, ...onFailure }));
    await dieAndSchedule(house, daemon);
    await client.done('guest-start', { guest: 'web1' });
    expect(house.clock.delays).toEqual([]);
    expect((await client.call('query-guest', { guest: 'web1' })).restarts).toEqual({ count: 0 });
    expect(await dieAndSchedule(house, daemon)).toBe(1000);
  });

  test('a stop that comes while the policy is about to start it wins', async () => {
    const { house, daemon, client } = await begin();
    await client.done('guest-create', aGuest('web1', { start: true, ...onFailure }));
    await dieAndSchedule(house, daemon);
    const stopping = client.call('guest-stop', { guest: 'web1' });
    house.clock.advance(1000);
    const { operation } = await stopping;
    await client.call('operation-wait', { operation });
    // Whatever the policy was about to do has been answered before this is.
    await client.call('query-host', {});
    expect((await client.call('query-guest', { guest: 'web1' })).target).toBe('stopped');
    const { operations } = await client.call('query-operations', { subject: 'web1' });
    for (const { id } of operations) await client.call('operation-wait', { operation: id });
    expect(house.host.isAlive('web1')).toBe(false);
  });

  test('while the daemon is away is restarted by its policy afterwards', async () => {
    const { house, daemon, client } = await begin();
    await client.done('guest-create', aGuest('web1', { start: true, ...onFailure }));
    await daemon.stop();
    house.host.kill('web1');
    const next = await house.start();
    expect(await next.client.call('query-guest', { guest: 'web1' })).toMatchObject({
      state: 'failed',
      target: 'running',
      lastExit: { cause: 'killed' },
      restarts: { count: 1 },
    });
    await advanceToRunning(house, next, 1000);
    expect(house.host.isAlive('web1')).toBe(true);
  });

  test('a restart that was due goes on waiting in the next daemon', async () => {
    const { house, daemon, client } = await begin();
    await client.done('guest-create', aGuest('web1', { start: true, ...onFailure }));
    await dieAndSchedule(house, daemon);
    house.clock.advance(400);
    await daemon.stop();
    const next = await house.start();
    expect(house.clock.delays).toContain(600);
    await advanceToRunning(house, next, 600);
    expect((await next.client.call('query-guest', { guest: 'web1' })).restarts).toEqual({ count: 1 });
  });

  test('a try by the policy that fails counts as one', async () => {
    const { house, daemon, client } = await begin();
    await client.done('guest-create', aGuest('web1', { start: true, ...onFailure }));
    await dieAndSchedule(house, daemon);
    house.host.before = (call) => {
      if (call === 'launch') throw new Error('no');
    };
    const from = client.events.length;
    house.clock.advance(1000);
    const again = await client.waitForEvent(
      ({ event }) => event === 'GUEST_RESTART_SCHEDULED',
      undefined,
      from,
    );
    expect(again.data).toMatchObject({ delayMs: 2000, attempt: 2 });
    expect((await client.call('query-guest', { guest: 'web1' })).state).toBe('failed');
  });
});

describe('a restart of the daemon', () => {
  test('is nothing to a guest that runs: same process, same state, and its end is seen', async () => {
    const { house, daemon, client } = await begin();
    await client.done('guest-create', aGuest('web1', { start: true }));
    const { process } = await client.call('query-guest', { guest: 'web1' });
    await daemon.stop();
    house.clock.advance(5000);
    const next = await house.start();
    const again = await next.client.call('query-guest', { guest: 'web1' });
    expect(again).toMatchObject({ state: 'running', stale: false, process });
    expect(next.ledger).toEqual(await next.host());
    house.host.kill('web1');
    await next.client.waitForState('web1', 'failed');
  });

  test('a state that changed meanwhile is seen', async () => {
    const { house, daemon, client } = await begin();
    await client.done('guest-create', aGuest('web1', { start: true }));
    await daemon.stop();
    house.host.change('web1', { state: 'paused', reason: 'io-error' });
    const next = await house.start();
    expect(await next.client.call('query-guest', { guest: 'web1' })).toMatchObject({
      state: 'paused',
      reason: 'io-error',
    });
  });

  test('events go on by number, and those of the time between are replayed', async () => {
    const { house, daemon, client } = await begin();
    await client.done('guest-create', aGuest('web1', { start: true }));
    const last = client.events.at(-1)?.sequence ?? 0;
    await daemon.stop();
    house.host.powerOff('web1');
    const next = await house.start();
    const sequences = next.client.events.map(({ sequence }) => sequence);
    expect(sequences[0]).toBe(last + 1);
    expect(sequences).toEqual(sequences.map((_, index) => last + 1 + index));
  });

  test('a guest whose probe cannot tell is unknown, and nothing is changed', async () => {
    const { house, daemon, client } = await begin();
    await client.done('guest-create', aGuest('web1', { start: true }));
    const before = daemon.ledger;
    house.host.obscure('web1');
    await daemon.stop();
    const next = await house.start();
    expect(await next.client.call('query-guest', { guest: 'web1' })).toMatchObject({
      state: 'unknown',
      target: 'running',
    });
    expect(next.ledger).toEqual(before);
    expect(house.host.isAlive('web1')).toBe(true);
  });

  test('a guest whose monitor is silent is unresponsive, holds up nobody, and is taken back when it speaks', async () => {
    const { house, daemon, client } = await begin();
    await client.done('guest-create', aGuest('web1', { start: true }));
    await client.done('guest-create', aGuest('web2', { start: true }));
    await daemon.stop();
    house.host.silence('web1');
    const next = await house.start();
    expect((await next.client.call('query-guest', { guest: 'web1' })).state).toBe('unresponsive');
    expect((await next.client.call('query-guest', { guest: 'web2' })).state).toBe('running');
    house.host.speak('web1');
    await next.client.waitForState('web1', 'running');
  });

  test('a guest is taken back whole though that could not be recorded', async () => {
    const { house, daemon, client } = await begin();
    await client.done('guest-create', aGuest('web1', { start: true }));
    await daemon.stop();
    const write = vi.spyOn(GuestTable.prototype, 'writeStatus').mockImplementationOnce(() => {
      throw new RoostError('ResourceExhausted', 'The inventory could not be written');
    });
    const next = await house.start();
    expect(write).toHaveBeenCalled();
    expect((await next.client.call('query-guest', { guest: 'web1' })).state).toBe('running');
    house.host.kill('web1');
    await next.client.waitForState('web1', 'failed');
  });

  test('since when a monitor is silent is told, also by the next daemon, until it speaks', async () => {
    const { house, daemon, client } = await begin();
    await client.done('guest-create', aGuest('web1', { start: true }));
    await daemon.stop();
    house.host.silence('web1');
    const since = house.clock.now();
    const next = await house.start();
    expect(await next.client.call('query-guest', { guest: 'web1' })).toMatchObject({ silentSince: since });
    house.clock.advance(60_000);
    await next.crash();
    const last = await house.start();
    expect(await last.client.call('query-guest', { guest: 'web1' })).toMatchObject({
      state: 'unresponsive',
      reason: 'stopped',
      silentSince: since,
    });
    house.host.speak('web1');
    await last.client.waitForState('web1', 'running');
    expect(await last.client.call('query-guest', { guest: 'web1' })).not.toHaveProperty('silentSince');
  });

  test('one whose monitor is silent can be stopped by force at once', async () => {
    const { house, daemon, client } = await begin();
    await client.done('guest-create', aGuest('web1', { start: true }));
    await daemon.stop();
    house.host.silence('web1');
    const next = await house.start();
    await next.client.done('guest-stop', { guest: 'web1', force: true });
    expect(house.host.isAlive('web1')).toBe(false);
    expect(next.ledger).toEqual(await next.host());
  });
});

describe('after a boot of the host', () => {
  const autostart = (order: number, delayMs = 0) => ({ autostart: { enabled: true, order, delayMs } });

  test('those with autostart are started, in their order, and nobody else', async () => {
    const { house, daemon, client } = await begin();
    await client.done('guest-create', aGuest('c', autostart(1)));
    await client.done('guest-create', aGuest('a', autostart(3)));
    await client.done('guest-create', aGuest('b', { start: true, ...autostart(2) }));
    await client.done('guest-create', aGuest('ran', { start: true, restartPolicy: { when: 'always' } }));
    await daemon.stop();
    house.host.host.reboot();
    const from = house.host.calls.length;
    const next = await house.start({ bootId: 'second boot' });
    for (const guest of ['a', 'b', 'c']) await next.client.waitForState(guest, 'running');
    expect(house.host.calls.slice(from).filter((call) => call.startsWith('launch'))).toEqual([
      'launch c',
      'launch b',
      'launch a',
    ]);
    expect(await next.client.call('query-guest', { guest: 'ran' })).toMatchObject({
      state: 'stopped',
      lastExit: { detail: 'the host was booted' },
    });
    expect(next.ledger).toEqual(await next.host());
    const { operations } = await next.client.call('query-operations', { subject: 'c' });
    expect(operations[0]?.actor).toBe('policy:autostart');
  });

  test('each waits for the delay of the one before', async () => {
    const { house, daemon, client } = await begin();
    await client.done('guest-create', aGuest('a', autostart(1, 5000)));
    await client.done('guest-create', aGuest('b', autostart(2)));
    await daemon.stop();
    house.host.host.reboot();
    const next = await house.start({ bootId: 'second boot' });
    await next.client.waitForState('a', 'running');
    expect((await next.client.call('query-guest', { guest: 'b' })).state).toBe('stopped');
    house.clock.advance(5000);
    await next.client.waitForState('b', 'running');
  });

  test('a plain restart of the daemon starts nobody', async () => {
    const { house, daemon, client } = await begin();
    await client.done('guest-create', aGuest('a', autostart(1)));
    await daemon.stop();
    const next = await house.start();
    expect((await next.client.call('query-guest', { guest: 'a' })).state).toBe('stopped');
  });

  test('a restart that was due before is forgotten', async () => {
    const { house, daemon, client } = await begin();
    await client.done('guest-create', aGuest('web1', { start: true, ...onFailure }));
    await dieAndSchedule(house, daemon);
    await daemon.stop();
    house.host.host.reboot();
    const next = await house.start({ bootId: 'second boot' });
    expect((await next.client.call('query-guest', { guest: 'web1' })).restarts).not.toHaveProperty('nextAt');
  });

  test('a start that was under way is undone, a stop is finished', async () => {
    const house = await fakeHouse();
    const freeze = freezeAt(({ kind, step }) => kind === 'guest-start' && step === 'ports');
    const daemon = await house.start({
      observeStep: (place) => (frozenToo ? freeze.observeStep(place) : undefined),
    });
    const { client } = daemon;
    let frozenToo = false;
    house.host.deaf.add('stopping');
    await client.done('guest-create', aGuest('stopping', { start: true }));
    await client.done('guest-create', aGuest('starting'));
    frozenToo = true;
    const stop = await client.call('guest-stop', { guest: 'stopping' });
    const start = await client.call('guest-start', { guest: 'starting' });
    await freeze.reached;
    await daemon.crash(freeze.thaw);
    house.host.host.reboot();
    const next = await house.start({ bootId: 'second boot' });
    expect((await next.client.call('operation-wait', { operation: stop.operation })).state).toBe('succeeded');
    expect((await next.client.call('operation-wait', { operation: start.operation })).state).toBe(
      'cancelled',
    );
    for (const guest of ['starting', 'stopping'])
      expect((await next.client.call('query-guest', { guest })).state).toBe('stopped');
    expect(next.ledger).toEqual(await next.host());
  });
});
