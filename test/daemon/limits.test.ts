/** What the host bears only so much of at a time waits its turn, visibly, and can be cancelled meanwhile. */
import { expect, test } from 'vitest';
import { deferred } from '../../lib/abort.ts';
import { aGuest, fakeHouse } from './fake-house.ts';

test('starts beyond the limit wait in order, say what for, can be cancelled, and get their turn', async () => {
  const house = await fakeHouse();
  const daemon = await house.start({ limits: { starts: 1 } });
  const { client } = daemon;
  for (const name of ['a', 'b', 'c', 'd']) await client.done('guest-create', aGuest(name));
  const held = deferred<void>();
  const begun = deferred<void>();
  house.beforePool = (effect) => {
    if (effect !== 'lease') return undefined;
    begun.resolve();
    return held.promise;
  };
  const ids = [];
  for (const name of ['a', 'b', 'c', 'd']) {
    ids.push((await client.call('guest-start', { guest: name })).operation);
    await begun.promise;
  }
  const [a, b, c, d] = ids;
  if (!a || !b || !c || !d) throw new Error('four were started');
  const seen = await client.call('query-operations', { ids: [b, c, d] });
  expect(seen.operations.map(({ state, position, waitingFor }) => ({ state, position, waitingFor }))).toEqual(
    [
      { state: 'queued', position: 3, waitingFor: '3 other starts' },
      { state: 'queued', position: 2, waitingFor: '2 other starts' },
      { state: 'queued', position: 1, waitingFor: '1 other start' },
    ],
  );
  expect((await client.call('operation-cancel', { operation: c })).state).toBe('cancelled');
  // What is cancelled holds up neither its guest nor those behind it.
  await client.done('guest-update', { guest: 'c', description: 'still here' });
  await client.done('guest-delete', { guest: 'c' });
  expect((await client.call('query-operations', { ids: [d] })).operations[0]?.position).toBe(2);
  held.resolve();
  for (const operation of [a, b, d])
    expect((await client.call('operation-wait', { operation })).state).toBe('succeeded');
  expect(house.host.calls.filter((call) => call.startsWith('launch'))).toEqual([
    'launch a',
    'launch b',
    'launch d',
  ]);
});

test('a stop of a guest whose start waits for its turn cancels that start', async () => {
  const house = await fakeHouse();
  const daemon = await house.start({ limits: { starts: 1 } });
  const { client } = daemon;
  for (const name of ['a', 'b']) await client.done('guest-create', aGuest(name));
  const held = deferred<void>();
  const begun = deferred<void>();
  house.beforePool = (effect) => {
    if (effect !== 'lease') return undefined;
    begun.resolve();
    return held.promise;
  };
  const first = await client.call('guest-start', { guest: 'a' });
  await begun.promise;
  const second = await client.call('guest-start', { guest: 'b' });
  await client.done('guest-stop', { guest: 'b' });
  expect((await client.call('operation-wait', { operation: second.operation })).state).toBe('cancelled');
  held.resolve();
  expect((await client.call('operation-wait', { operation: first.operation })).state).toBe('succeeded');
});

test('a start that waits for its turn when the daemon ends is done by the next one', async () => {
  const house = await fakeHouse();
  const daemon = await house.start({ limits: { starts: 1 } });
  for (const name of ['a', 'b']) await daemon.client.done('guest-create', aGuest(name));
  const held = deferred<void>();
  const begun = deferred<void>();
  house.beforePool = (effect) => {
    if (effect !== 'lease') return undefined;
    begun.resolve();
    return held.promise;
  };
  await daemon.client.call('guest-start', { guest: 'a' });
  await begun.promise;
  const { operation } = await daemon.client.call('guest-start', { guest: 'b' });
  const stopped = daemon.stop();
  held.resolve();
  await stopped;
  house.beforePool = () => undefined;
  const next = await house.start({ limits: { starts: 1 } });
  expect((await next.client.call('operation-wait', { operation })).state).toBe('succeeded');
});

test('imports beyond the limit wait in order and say what for', async () => {
  const house = await fakeHouse();
  const daemon = await house.start({ limits: { diskCopies: 1 } });
  const held = deferred<void>();
  const begun = deferred<void>();
  const original = house.images.import.bind(house.images);
  house.images.import = async (...args) => {
    begun.resolve();
    await held.promise;
    return await original(...args);
  };
  house.images.offer('/i', 512);
  const [first, second] = [
    await daemon.client.call('image-import', { name: 'one', path: '/i' }),
    await daemon.client.call('image-import', { name: 'two', path: '/i' }),
  ];
  await begun.promise;
  const { operations } = await daemon.client.call('query-operations', { ids: [second.operation] });
  expect(operations).toMatchObject([
    { state: 'queued', position: 1, waitingFor: '1 other copy of a disk or build of an image' },
  ]);
  held.resolve();
  for (const { operation } of [first, second])
    expect((await daemon.client.call('operation-wait', { operation })).state).toBe('succeeded');
});
