/** Ledger and host made to differ in every way that can be made, found, and mended where it is ours to mend. */
import { expect, test } from 'vitest';
import type { StepObserver } from '../../../daemon/operations/steps.ts';
import { RoostError } from '../../../protocol/errors.ts';
import type { Difference } from '../../../protocol/fsck.ts';
import type { HostObject } from '../../../protocol/host-object.ts';
import { hostObjectKey } from '../../../protocol/host-object.ts';
import type { GuestId, ImageId } from '../../../protocol/types.ts';
import { aGuest, type FakeDaemon, type FakeHouse, fakeHouse, freezeAt } from '../fake-house.ts';

const differences = async ({ client }: FakeDaemon): Promise<readonly Difference[]> =>
  (await client.call('query-fsck', {})).differences;

const repair = async (daemon: FakeDaemon): Promise<readonly Difference[]> => {
  const ended = await daemon.client.finish('fsck-repair', {});
  expect(ended).toMatchObject({ state: 'succeeded', result: { problems: [] } });
  return ended.result?.['left'] as unknown as readonly Difference[];
};

const expectAgreement = async (daemon: FakeDaemon): Promise<void> => {
  expect(daemon.ledger).toEqual(await daemon.host());
  expect(await differences(daemon)).toEqual([]);
};

const withGuest = async (start = true): Promise<{ house: FakeHouse; daemon: FakeDaemon; id: GuestId }> => {
  const house = await fakeHouse();
  const daemon = await house.start();
  await daemon.client.done('network-create', { name: 'lan' });
  const id = await daemon.client.done('guest-create', aGuest('web1', { nics: [{ network: 'lan' }] }));
  if (start) await daemon.client.done('guest-start', { guest: 'web1' });
  return { house, daemon, id: id as GuestId };
};

const put = (house: FakeHouse, object: HostObject): void => {
  house.network.host.set(hostObjectKey(object), object);
};

test('a sound host has no differences, running or stopped', async () => {
  const { daemon } = await withGuest();
  await expectAgreement(daemon);
  await daemon.client.done('guest-stop', { guest: 'web1', force: true });
  await expectAgreement(daemon);
  expect(await repair(daemon)).toEqual([]);
});

test('what a run left is named with its guest, and cleared away', async () => {
  const { daemon, id } = await withGuest(false);
  const { inventory } = daemon.daemon;
  const tap = { kind: 'tap', name: `rt${daemon.daemon.instance}10` } as const;
  inventory.ledger.record({ kind: 'guest', id }, 'run', [tap], 0);
  expect(await differences(daemon)).toMatchObject([
    { kind: 'lost', object: tap, owner: { kind: 'guest', name: 'web1' }, mend: { by: 'repair' } },
  ]);
  expect(await repair(daemon)).toEqual([]);
  await expectAgreement(daemon);
});

test('rows that are missing of what is there are written again, and nothing of the running guest is touched', async () => {
  const { house, daemon, id } = await withGuest();
  daemon.daemon.inventory.ledger.release({ kind: 'guest', id });
  expect(new Set((await differences(daemon)).map(({ kind }) => kind))).toEqual(new Set(['leaked']));
  expect(await repair(daemon)).toEqual([]);
  await expectAgreement(daemon);
  expect(house.host.isAlive('web1')).toBe(true);
});

test('a network without its bridge is made whole; a link of nobody goes; one of another instance stays', async () => {
  const { house, daemon } = await withGuest(false);
  const { instance } = daemon.daemon;
  const bridge = [...house.network.host.values()].find(({ kind }) => kind === 'bridge');
  if (!bridge) throw new Error('no bridge');
  house.network.host.delete(hostObjectKey(bridge));
  const stray = { kind: 'tap', name: `rt${instance}zz0` } as const;
  const foreign = { kind: 'bridge', name: 'rbother1' } as const;
  put(house, stray);
  put(house, foreign);
  const report = await daemon.client.call('query-fsck', {});
  expect(report.differences).toMatchObject([
    { kind: 'lost', object: bridge, owner: { kind: 'network', name: 'lan' } },
    { kind: 'leaked', object: stray },
  ]);
  expect(report.foreign).toEqual([{ what: 'bridge rbother1', whose: 'another instance on this host' }]);
  expect(await repair(daemon)).toEqual([]);
  expect([...house.network.host.keys()]).toEqual([hostObjectKey(foreign), hostObjectKey(bridge)]);
});

test('a guest that is lost from the inventory is named with its process and its disks, and left alone', async () => {
  const { house, daemon, id } = await withGuest();
  daemon.daemon.inventory.guests.delete(id);
  daemon.daemon.inventory.ledger.release({ kind: 'guest', id });
  await daemon.stop();
  const next = await house.start();
  const found = await differences(next);
  expect(found.filter(({ kind }) => kind === 'stray-process')).toMatchObject([
    { owner: { kind: 'guest', id, name: 'web1' }, mend: { by: 'person' } },
  ]);
  expect(found.filter(({ kind }) => kind === 'stray-record')).toMatchObject([
    { owner: { name: 'web1' }, mend: { by: 'person' } },
  ]);
  const before = await next.host();
  await next.client.finish('fsck-repair', {});
  expect(await next.host()).toEqual(before);
  expect(house.host.isAlive('web1')).toBe(true);
});

