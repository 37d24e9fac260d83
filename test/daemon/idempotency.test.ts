import { describe, expect, test, vi } from 'vitest';
import { deferred } from '../../lib/abort.ts';
import { aGuest, fakeHouse } from './fake-house.ts';

const key = 'one-and-the-same';

describe('the same idempotency key', () => {
  test('from two clients at the same moment is one operation', async () => {
    const house = await fakeHouse();
    const daemon = await house.start();
    const clients = await Promise.all([daemon.connect(), daemon.connect(), daemon.connect()]);
    const answers = await Promise.all(
      clients.map((client) =>
        client.call('guest-create', aGuest('web1', { idempotencyKey: key, start: true })),
      ),
    );
    expect(new Set(answers.map(({ operation, id }) => `${operation} ${id}`)).size).toBe(1);
    const operation = answers[0]?.operation;
    if (operation === undefined) throw new Error('no answer');
    expect((await daemon.client.call('operation-wait', { operation })).state).toBe('succeeded');
    expect((await daemon.client.call('query-guests', {})).total).toBe(1);
    expect(house.host.calls.filter((call) => call === 'launch web1')).toHaveLength(1);
  });

  test('after a restart of the daemon is the operation of before', async () => {
    const house = await fakeHouse();
    const first = await house.start();
    const request = aGuest('web1', { idempotencyKey: key });
    const before = await first.client.call('guest-create', request);
    await first.client.call('operation-wait', { operation: before.operation });
    await first.stop();
    const second = await house.start();
    expect(await second.client.call('guest-create', request)).toEqual(before);
  });

  test.each([
    ['guest-delete', { guest: 'web1' }],
    ['guest-rename', { guest: 'web1', newName: 'web2' }],
    ['guest-start', { guest: 'web1' }],
    ['guest-update', { guest: 'web1', description: 'new' }],
  ] as const)('of %s gives the same answer when the guest is no longer what it was', async (name, args) => {
    const { client } = await (await fakeHouse()).start();
    await client.done('guest-create', aGuest('web1'));
    const before = await client.call(name, { ...args, idempotencyKey: key });
    await client.call('operation-wait', { operation: before.operation });
    if (name === 'guest-start') await client.done('guest-delete', { guest: 'web1', force: true });
    expect(await client.call(name, { ...args, idempotencyKey: key })).toEqual(before);
  });

  test('of an import that runs is that import: the file is not taken in twice', async () => {
    const house = await fakeHouse();
    const { client } = await house.start();
    house.images.offer('/images/base.qcow2', 1024);
    const original = house.images.import.bind(house.images);
    const held = deferred<void>();
    const begun = deferred<void>();
    const spy = vi.spyOn(house.images, 'import').mockImplementation(async (...args) => {
      begun.resolve();
      await held.promise;
      return await original(...args);
    });
    const request = { name: 'base', path: '/images/base.qcow2', idempotencyKey: key };
    const first = await client.call('image-import', request);
    await begun.promise;
    expect(await client.call('image-import', request)).toEqual(first);
    held.resolve();
    expect((await client.call('operation-wait', { operation: first.operation })).state).toBe('succeeded');
    expect(spy).toHaveBeenCalledTimes(1);
    expect((await client.call('query-images', {})).images).toMatchObject([{ name: 'base', state: 'ready' }]);
  });

  test('for something else is refused and says for what it was', async () => {
    const { client } = await (await fakeHouse()).start();
    await client.done('guest-create', aGuest('web1', { idempotencyKey: key }));
    await expect(client.call('guest-start', { guest: 'web1', idempotencyKey: key })).rejects.toMatchObject({
      class: 'InvalidArgument',
      data: { kind: 'guest-create' },
    });
    await expect(client.call('guest-create', aGuest('web2', { idempotencyKey: key }))).rejects.toMatchObject({
      class: 'InvalidArgument',
    });
    expect((await client.call('query-guests', {})).total).toBe(1);
  });

  test('of images and networks works the same', async () => {
    const house = await fakeHouse();
    house.images.offer('/i', 512);
    const { client } = await house.start();
    const image = { name: 'debian', path: '/i', idempotencyKey: 'i' };
    const network = { name: 'lan', idempotencyKey: 'n' };
    expect(await client.call('image-import', image)).toEqual(await client.call('image-import', image));
    const made = await client.call('network-create', network);
    expect(await client.call('network-create', network)).toEqual(made);
    await client.call('operation-wait', { operation: made.operation });
    await client.done('network-delete', { network: 'lan', idempotencyKey: 'd' });
    await client.done('network-delete', { network: 'lan', idempotencyKey: 'd' });
  });
});
