/** What the inventory is rebuilt from lies beside what it is about: written with it, changed with it, removed with it. */
import { readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { GuestId, ImageId } from '../../protocol/types.ts';
import { aGuest, type FakeDaemon, type FakeHouse, fakeHouse } from './fake-house.ts';

const networkFile = (house: FakeHouse, id: string): string =>
  join(house.stateDirectory, 'networks', `${id}.json`);

const read = async (path: string): Promise<Record<string, unknown>> =>
  JSON.parse(await readFile(path, 'utf8')) as Record<string, unknown>;

const differences = async ({ client }: FakeDaemon): Promise<unknown> =>
  (await client.call('query-fsck', {})).differences;

test('of a network: for nobody else to read, and gone with it', async () => {
  const house = await fakeHouse();
  const daemon = await house.start();
  const id = await daemon.client.done('network-create', { name: 'lan', subnet: '10.91.7.0/24' });
  const path = networkFile(house, id);
  expect(await read(path)).toMatchObject({
    id,
    number: 1,
    name: 'lan',
    kind: 'nat',
    subnet: '10.91.7.0/24',
    gateway: '10.91.7.1',
    instance: daemon.daemon.instance,
  });
  expect((await stat(path)).mode & 0o777).toBe(0o600);
  expect(daemon.ledger).toContain(`file ${path}`);
  expect(daemon.ledger).toEqual(await daemon.host());
  await daemon.client.done('network-delete', { network: 'lan' });
  expect(await readdir(join(house.stateDirectory, 'networks'))).toEqual([]);
  expect(daemon.ledger).toEqual([]);
});

test('of images: with the aliases of their name, which move from one to the other', async () => {
  const house = await fakeHouse();
  house.images.offer('/i', 512);
  const { client } = await house.start();
  const [one, other] = [
    (await client.done('image-import', { name: 'one', path: '/i', format: 'raw' })) as ImageId,
    (await client.done('image-import', { name: 'other', path: '/i', format: 'raw' })) as ImageId,
  ];
  const aliasesOf = (id: ImageId): unknown =>
    ((house.images.records.get(id)?.['aliases'] ?? []) as { alias: string }[]).map(({ alias }) => alias);
  await client.done('image-alias-set', { alias: 'stable', image: 'one' });
  expect([aliasesOf(one), aliasesOf(other)]).toEqual([['stable'], []]);
  await client.done('image-alias-set', { alias: 'stable', image: 'other' });
  expect([aliasesOf(one), aliasesOf(other)]).toEqual([[], ['stable']]);
  await client.done('image-alias-delete', { alias: 'stable' });
  expect([aliasesOf(one), aliasesOf(other)]).toEqual([[], []]);
  expect(house.images.records.get(one)).toMatchObject({
    name: 'one',
    kind: 'disk',
    stored: { format: 'qcow2' },
  });
});

test('of guests: with the facts of their networks and images', async () => {
  const house = await fakeHouse();
  house.images.offer('/i', 512);
  const { client } = await house.start();
  await client.done('network-create', { name: 'lan' });
  await client.done('image-import', { name: 'one', path: '/i', format: 'raw' });
  await client.done(
    'guest-create',
    aGuest('web1', { disks: [{ image: 'one' }], nics: [{ network: 'lan' }] }),
  );
  const [record] = (await house.pool.readRecords()).records;
  expect(record).toMatchObject({
    name: 'web1',
    networks: [{ name: 'lan', number: 1, kind: 'nat' }],
    images: [{ name: 'one', stored: { virtualSizeBytes: 512 } }],
  });
});

test('of a guest: as it is once a change of it was answered, and once an operation on it has ended', async () => {
  const house = await fakeHouse();
  const { client } = await house.start();
  const id = await client.done('guest-create', aGuest('web1'));
  const kept = async (): Promise<unknown> => (await house.pool.readRecords()).records[0];
  await client.call('guest-update', { guest: 'web1', labels: { tier: 'web' } });
  expect(await kept()).toMatchObject({ id, spec: { labels: { tier: 'web' } } });
  await client.call('guest-rename', { guest: 'web1', newName: 'web2' });
  expect(await kept()).toMatchObject({ name: 'web2' });
  const sizeBytes = 1024 * 1024;
  await client.done('guest-disk-attach', { guest: 'web2', name: 'data', sizeBytes });
  expect(await kept()).toMatchObject({ spec: { disks: [{}, { name: 'data' }] } });
  await client.done('guest-disk-resize', { guest: 'web2', disk: 'data', sizeBytes: 2 * sizeBytes });
  expect(await kept()).toMatchObject({ spec: { disks: [{}, { sizeBytes: 2 * sizeBytes }] } });
  await client.done('guest-disk-detach', { guest: 'web2', disk: 'data' });
  expect(await kept()).toMatchObject({ spec: { disks: [{}], keptDisks: [{ name: 'data' }] } });
});

test('a state directory of before there were records gets them at the start of the daemon', async () => {
  const house = await fakeHouse();
  house.images.offer('/i', 512);
  const first = await house.start();
  const network = await first.client.done('network-create', { name: 'lan' });
  const image = (await first.client.done('image-import', {
    name: 'one',
    path: '/i',
    format: 'raw',
  })) as ImageId;
  const guest = (await first.client.done('guest-create', aGuest('web1'))) as GuestId;
  const { inventory } = first.daemon;
  inventory.ledger.forget(network, { kind: 'file', name: networkFile(house, network) });
  await first.stop();
  await rm(networkFile(house, network));
  house.images.records.delete(image);
  house.pool.setRecord(guest, undefined);
  // Whoever stops has written them: it waits for what it has begun.
  await (await house.start()).stop();
  expect(await read(networkFile(house, network))).toMatchObject({ name: 'lan' });
  expect(house.images.records.get(image)).toMatchObject({ name: 'one' });
  expect((await house.pool.readRecords()).records).toMatchObject([{ id: guest }]);
  const { writes } = { writes: house.pool.calls.length };
  await (await house.start()).stop();
  expect(house.pool.calls).toHaveLength(writes);
});

test('fsck names those that are missing, damaged or of nobody; a repair writes them again', async () => {
  const house = await fakeHouse();
  house.images.offer('/i', 512);
  const daemon = await house.start();
  const network = await daemon.client.done('network-create', { name: 'lan' });
  const image = (await daemon.client.done('image-import', {
    name: 'one',
    path: '/i',
    format: 'raw',
  })) as ImageId;
  const guest = (await daemon.client.done('guest-create', aGuest('web1'))) as GuestId;
  await rm(networkFile(house, network));
  house.images.records.delete(image);
  house.pool.setRecord(guest, undefined);
  expect(await differences(daemon)).toMatchObject([
    { kind: 'lost', object: { kind: 'file' }, owner: { kind: 'network', name: 'lan' } },
    { kind: 'missing-file', owner: { kind: 'guest', name: 'web1' }, mend: { by: 'repair' } },
    { kind: 'missing-file', owner: { kind: 'image', name: 'one' }, mend: { by: 'repair' } },
  ]);
  expect((await daemon.client.finish('fsck-repair', {})).result).toMatchObject({ left: [], problems: [] });
  expect(house.images.records.get(image)).toMatchObject({ name: 'one' });

  const stranger = networkFile(house, '01890a5d-ac96-774b-bcce-b302099a8058');
  await writeFile(stranger, '{}');
  expect(await differences(daemon)).toMatchObject([
    { kind: 'leaked', object: { kind: 'file', name: stranger }, mend: { by: 'person' } },
  ]);
  await rm(stranger);
});