test('what an undo could not remove is named with the operation that left it, and removed', async () => {
  const house = await fakeHouse();
  let stuck = true;
  house.beforePool = (effect) => {
    if (stuck && (effect === 'createVolume' || effect === 'removeGuest'))
      throw new RoostError('HostError', 'the disk is stuck');
  };
  const daemon = await house.start();
  const ended = await daemon.client.finish('guest-create', aGuest('web1'));
  expect(ended.state).toBe('failed');
  const found = await differences(daemon);
  expect(found).not.toEqual([]);
  for (const each of found)
    expect(each).toMatchObject({ kind: 'abandoned', operation: ended.id, owner: { name: 'web1' } });
  stuck = false;
  expect(await repair(daemon)).toEqual([]);
  await expectAgreement(daemon);
  expect(daemon.ledger).toEqual([]);
});

test('missing files of disks and images are named; only a person can bring them back', async () => {
  const { house, daemon } = await withGuest(false);
  house.images.offer('/i', 512);
  const image = (await daemon.client.done('image-import', { name: 'base', path: '/i' })) as ImageId;
  house.images.lose(image);
  house.pool.missing.add(
    `${house.pool.path}/guests/${(await daemon.client.call('query-guest', { guest: 'web1' })).id}/disk0.qcow2`,
  );
  const found = await differences(daemon);
  expect(
    found
      .filter(({ kind }) => kind === 'missing-file')
      .map(({ owner }) => owner?.name ?? '')
      .sort((a, b) => a.localeCompare(b)),
  ).toEqual(['base', 'base', 'web1']);
  for (const each of found) expect(each.mend.by).toBe('person');
});

test('what work is under way on is named, and is no difference', async () => {
  const house = await fakeHouse();
  const freeze = freezeAt(
    ({ kind, step, moment }) => kind === 'guest-create' && step === 'volumes' && moment === 'before',
  );
  const daemon = await house.start({ observeStep: freeze.observeStep });
  const { operation } = await daemon.client.call('guest-create', aGuest('web1'));
  await freeze.reached;
  expect(await daemon.client.call('query-fsck', {})).toMatchObject({
    differences: [],
    underWay: [{ kind: 'guest', name: 'web1' }],
  });
  freeze.thaw();
  await daemon.client.call('operation-wait', { operation });
});

const steps = ['compare', 'mend', 'remove-leftovers', 'verify'];
const broken = async (): Promise<FakeHouse> => {
  const { house, daemon, id } = await withGuest(false);
  const { instance, inventory } = daemon.daemon;
  const tap = { kind: 'tap', name: `rt${instance}10` } as const;
  inventory.ledger.record({ kind: 'guest', id }, 'run', [tap], 0);
  inventory.ledger.record({ kind: 'image', id: 'gone' }, 'existence', [{ kind: 'file', name: '/gone' }], 0);
  put(house, { kind: 'tap', name: `rt${instance}zz0` });
  await daemon.stop();
  return house;
};

test.each(steps.flatMap((step) => (['before', 'after'] as const).map((moment) => ({ step, moment }))))(
  'a crash $moment $step of fsck-repair is made good by the next daemon',
  async ({ step, moment }) => {
    const house = await broken();
    const freeze = freezeAt(
      (place) => place.kind === 'fsck-repair' && place.step === step && place.moment === moment,
    );
    const doomed = await house.start({ observeStep: freeze.observeStep });
    const { operation } = await doomed.client.call('fsck-repair', {});
    await freeze.reached;
    await doomed.crash(freeze.thaw);
    const next = await house.start();
    expect(await next.client.call('operation-wait', { operation })).toMatchObject({
      state: 'succeeded',
      result: { left: [] },
    });
    await expectAgreement(next);
  },
);

test.each(steps)('a failure after %s of fsck-repair is told, and it can be asked for again', async (step) => {
  const house = await broken();
  let failing = true;
  const observeStep: StepObserver = (place) => {
    if (failing && place.kind === 'fsck-repair' && place.step === step && place.moment === 'after')
      throw new RoostError('HostError', 'the test says no');
  };
  const daemon = await house.start({ observeStep });
  expect(await daemon.client.finish('fsck-repair', {})).toMatchObject({ state: 'failed' });
  failing = false;
  expect(await repair(daemon)).toEqual([]);
  await expectAgreement(daemon);
});

test('a process whose lock was taken away is named and gets it again; one that this daemon took for gone is not', async () => {
  const { house, daemon, id } = await withGuest();
  house.host.host.unlock(id);
  expect(await differences(daemon)).toMatchObject([
    { kind: 'unlocked-process', owner: { name: 'web1' }, mend: { by: 'repair' } },
  ]);
  expect(await repair(daemon)).toEqual([]);
  expect(house.host.host.isLocked(id)).toBe(true);
  await expectAgreement(daemon);

  house.host.host.unlock(id);
  await daemon.stop();
  const next = await house.start();
  const pid = house.host.host.process(id)?.identity.pid;
  const found = await differences(next);
  expect(found.filter(({ kind }) => kind === 'unlocked-process')).toMatchObject([
    {
      owner: { name: 'web1' },
      mend: { by: 'person', how: expect.stringContaining(`end process ${pid}`) as string },
    },
  ]);
  expect(house.host.isAlive('web1')).toBe(true);
});
