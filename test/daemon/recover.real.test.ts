/** The inventory is lost or damaged; it is rebuilt from the records beside disks, images and networks. */
import {
  copyFile,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { basename, join } from 'node:path';
import { expect, test } from 'vitest';
import { configFile } from '../../daemon/config.ts';
import { recoverInventory } from '../../daemon/recovery/recover.ts';
import { reportText } from '../../daemon/recovery/report-text.ts';
import { silentLog } from '../../lib/log.ts';
import { type RecoveryReport, recoveryReport } from '../../protocol/recovery.ts';
import type { GuestId, ImageId } from '../../protocol/types.ts';
import { viewOf } from '../harness/operation-table.ts';
import { aContainer, aGuest, type FakeDaemon, type FakeHouse, fakeHouse, importRoot } from './fake-house.ts';

const database = (house: FakeHouse): string => join(house.stateDirectory, 'roost.db');

const recover = async (house: FakeHouse, dryRun = false): Promise<RecoveryReport> => {
  const { stateDirectory, runDirectory } = house;
  const report = await recoverInventory({
    config: { ...configFile.parse({}), stateDirectory, runDirectory },
    log: silentLog(),
    parts: () => house.parts(),
    clock: house.clock,
    dryRun,
  });
  expect(recoveryReport.parse(report)).toEqual(report);
  expect(reportText(report)).toContain(`${report.guests.length} guest`);
  return report;
};

interface Filled {
  readonly house: FakeHouse;
  readonly view: unknown;
  readonly pid: number;
  readonly ids: Readonly<Record<'web1' | 'web2', GuestId>>;
  readonly image: ImageId;
}

/** A guest that runs and one that does not, on two networks, on an image with an alias. The daemon is gone. */
const filled = async (end: 'stop' | 'crash' = 'crash'): Promise<Filled> => {
  const house = await fakeHouse();
  house.images.offer('/base.raw', 1024 * 1024);
  const daemon = await house.start();
  const { client } = daemon;
  await client.done('network-create', { name: 'lan' });
  await client.done('network-create', { name: 'out', kind: 'user' });
  const image = (await client.done('image-import', {
    name: 'debian',
    version: '12',
    path: '/base.raw',
    format: 'raw',
  })) as ImageId;
  await client.done('image-import', { name: 'debian', version: '13', path: '/base.raw', format: 'raw' });
  await client.done('image-alias-set', { alias: 'stable', image: 'debian@12' });
  await client.done('image-alias-set', { alias: 'newest', image: 'debian' });
  const disks = [{ image: 'debian@12' }, { sizeBytes: 1024 * 1024 }];
  const web1 = (await client.done(
    'guest-create',
    aGuest('web1', { disks, nics: [{ network: 'lan', ipv4: undefined }], labels: { tier: 'web' } }),
  )) as GuestId;
  const web2 = (await client.done(
    'guest-create',
    aGuest('web2', {
      nics: [{ network: 'lan' }, { network: 'out', forwards: [{ hostPort: 8080, guestPort: 80 }] }],
      autostart: { enabled: true },
    }),
  )) as GuestId;
  await client.done('guest-start', { guest: 'web1' });
  const { process } = await client.call('query-guest', { guest: 'web1' });
  const view = await viewOf(client);
  if (end === 'stop') await daemon.stop();
  else await daemon.crash();
  return { house, view, pid: process?.pid ?? 0, ids: { web1, web2 }, image };
};

const expectSound = async (daemon: FakeDaemon): Promise<void> => {
  expect((await daemon.client.call('query-fsck', {})).differences).toEqual([]);
  expect(daemon.ledger).toEqual(await daemon.host());
};

const harms: Readonly<Record<string, (path: string) => Promise<void>>> = {
  removed: async (path) => {
    for (const file of [path, `${path}-wal`, `${path}-shm`]) await rm(file, { force: true });
  },
  emptied: async (path) => {
    for (const file of [`${path}-wal`, `${path}-shm`]) await rm(file, { force: true });
    await truncate(path, 0);
  },
  'cut short': async (path) => truncate(path, Math.floor((await stat(path)).size / 2)),
  'zeroed in part': async (path) => {
    await using file = await open(path, 'r+');
    await file.write(Buffer.alloc(4096 * 8), 0, 4096 * 8, 4096);
  },
};

test.each(Object.keys(harms))(
  'a database that was %s: everything is back, and what runs runs on',
  async (how) => {
    const { house, view, pid } = await filled('stop');
    await harms[how]?.(database(house));
    const calls = [...house.host.calls];
    await expect(house.start()).rejects.toMatchObject({
      class: 'DataLoss',
      hint: expect.stringContaining('roost recover') as string,
    });
    const report = await recover(house);
    expect(report).toMatchObject({ changed: [], leftOut: [] });
    expect(report.guests).toMatchObject([{ name: 'web1', pid }, { name: 'web2' }]);
    expect(report.guests[1]).not.toHaveProperty('pid');
    expect(house.host.calls).toEqual(calls);

    const daemon = await house.start();
    expect(await viewOf(daemon.client)).toEqual(view);
    expect(await daemon.client.call('query-guest', { guest: 'web1' })).toMatchObject({
      state: 'running',
      process: { pid },
    });
    expect(house.host.host.livePids()).toEqual([pid]);
    await expectSound(daemon);
    const { operations } = await daemon.client.call('query-operations', { limit: 10 });
    expect(operations.map(({ kind }) => kind)).toContain('inventory-recover');

    await daemon.client.done('guest-delete', { guest: 'web1', force: true });
    await daemon.client.done('guest-delete', { guest: 'web2' });
    await daemon.client.done('network-delete', { network: 'lan' });
    await daemon.client.done('network-delete', { network: 'out' });
    await daemon.client.done('image-delete', { image: 'debian', allVersions: true });
    await expectSound(daemon);
    expect(daemon.ledger).toEqual([]);
  },
);

test('the damaged file is kept as it was, under a dated name, each time', async () => {
  const { house } = await filled('stop');
  const path = database(house);
  await harms['zeroed in part']?.(path);
  const before = await readFile(path);
  const { database: told } = await recover(house);
  expect(told).toMatchObject({ was: 'damaged' });
  expect(told.movedTo[0]).toMatch(/roost\.db\.damaged\.\d{8}T\d{6}Z$/);
  expect(await readFile(told.movedTo[0] ?? '')).toEqual(before);
  await harms['emptied']?.(path);
  const again = await recover(house);
  expect(again.database.movedTo).not.toEqual(told.movedTo);
  expect(await readFile(told.movedTo[0] ?? '')).toEqual(before);
});

test('a recovery that was cut short is begun anew, wherever it was', async () => {
  const { house, view } = await filled('stop');
  const path = database(house);
  await harms['cut short']?.(path);
  await copyFile(path, `${path}.recovering`);
  await writeFile(`${path}.recovering-wal`, 'half of something');
  await recover(house);
  // The old one is moved aside, the new one not yet in its place.
  await rename(path, `${path}.recovering`);
  await recover(house);
  expect(await readdir(house.stateDirectory)).not.toContain('roost.db.recovering');
  const daemon = await house.start();
  expect(await viewOf(daemon.client)).toEqual(view);
});

test('a dry run changes nothing', async () => {
  const { house } = await filled('stop');
  await harms['emptied']?.(database(house));
  const before = await readdir(house.stateDirectory);
  expect(await recover(house, true)).toMatchObject({ dryRun: true, database: { movedTo: [] } });
  expect(await readdir(house.stateDirectory)).toEqual(before);
  expect((await stat(database(house))).size).toBe(0);
});

test('is refused while a daemon holds the directories, for a sound inventory, and where there is none', async () => {
  const house = await fakeHouse();
  await expect(recover(house)).rejects.toMatchObject({ class: 'NotFound' });
  const daemon = await house.start();
  await daemon.client.done('guest-create', aGuest('web1'));
  await expect(recover(house)).rejects.toMatchObject({
    class: 'FailedPrecondition',
    message: expect.stringContaining(`held by roostd with pid ${process.pid}`) as string,
  });
  await daemon.stop();
  await expect(recover(house)).rejects.toMatchObject({
    class: 'FailedPrecondition',
    message: expect.stringContaining('is sound') as string,
  });
});

test('earlier operations come from the newest sound backup; tokens do not come back', async () => {
  const { house, ids } = await filled('stop');
  const first = await house.start();
  await first.client.call('token-create', { role: 'read', name: 'grafana' });
  await first.client.done('guest-update', { guest: 'web2', description: 'x', idempotencyKey: 'k' });
  await first.stop();
  const path = database(house);
  await copyFile(path, `${path}.layout-5.20260102T030405Z`);
  await copyFile(path, `${path}.layout-5.20260103T030405Z`);
  await truncate(`${path}.layout-5.20260103T030405Z`, 8192);
  await harms['cut short']?.(path);
  const report = await recover(house);
  expect(report.history).toBe(`${path}.layout-5.20260102T030405Z`);
  expect(report.unknown.join('\n')).toContain('grafana');
  const { client } = await house.start();
  expect((await client.call('query-tokens', {})).tokens).toEqual([]);
  const { entries } = await client.call('query-guest-history', { guest: ids.web2, limit: 100 });
  expect(JSON.stringify(entries)).toContain('guest-create');
  await expect(
    client.call('guest-update', { guest: 'web1', description: 'x', idempotencyKey: 'k' }),
  ).rejects.toMatchObject({ class: 'InvalidArgument' });
});

test('whoever follows the events is told of the gap', async () => {
  const { house } = await filled('stop');
  await harms['emptied']?.(database(house));
  const before = house.lastSequence;
  await recover(house);
  house.lastSequence = 0;
  const daemon = await house.start();
  const { newest } = daemon.daemon.inventory.events.bounds();
  expect(newest).toBeGreaterThan(before);
});

test('what a run has left of a guest that is gone by now is cleared away by the next daemon, and it stays down', async () => {
  const { house, ids } = await filled();
  house.host.kill('web1');
  await harms['removed']?.(database(house));
  expect((await recover(house)).guests[0]).not.toHaveProperty('pid');
  const daemon = await house.start();
  expect(await daemon.client.call('query-guest', { guest: ids.web1 })).toMatchObject({
    state: 'stopped',
    target: 'stopped',
  });
  await expectSound(daemon);
});

test('records that were lost besides are made good by those of guests; a guest without one is left out', async () => {
  const { house, view, ids, image } = await filled('stop');
  await harms['removed']?.(database(house));
  for (const name of await readdir(join(house.stateDirectory, 'networks')))
    if (name.endsWith('.json')) await rm(join(house.stateDirectory, 'networks', name));
  house.images.records.delete(image);
  const report = await recover(house);
  expect(report.leftOut).toEqual([]);
  expect(report.changed).toEqual([
    expect.stringContaining('network lan has no record of its own') as string,
    expect.stringContaining('network out has no record of its own') as string,
    expect.stringContaining('image debian@12 has no record of its own') as string,
  ]);
  const daemon = await house.start();
  expect(await viewOf(daemon.client)).toEqual(view);
  // It waits for its networks to be mended, and with that for their records.
  await daemon.client.done('guest-start', { guest: 'web2' });
  await expectSound(daemon);
  await daemon.client.done('guest-stop', { guest: 'web2', force: true });
  await daemon.stop();

  await harms['removed']?.(database(house));
  house.pool.setRecord(ids.web2, undefined);
  const second = await recover(house);
  expect(second.guests.map(({ name }) => name)).toEqual(['web1']);
  expect(second.leftOut).toMatchObject([
    { path: expect.stringContaining(ids.web2) as string, why: 'there is no record beside them' },
  ]);
});

test('a network record that is a link, damaged, of somebody else or too open is not believed', async () => {
  const { house } = await filled('stop');
  await harms['removed']?.(database(house));
  const directory = join(house.stateDirectory, 'networks');
  const files = (await readdir(directory)).filter((name) => name.endsWith('.json'));
  const [one = '', other = ''] = files.map((name) => join(directory, name));
  const text = await readFile(one, 'utf8');
  await rm(one);
  await writeFile(join(house.stateDirectory, 'elsewhere.json'), text);
  await symlink(join(house.stateDirectory, 'elsewhere.json'), one);
  await writeFile(other, text, { mode: 0o600 });
  const foreign = '01890a5d-ac96-774b-bcce-b302099a8058.json';
  await writeFile(join(directory, foreign), '{"id": ', { mode: 0o600 });
  const report = await recover(house, true);
  const told = Object.fromEntries(report.leftOut.map(({ path = '', why }) => [basename(path), why]));
  expect(told).toMatchObject({
    [basename(one)]: 'it is a symbolic link',
    [basename(other)]: expect.stringContaining('it is that of') as string,
  });
  expect(Object.keys(told)).toContain(foreign);
  // Their guests know both networks.
  expect(report.guests).toHaveLength(2);
});

test('of two records that claim one thing the running guest keeps it; the other is left out, or called otherwise', async () => {
  const { house, ids } = await filled('stop');
  await harms['removed']?.(database(house));
  const { records } = await house.pool.readRecords();
  const record = records.find(({ id }) => id === ids.web1) as Record<string, unknown>;
  const named = records.find(({ id }) => id === ids.web2) as Record<string, unknown>;
  const twin = '01890a5d-ac96-774b-bcce-b302099a8058' as GuestId;
  await house.pool.prepareGuest(twin, undefined);
  house.pool.setRecord(twin, { ...record, id: twin, name: 'twin', writtenAt: 9e12 });
  house.pool.setRecord(ids.web2, { ...named, name: 'web1', writtenAt: 9e12 });
  const report = await recover(house);
  expect(report.guests.map(({ id, name }) => ({ id, name }))).toEqual([
    { id: ids.web1, name: 'web1' },
    { id: ids.web2, name: 'web1-recovered' },
  ]);
  expect(report.changed).toEqual([expect.stringContaining('another is called web1') as string]);
  expect(report.leftOut).toMatchObject([
    { what: `guest twin (${twin})`, why: 'its number 1 is that of guest web1' },
  ]);
  const daemon = await house.start();
  const { differences } = await daemon.client.call('query-fsck', {});
  expect(differences).toMatchObject([{ kind: 'stray-record', owner: { id: twin } }]);
});

test('a record that has not the form of one, or contradicts itself, is told of and left out', async () => {
  const { house, ids } = await filled('stop');
  await harms['removed']?.(database(house));
  const { records } = await house.pool.readRecords();
  const found = (id: GuestId): Record<string, unknown> =>
    structuredClone(records.find((each) => each['id'] === id)) as Record<string, unknown>;
  house.pool.setRecord(ids.web1, { ...found(ids.web1), spec: { disks: '/etc/shadow' } });
  const two = found(ids.web2) as { machine: { disks: { name: string }[] } };
  house.pool.setRecord(ids.web2, { ...two, machine: { ...two.machine, disks: [] } });
  const report = await recover(house, true);
  expect(report.guests).toEqual([]);
  expect(report.leftOut).toMatchObject([
    { what: `guest ${ids.web1}`, why: expect.stringContaining('has not the form') as string },
    { what: `guest web2 (${ids.web2})`, why: 'its record contradicts itself about disks' },
  ]);
  const shadow = { codePath: '/etc/shadow', variablesTemplatePath: '/etc/shadow' };
  house.pool.setRecord(ids.web2, { ...found(ids.web2), machine: { ...two.machine, firmware: shadow } });
  expect((await recover(house, true)).leftOut).toContainEqual({
    what: `guest web2 (${ids.web2})`,
    why: 'its record names /etc/shadow as firmware, which not everybody may read',
  });
});

test('a container is back with its root, its ids and its limits, and so is its image', async () => {
  const house = await fakeHouse();
  const first = await house.start();
  await importRoot(house, first);
  await first.client.done('network-create', { name: 'lan' });
  const boot = { kind: 'root' as const, image: 'busybox', init: ['/bin/sh'], dropCapabilities: ['net_raw'] };
  const limits = { processes: 64, readBytesPerSecond: 4096 };
  const asked = aContainer('c1', { boot, limits, nics: [{ network: 'lan' }], start: true });
  const id = (await first.client.done('guest-create', asked)) as GuestId;
  const { idRange } = await first.client.call('query-guest', { guest: id });
  const view = await viewOf(first.client);
  await first.stop();
  await harms['removed']?.(database(house));
  expect(await recover(house)).toMatchObject({ changed: [], leftOut: [], guests: [{ name: 'c1' }] });
  const daemon = await house.start();
  expect(await viewOf(daemon.client)).toEqual(view);
  expect(await daemon.client.call('query-guest', { guest: id })).toMatchObject({
    state: 'running',
    boot: { ...boot, image: expect.any(String) as string },
    limits,
    idRange,
  });
  expect(house.pool.hasRoot(id)).toBe(true);
  await expectSound(daemon);
  // Another container does not get the ids that are found again.
  await daemon.client.done('guest-create', aContainer('c2'));
  const { guests } = await daemon.client.call('query-guests', { fields: ['idRange'] });
  expect(new Set(guests.map(({ idRange }) => idRange?.first)).size).toBe(2);
});
