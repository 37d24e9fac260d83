/** A guest whose driver the daemon does not have: the daemon starts, tells why, touches nothing, and lets it be given up. */
import { expect, test } from 'vitest';
import { aGuest, type FakeDaemon, type FakeHouse, fakeHouse, freezeAt } from './fake-house.ts';

/** The same host for a daemon that has no driver for its guests. */
const withoutDriver = (house: FakeHouse): Promise<FakeDaemon> => {
  const parts = house.parts();
  return house.start({ parts: () => ({ ...parts, drivers: [] }) });
};

const REASON = 'this daemon has no driver called fake';

const left = async (...starts: readonly string[]): Promise<FakeHouse> => {
  const house = await fakeHouse();
  const daemon = await house.start();
  await daemon.client.done('network-create', { name: 'lan' });
  for (const name of ['web1', 'web2'])
    await daemon.client.done('guest-create', aGuest(name, { nics: [{ network: 'lan' }] }));
  for (const guest of starts) await daemon.client.done('guest-start', { guest });
  await daemon.stop();
  return house;
};

test('is listed with the reason, and nothing of it is touched', async () => {
  const house = await left('web1');
  const before = { calls: [...house.host.calls], pool: house.pool.calls.length };
  const daemon = await withoutDriver(house);
  const { guests } = await daemon.client.call('query-guests', { states: ['unknown'] });
  expect(guests).toMatchObject([
    { name: 'web1', state: 'unknown', reason: REASON, stale: false, target: 'running' },
    { name: 'web2', state: 'unknown', reason: REASON, stale: false, target: 'stopped' },
  ]);
  expect(guests?.[0]).not.toHaveProperty('process');
  expect(await daemon.client.call('query-fsck', {})).toMatchObject({
    differences: [],
    // The network may still be being looked at.
    underWay: expect.arrayContaining([
      expect.objectContaining({ name: 'web1', why: REASON }),
      expect.objectContaining({ name: 'web2', why: REASON }),
    ]) as unknown,
  });
  await daemon.stop();
  expect({ calls: house.host.calls, pool: house.pool.calls.length }).toEqual(before);
  const next = await house.start();
  expect(await next.client.call('query-guest', { guest: 'web1' })).toMatchObject({ state: 'running' });
  expect(await next.client.call('query-guest', { guest: 'web2' })).toMatchObject({ state: 'stopped' });
  expect(next.ledger).toEqual(await next.host());
});

test('refuses what needs the driver, and says what to do', async () => {
  const { client } = await withoutDriver(await left());
  const refusal = { class: 'Unsupported', message: expect.stringContaining('fake') as string };
  const guest = 'web1';
  await expect(client.call('guest-start', { guest })).rejects.toMatchObject({
    ...refusal,
    hint: expect.stringContaining('delete it with force') as string,
  });
  await expect(client.call('guest-stop', { guest, force: true })).rejects.toMatchObject(refusal);
  await expect(client.call('guest-reset-state', { guest, force: true })).rejects.toMatchObject(refusal);
  await expect(client.call('guest-delete', { guest })).rejects.toMatchObject(refusal);
  await expect(client.call('guest-rename', { guest, newName: 'web3' })).rejects.toMatchObject(refusal);
  await expect(client.call('guest-plan', { guest })).rejects.toMatchObject(refusal);
  await expect(client.call('query-guest-log', { guest, stream: 'console' })).rejects.toMatchObject(refusal);
  await expect(
    client.call('guest-disk-attach', { guest, name: 'data', sizeBytes: 1024 * 1024 }),
  ).rejects.toMatchObject(refusal);
  await expect(client.call('guest-update', { guest, cpu: { count: 2 } })).rejects.toMatchObject(refusal);
  await client.done('guest-update', { guest, labels: { tier: 'web' } });
});

test('is deleted by force; of a process that was recorded it says that it gave up', async () => {
  const house = await left('web1');
  const daemon = await withoutDriver(house);
  const gone = await daemon.client.finish('guest-delete', { guest: 'web1', force: true });
  expect(gone).toMatchObject({
    state: 'succeeded',
    result: { gaveUpOn: [expect.stringMatching(/^its process, pid \d+: .*no driver called fake/) as string] },
  });
  const down = await daemon.client.finish('guest-delete', { guest: 'web2', force: true });
  expect(down).toMatchObject({ state: 'succeeded' });
  expect(down.result).not.toHaveProperty('gaveUpOn');
  expect((await daemon.client.call('query-guests', {})).total).toBe(0);
  expect(house.host.isAlive('web1')).toBe(true);
  await daemon.stop();
  const next = await house.start();
  const { differences } = await next.client.call('query-fsck', {});
  expect(differences.map(({ object }) => object?.kind)).toContain('process');
  house.host.kill('web1');
});

test('protected against deletion, it has to be unprotected first', async () => {
  const house = await fakeHouse();
  const first = await house.start();
  await first.client.done('guest-create', aGuest('web1', { deleteProtection: true }));
  await first.stop();
  const { client } = await withoutDriver(house);
  const force = { guest: 'web1', force: true };
  await expect(client.call('guest-delete', force)).rejects.toMatchObject({ class: 'FailedPrecondition' });
  await client.done('guest-update', { guest: 'web1', deleteProtection: false });
  await client.done('guest-delete', force);
});

test('what was half done on it ends as failed and is left as it is; the next daemon that can finds it', async () => {
  const house = await left();
  const freeze = freezeAt(
    ({ kind, step, moment }) => `${kind}/${step}/${moment}` === 'guest-start/launch/after',
  );
  const doomed = await house.start({ observeStep: freeze.observeStep });
  const { operation } = await doomed.client.call('guest-start', { guest: 'web1' });
  await freeze.reached;
  await doomed.crash(freeze.thaw);
  const daemon = await withoutDriver(house);
  expect(await daemon.client.call('operation-wait', { operation })).toMatchObject({
    state: 'failed',
    error: { class: 'Unsupported' },
  });
  await daemon.stop();
  expect(house.host.isAlive('web1')).toBe(true);
  const next = await house.start();
  const { id, state } = await next.client.call('query-guest', { guest: 'web1' });
  expect(['paused', 'running']).toContain(state);
  expect(next.ledger).toEqual(await next.host());
  expect(house.host.host.isAlive(id)).toBe(true);
});
