import fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';
import { deferred } from '../../lib/abort.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { TestClient } from '../harness/test-client.ts';
import { aGuest, fakeHouse, freezeAt } from './fake-house.ts';

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

  test('from two clients at the same moment with different wishes is the wish of one, whole', async () => {
    const house = await fakeHouse();
    const daemon = await house.start();
    const [one, other] = await Promise.all([daemon.connect(), daemon.connect()]);
    const wish = (mebibytes: number, description: string) =>
      aGuest('web1', { idempotencyKey: key, memoryBytes: mebibytes * 1024 * 1024, description });
    const answers = await Promise.all([
      one.call('guest-create', wish(1, 'small')),
      other.call('guest-create', wish(2, 'large')),
    ]);
    expect(answers[0]).toEqual(answers[1]);
    const { guests } = await daemon.client.call('query-guests', {});
    const of = guests.map(({ memoryBytes = 0, description }) => [memoryBytes / 1024 / 1024, description]);
    expect([[[1, 'small']], [[2, 'large']]]).toContainEqual(of);
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

describe('a request that is sent again under its key', () => {
  const lan = { name: 'lan' } as const;
  const spec = aGuest('web1', { nics: [{ network: 'lan' }], idempotencyKey: 'creation' });
  const start = { guest: 'web1', idempotencyKey: 'start' } as const;

  test.each(
    ['volumes', 'ports', 'launch', 'resume'].flatMap((step) =>
      (['before', 'after'] as const).map((moment) => [moment, step] as const),
    ),
  )('to the daemon after one that died %s %s is answered as before, and done once', async (moment, step) => {
    const house = await fakeHouse();
    const first = await house.start();
    await first.client.done('network-create', lan);
    await first.client.done('guest-create', spec);
    await first.stop();
    const freeze = freezeAt(
      (place) => place.kind === 'guest-start' && place.step === step && place.moment === moment,
    );
    const doomed = await house.start({ observeStep: freeze.observeStep });
    const before = await doomed.client.call('guest-start', start);
    await freeze.reached;
    await doomed.crash(freeze.thaw);

    const next = await house.start();
    const clients = await Promise.all([next.connect(), next.connect()]);
    for (const client of clients) expect(await client.call('guest-start', start)).toEqual(before);
    const ended = await next.client.call('operation-wait', { operation: before.operation });
    expect(ended).toMatchObject({ state: 'succeeded' });
    expect(await next.client.call('guest-start', start)).toEqual(before);
    expect(house.host.calls.filter((call) => call === 'launch web1')).toHaveLength(1);
    expect((await next.client.call('query-operations', { subject: 'web1' })).operations).toHaveLength(2);
  });

  test('that was not heard of is done once, whether it was accepted before the crash or not', async () => {
    const house = await fakeHouse();
    const doomed = await house.start();
    const unheard = doomed.client.call('guest-create', aGuest('web1', { idempotencyKey: key }));
    await Promise.all([doomed.crash(), expect(unheard).rejects.toMatchObject({ class: 'Unavailable' })]);
    const next = await house.start();
    const request = aGuest('web1', { idempotencyKey: key });
    const answer = await next.client.call('guest-create', request);
    expect((await next.client.call('operation-wait', { operation: answer.operation })).state).toBe(
      'succeeded',
    );
    expect(await next.client.call('guest-create', request)).toEqual(answer);
    expect((await next.client.call('query-guests', {})).guests).toMatchObject([{ id: answer.id }]);
    expect(next.ledger).toEqual(await next.host());
  });

  test('and failed is told its failure again: a new try needs a new key', async () => {
    const house = await fakeHouse();
    house.host.before = (call) => {
      if (call === 'launch') throw new RoostError('HostError', 'no');
    };
    const { client } = await house.start();
    await client.done('network-create', lan);
    await client.done('guest-create', spec);
    const failed = await client.call('guest-start', start);
    expect((await client.call('operation-wait', { operation: failed.operation })).state).toBe('failed');
    house.host.before = () => undefined;
    expect(await client.call('guest-start', start)).toEqual(failed);
    await client.done('guest-start', { ...start, idempotencyKey: 'another' });
  });

  test('is a new one when the operation is no longer kept', async () => {
    const house = await fakeHouse();
    const daemon = await house.start();
    const { client } = daemon;
    const before = await client.call('network-create', { ...lan, idempotencyKey: key });
    await client.call('operation-wait', { operation: before.operation });
    await client.done('network-delete', { network: 'lan' });
    daemon.daemon.inventory.db.sqlite.exec('DELETE FROM operation');
    const after = await client.call('network-create', { ...lan, idempotencyKey: key });
    expect(after.operation).not.toBe(before.operation);
    expect((await client.call('operation-wait', { operation: after.operation })).state).toBe('succeeded');
  });
});

describe('any number of clients with any requests under a few keys', () => {
  /** What a client asks for; the description is what the requests of one key may differ in. */
  interface Ask {
    readonly client: number;
    readonly key: number;
    readonly guest: number;
    readonly description: string;
  }
  const ask = fc.record({
    client: fc.nat(2),
    key: fc.nat(2),
    guest: fc.nat(1),
    description: fc.constantFrom('one', 'other'),
  });

  test('get for a key one operation or a refusal, also over a crash, and each is done once', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(ask, { minLength: 1, maxLength: 12 }),
        fc.boolean(),
        async (asks, crashes) => {
          const house = await fakeHouse();
          let daemon = await house.start();
          for (const guest of [0, 1]) await daemon.client.done('guest-create', aGuest(`g${guest}`));
          const operations = new Map<number, Set<string>>();
          const rounds = crashes ? [asks.slice(0, asks.length / 2), asks.slice(asks.length / 2)] : [asks];
          const answer = async (one: Ask, clients: readonly TestClient[]): Promise<void> => {
            const { operation } = await must(clients[one.client]).call('guest-update', {
              guest: `g${one.guest}`,
              description: one.description,
              idempotencyKey: `key ${one.key}`,
            });
            operations.set(one.key, (operations.get(one.key) ?? new Set()).add(operation));
          };
          for (const [index, round] of rounds.entries()) {
            if (index > 0) {
              await daemon.crash();
              daemon = await house.start();
            }
            const clients = await Promise.all([0, 1, 2].map(() => daemon.connect()));
            const outcomes = await Promise.allSettled(round.map((one) => answer(one, clients)));
            // A key that was used for the other guest is refused, and nothing else is.
            const refusals = outcomes.flatMap((each) => (each.status === 'rejected' ? [each.reason] : []));
            for (const reason of refusals)
              expect(reason).toMatchObject({ class: 'InvalidArgument', data: { kind: 'guest-update' } });
          }
          for (const ofKey of operations.values()) expect(ofKey.size).toBe(1);
          const done = await daemon.client.call('query-operations', { limit: 1000 });
          const updates = done.operations.filter(({ kind }) => kind === 'guest-update');
          expect(updates).toHaveLength(operations.size);
          await daemon.stop();
        },
      ),
      { numRuns: 15 },
    );
  });
});

const must = <T>(value: T | undefined): T => {
  if (value === undefined) throw new Error('it is not there');
  return value;
};
