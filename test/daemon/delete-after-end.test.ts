import { expect, test } from 'vitest';
import { aGuest, type FakeDaemon, type FakeHouse, fakeHouse } from './fake-house.ts';

const begin = async (): Promise<{ house: FakeHouse; daemon: FakeDaemon; client: FakeDaemon['client'] }> => {
  const house = await fakeHouse();
  const daemon = await house.start();
  return { house, daemon, client: daemon.client };
};

const deleted = ({ client }: FakeDaemon, from: number): Promise<unknown> =>
  client.waitForEvent(({ event }) => event === 'GUEST_DELETED', undefined, from);

const isThere = async ({ client }: FakeDaemon): Promise<boolean> =>
  ((await client.call('query-guests', {})) as { readonly total: number }).total > 0;

const passing = { deleteAfterEndMs: 5_000 };

test('a guest that is to go does so when its time after the end has come, and whoever waits is told of the end', async () => {
  const { house, daemon, client } = await begin();
  await client.done('guest-create', aGuest('web1', { start: true, ...passing }));
  const other = await daemon.connect();
  const waiting = other.call('guest-wait', { guest: 'web1', until: 'stopped' });
  house.host.powerOff('web1');
  await client.waitForState('web1', 'stopped');
  expect(house.clock.delays).toEqual([5_000]);
  const from = client.events.length;
  house.clock.advance(5_000);
  await deleted(daemon, from);
  expect(await waiting).toMatchObject({ state: 'stopped', lastExit: { cause: 'guest-shutdown' } });
  expect(await isThere(daemon)).toBe(false);
  expect(daemon.ledger.filter((key) => key.includes('guests/'))).toEqual([]);
});

test('it stays while it is started again, and where it is told otherwise', async () => {
  const { house, daemon, client } = await begin();
  await client.done('guest-create', aGuest('web1', { start: true, ...passing }));
  house.host.powerOff('web1');
  await client.waitForState('web1', 'stopped');
  await client.done('guest-start', { guest: 'web1' });
  house.clock.advance(60_000);
  expect(await isThere(daemon)).toBe(true);
  await client.done('guest-update', { guest: 'web1', deleteAfterEndMs: null });
  await client.done('guest-stop', { guest: 'web1', force: true });
  expect(await client.call('query-guest', { guest: 'web1' })).not.toHaveProperty('deleteAfterEndMs');
  expect(house.clock.delays).toEqual([]);
});

test('one that was only made, and never ran, stays', async () => {
  const { house, client } = await begin();
  await client.done('guest-create', aGuest('web1', passing));
  expect(house.clock.delays).toEqual([]);
});

test('it goes as well when its end was seen by an earlier daemon, or by none', async () => {
  const { house, daemon, client } = await begin();
  await client.done('guest-create', aGuest('web1', { start: true, ...passing }));
  await daemon.stop();
  house.host.powerOff('web1');
  const next = await house.start();
  await next.client.waitForState('web1', 'stopped');
  const from = next.client.events.length;
  house.clock.advance(5_000);
  await deleted(next, from);
  expect(await isThere(next)).toBe(false);
});

test('it goes at once when its first start fails', async () => {
  const { house, daemon, client } = await begin();
  const from = client.events.length;
  const qemu = { extraArgs: [{ argument: 'no such thing', reason: 'a test' }] };
  await client.call('guest-create', aGuest('web1', { start: true, deleteAfterEndMs: 0, qemu }));
  await client.waitForState('web1', 'failed');
  house.clock.advance(0);
  await deleted(daemon, from);
  expect(await isThere(daemon)).toBe(false);
});
