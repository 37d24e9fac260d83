/** What the host's own shutdown does to guests, and what it leaves of what was asked of them. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { patienceMs, shutdownStages } from '../../daemon/guests/shutdown-order.ts';
import { aGuest, type FakeDaemon, type FakeHouse, fakeHouse } from './fake-house.ts';

const autostart = (order: number) => ({ autostart: { enabled: true, order, delayMs: 0 } });

const begin = async (): Promise<{ house: FakeHouse; daemon: FakeDaemon; client: FakeDaemon['client'] }> => {
  const house = await fakeHouse();
  const daemon = await house.start();
  return { house, daemon, client: daemon.client };
};

describe('the order', () => {
  test('is the reverse of autostart, and begins with those without', () => {
    const guest = (name: string, enabled: boolean, order = 0) => ({ name, autostart: { enabled, order } });
    const stages = shutdownStages([
      guest('db', true, 1),
      guest('web', true, 2),
      guest('play', false, 9),
      guest('cache', true, 1),
      guest('toy', false),
    ]);
    expect(stages.map((stage) => stage.map(({ name }) => name))).toEqual([
      ['play', 'toy'],
      ['web'],
      ['db', 'cache'],
    ]);
  });

  test('loses nobody and asks nobody twice', () => {
    const guest = fc.record({ autostart: fc.record({ enabled: fc.boolean(), order: fc.integer() }) });
    fc.assert(
      fc.property(fc.array(guest), (guests) => {
        const asked = shutdownStages(guests).flat();
        expect(asked).toHaveLength(guests.length);
        expect(new Set(asked)).toEqual(new Set(guests));
      }),
    );
  });

  test('no stage but the last may take all the time that is left', () => {
    expect([patienceMs(1000, false), patienceMs(1000, true), patienceMs(-5, true)]).toEqual([500, 1000, 0]);
  });
});

describe('a shutdown of the host', () => {
  test('asks guests in that order, and leaves what is asked of them', async () => {
    const { house, daemon, client } = await begin();
    await client.done('guest-create', aGuest('db', { start: true, ...autostart(1) }));
    await client.done('guest-create', aGuest('web', { start: true, ...autostart(2) }));
    await client.done(
      'guest-create',
      aGuest('play', { start: true, restartPolicy: { when: 'always', delayMs: 1000 } }),
    );
    await client.done('guest-create', aGuest('off'));
    const from = house.host.calls.length;
    const ended = await client.finish('host-shutdown-guests', {});
    expect(ended).toMatchObject({
      state: 'succeeded',
      result: { guests: ['play', 'web', 'db'], problems: [] },
    });
    const asked = house.host.calls.slice(from).filter((call) => call.startsWith('shutdown'));
    expect(asked).toEqual(['shutdown play', 'shutdown web', 'shutdown db']);
    for (const guest of ['db', 'web', 'play'])
      expect(await client.call('query-guest', { guest })).toMatchObject({
        state: 'stopped',
        target: 'running',
        lastExit: { cause: 'guest-shutdown' },
      });
    // Nobody's restart policy took it for an end that nobody asked for.
    expect(house.clock.delays).toEqual([]);
    expect(daemon.ledger).toEqual(await daemon.host());

    await daemon.stop();
    house.host.host.reboot();
    const next = await house.start({ bootId: 'second boot' });
    for (const guest of ['db', 'web']) await next.client.waitForState(guest, 'running');
    expect((await next.client.call('query-guest', { guest: 'play' })).state).toBe('stopped');
  });

  test('goes past a guest that does not heed its button, and ends it at the deadline of all', async () => {
    const { house, client } = await begin();
    house.host.deaf.add('deaf');
    await client.done('guest-create', aGuest('deaf', { start: true, stopTimeoutMs: 600_000 }));
    await client.done('guest-create', aGuest('db', { start: true, ...autostart(1) }));
    const { operation } = await client.call('host-shutdown-guests', { timeoutMs: 60_000 });
    await client.waitForState('deaf', 'stopping');
    house.clock.advance(30_000);
    await client.waitForState('db', 'stopped');
    expect(house.host.isAlive('deaf')).toBe(true);
    house.clock.advance(30_000);
    const ended = await client.call('operation-wait', { operation });
    expect(ended).toMatchObject({ state: 'succeeded', result: { guests: ['deaf', 'db'] } });
    expect(await client.call('query-guest', { guest: 'deaf' })).toMatchObject({
      state: 'stopped',
      target: 'running',
      lastExit: { cause: 'asked' },
    });
  });

  test('holds a stop that somebody else asked for to its own deadline', async () => {
    const { house, client } = await begin();
    house.host.deaf.add('deaf');
    await client.done('guest-create', aGuest('deaf', { start: true }));
    await client.call('guest-stop', { guest: 'deaf', timeoutMs: 600_000 });
    await client.waitForState('deaf', 'stopping');
    const { operation } = await client.call('host-shutdown-guests', { timeoutMs: 5000 });
    await client.waitForEvent(
      ({ event, data }) =>
        event === 'OPERATION_CHANGED' && data['operation'] === operation && data['step'] === 'shut-down',
    );
    house.clock.advance(5000);
    expect((await client.call('operation-wait', { operation })).state).toBe('succeeded');
    // This one was to be stopped before.
    expect((await client.call('query-guest', { guest: 'deaf' })).target).toBe('stopped');
  });

  test('has no guest started while it is under way, and starts are taken again afterwards', async () => {
    const { house, client } = await begin();
    house.host.deaf.add('deaf');
    await client.done('guest-create', aGuest('deaf', { start: true }));
    await client.done('guest-create', aGuest('other'));
    const { operation } = await client.call('host-shutdown-guests', { timeoutMs: 5000 });
    const refusal = { class: 'FailedPrecondition', message: expect.stringContaining('is being shut down') };
    await expect(client.call('guest-start', { guest: 'other' })).rejects.toMatchObject(refusal);
    await expect(client.call('guest-create', aGuest('new', { start: true }))).rejects.toMatchObject(refusal);
    await client.waitForState('deaf', 'stopping');
    house.clock.advance(5000);
    await client.call('operation-wait', { operation });
    await client.done('guest-start', { guest: 'other' });
  });

  test('is carried on by the next daemon, with the deadline that it had', async () => {
    const { house, daemon, client } = await begin();
    house.host.deaf.add('deaf');
    await client.done('guest-create', aGuest('deaf', { start: true, stopTimeoutMs: 600_000 }));
    const { operation } = await client.call('host-shutdown-guests', { timeoutMs: 60_000 });
    await client.waitForState('deaf', 'stopping');
    house.clock.advance(40_000);
    await daemon.crash();
    const next = await house.start();
    house.clock.advance(20_000);
    expect((await next.client.call('operation-wait', { operation })).state).toBe('succeeded');
    expect(await next.client.call('query-guest', { guest: 'deaf' })).toMatchObject({
      state: 'stopped',
      target: 'running',
    });
  });

  test('that the host did not wait for is over with the boot, and shuts nobody down then', async () => {
    const { house, daemon, client } = await begin();
    house.host.deaf.add('deaf');
    await client.done('guest-create', aGuest('deaf', { start: true, ...autostart(1) }));
    const { operation } = await client.call('host-shutdown-guests', {});
    await client.waitForState('deaf', 'stopping');
    await daemon.crash();
    house.host.host.reboot();
    const next = await house.start({ bootId: 'second boot' });
    expect(await next.client.call('operation-wait', { operation })).toMatchObject({
      state: 'succeeded',
      result: { hostStopped: true },
    });
    await next.client.waitForState('deaf', 'running');
    expect((await next.client.call('query-guest', { guest: 'deaf' })).target).toBe('running');
  });
});
