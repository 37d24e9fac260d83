/**
 * The daemon dies, or a step fails, at every place of the operations on a guest's devices. Afterwards the record, the
 * machine, the process and the pool tell of the same devices, and the ledger equals the host.
 */
import { describe, expect, test } from 'vitest';
import type { StepObserver } from '../../daemon/operations/steps.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { GuestView } from '../../protocol/guest.ts';
import type { OperationView } from '../../protocol/operation.ts';
import { aGuest, type FakeDaemon, type FakeHouse, fakeHouse, freezeAt } from '../daemon/fake-house.ts';

const stepsOf = {
  'guest-disk-attach': ['record', 'volume', 'plug'],
  'guest-disk-detach': ['unplug', 'record', 'delete'],
  'guest-disk-resize': ['grow'],
  'guest-disk-delete': ['delete'],
  'guest-nic-attach': ['record', 'plug'],
  'guest-nic-detach': ['unplug', 'record'],
  'guest-cdrom-insert': ['record', 'medium'],
  'guest-cdrom-eject': ['record', 'medium'],
} as const satisfies Readonly<Record<string, readonly string[]>>;
type Kind = keyof typeof stepsOf;
const kinds = Object.keys(stepsOf) as Kind[];

const places = kinds.flatMap((kind) =>
  stepsOf[kind].flatMap((step) => (['before', 'after'] as const).map((moment) => ({ kind, step, moment }))),
);

const SIZE = 1024 * 1024;

/** A running guest with a disk and a NIC more than it was made with, and a disk put aside. */
const prepare = async (house: FakeHouse): Promise<void> => {
  const daemon = await house.start();
  const { client } = daemon;
  await client.done('network-create', { name: 'lan' });
  for (const name of ['one', 'two']) {
    const path = `/srv/${name}.iso`;
    house.images.offer(path, SIZE);
    await client.done('image-import', { name, kind: 'iso', path });
  }
  await client.done(
    'guest-create',
    aGuest('web1', { nics: [{ network: 'lan' }], cdroms: [{ image: 'one' }] }),
  );
  await client.done('guest-start', { guest: 'web1' });
  for (const name of ['data', 'aside'])
    await client.done('guest-disk-attach', { guest: 'web1', name, sizeBytes: SIZE });
  await client.done('guest-disk-detach', { guest: 'web1', disk: 'aside' });
  await client.done('guest-nic-attach', { guest: 'web1', name: 'extra', network: 'lan' });
  await daemon.stop();
};

const ask = async ({ client }: FakeDaemon, kind: Kind): Promise<OperationView['id']> => {
  switch (kind) {
    case 'guest-disk-attach':
      return (await client.call(kind, { guest: 'web1', name: 'new', sizeBytes: SIZE })).operation;
    case 'guest-disk-detach':
      return (await client.call(kind, { guest: 'web1', disk: 'data', delete: true })).operation;
    case 'guest-disk-resize':
      return (await client.call(kind, { guest: 'web1', disk: 'data', sizeBytes: 2 * SIZE })).operation;
    case 'guest-disk-delete':
      return (await client.call(kind, { guest: 'web1', disk: 'aside' })).operation;
    case 'guest-nic-attach':
      return (await client.call(kind, { guest: 'web1', name: 'new', network: 'lan' })).operation;
    case 'guest-cdrom-insert':
      return (await client.call(kind, { guest: 'web1', image: 'two' })).operation;
    case 'guest-cdrom-eject':
      return (await client.call(kind, { guest: 'web1' })).operation;
    case 'guest-nic-detach':
      return (await client.call(kind, { guest: 'web1', nic: 'extra' })).operation;
  }
};

interface Devices {
  readonly disks: readonly string[];
  readonly kept: readonly string[];
  readonly nics: readonly string[];
  /** Name of the image in the drive. */
  readonly medium: string | undefined;
}
const before: Devices = { disks: ['data', 'disk0'], kept: ['aside'], nics: ['extra', 'nic0'], medium: 'one' };
const after: Readonly<Record<Kind, Devices>> = {
  'guest-disk-attach': { ...before, disks: ['data', 'disk0', 'new'] },
  'guest-disk-detach': { ...before, disks: ['disk0'] },
  'guest-disk-resize': before,
  'guest-disk-delete': { ...before, kept: [] },
  'guest-nic-attach': { ...before, nics: ['extra', 'new', 'nic0'] },
  'guest-nic-detach': { ...before, nics: ['nic0'] },
  'guest-cdrom-insert': { ...before, medium: 'two' },
  'guest-cdrom-eject': { ...before, medium: undefined },
};

const sorted = (devices: readonly { readonly name: string }[]): readonly string[] =>
  devices.map(({ name }) => name).sort();

/** Name of the image in the guest's drive, which the running process has there too. */
const mediumOf = async (
  house: FakeHouse,
  { client, daemon }: FakeDaemon,
  view: GuestView,
): Promise<string | undefined> => {
  const inserted = view.cdroms[0]?.image;
  const { images } = await client.call('query-images', {});
  const image = images.find(({ id }) => id === inserted);
  expect(daemon.inventory.guests.byId(view.id)?.spec.cdroms[0]?.change).toBeUndefined();
  const path = image && house.images.source(image.id, { format: 'raw', virtualSizeBytes: 0 }).path;
  if (view.state === 'running') expect(house.host.mediumOf('web1', 'cdrom0')).toBe(path);
  // Nothing but what is in the drive is kept from deletion.
  expect(images.map(({ name, usedBy }) => (usedBy.length > 0 ? name : ''))).toEqual(
    images.map(({ name }) => (name === image?.name ? name : '')),
  );
  return image?.name;
};

/** The guest's devices, once everybody who knows of them has been heard to say the same. */
const devicesOf = async (house: FakeHouse, daemon: FakeDaemon): Promise<Devices> => {
  const view = await daemon.client.call('query-guest', { guest: 'web1' });
  const devices = {
    disks: sorted(view.disks),
    kept: sorted(view.keptDisks),
    nics: sorted(view.nics),
    medium: undefined,
  };
  const medium = await mediumOf(house, daemon, view);
  const record = daemon.daemon.inventory.guests.byId(view.id);
  expect(sorted(record?.machine.disks ?? [])).toEqual(devices.disks);
  expect(sorted(record?.machine.nics ?? [])).toEqual(devices.nics);
  const process = house.host.devicesOf('web1');
  if (view.state === 'running') expect(process).toEqual({ disks: devices.disks, nics: devices.nics });
  else expect(process).toBeUndefined();
  expect(house.pool.volumesOf(view.id)).toEqual([...devices.disks, ...devices.kept].sort());
  const addresses = daemon.daemon.inventory.guests.addressesOf(
    record?.spec.nics[0]?.network ?? ('' as never),
  );
  expect([...addresses].sort()).toEqual(view.nics.map(({ ipv4 }) => String(ipv4)).sort());
  expect(daemon.ledger).toEqual(await daemon.host());
  return { ...devices, medium };
};

describe.each(places)('a crash $moment $step of $kind', ({ kind, step, moment }) => {
  const isThere: Parameters<typeof freezeAt>[0] = (place) =>
    place.kind === kind && place.step === step && place.moment === moment;

  const crash = async (house: FakeHouse, ahead?: OperationView['id']): Promise<OperationView['id']> => {
    const { observeStep, reached, thaw } = freezeAt(isThere);
    const doomed = await house.start({ observeStep });
    const operation = ahead ?? (await ask(doomed, kind));
    await reached;
    await doomed.crash(thaw);
    return operation;
  };

  test('is made good by the next daemon, also when it happens twice', async () => {
    const house = await fakeHouse();
    await prepare(house);
    const operation = await crash(house);
    await crash(house, operation);
    const next = await house.start();
    expect(await next.client.call('operation-wait', { operation })).toMatchObject({ state: 'succeeded' });
    expect(await devicesOf(house, next)).toEqual(after[kind]);
  });

  test('is made good although the host was booted as well', async () => {
    const house = await fakeHouse();
    await prepare(house);
    const operation = await crash(house);
    house.host.host.reboot();
    for (const [key, { kind: made }] of house.network.host)
      if (made === 'tap') house.network.host.delete(key);
    const next = await house.start({ bootId: 'second boot' });
    expect(await next.client.call('operation-wait', { operation })).toMatchObject({ state: 'succeeded' });
    expect(await devicesOf(house, next)).toEqual(after[kind]);
  });
});

/** What was done by then is not taken back: the guest has let go, or the bytes are gone. */
const noWayBack: Readonly<Partial<Record<string, Devices>>> = {
  // What failed when it was done goes on.
  'guest-disk-detach record after': after['guest-disk-detach'],
  'guest-disk-detach delete before': { ...before, disks: ['disk0'], kept: ['aside', 'data'] },
  'guest-disk-detach delete after': after['guest-disk-detach'],
  'guest-disk-delete delete after': after['guest-disk-delete'],
  'guest-nic-detach record after': after['guest-nic-detach'],
};

const fail =
  (
    where: { readonly kind: Kind; readonly step: string; readonly moment: 'before' | 'after' },
    stillFails: () => boolean,
  ): StepObserver =>
  (place) => {
    if (!stillFails() || place.kind !== where.kind) return;
    if (place.step === where.step && place.moment === where.moment)
      throw new RoostError('HostError', 'the test says no');
  };

describe.each(places)('a failure $moment $step of $kind', ({ kind, step, moment }) => {
  const left = noWayBack[`${kind} ${step} ${moment}`] ?? before;

  test('is told, leaves all who know of devices in agreement, and can be asked for again', async () => {
    const house = await fakeHouse();
    await prepare(house);
    let failing = true;
    const daemon = await house.start({ observeStep: fail({ kind, step, moment }, () => failing) });
    const ended = await daemon.client.call('operation-wait', { operation: await ask(daemon, kind) });
    expect(await devicesOf(house, daemon)).toEqual(left);
    // Where all was done nothing has failed, and nothing is left to be asked for.
    const isDone = left !== before && JSON.stringify(left) === JSON.stringify(after[kind]);
    expect(ended.state).toBe(isDone ? 'succeeded' : 'failed');
    expect(ended.error?.desc).toBe(isDone ? undefined : 'the test says no');
    failing = false;
    const again = isDone
      ? ended
      : await daemon.client.call('operation-wait', { operation: await ask(daemon, kind) });
    expect(again).toMatchObject({ state: 'succeeded' });
    expect(await devicesOf(house, daemon)).toEqual(after[kind]);
  });
});

const undone = kinds.flatMap((kind) =>
  stepsOf[kind].flatMap((step) =>
    (['before-undo', 'after-undo'] as const).map((moment) => ({ kind, step, moment })),
  ),
);

describe.each(undone)('a crash $moment of $step of $kind', ({ kind, step, moment }) => {
  test('is made good: the undo is finished', async () => {
    const house = await fakeHouse();
    await prepare(house);
    const last = stepsOf[kind].at(-1);
    const failsAt = noWayBack[`${kind} ${last} after`] === undefined ? 'after' : 'before';
    const failing = fail({ kind, step: String(last), moment: failsAt }, () => true);
    const freeze = freezeAt((place) => place.kind === kind && place.step === step && place.moment === moment);
    const doomed = await house.start({
      observeStep: (place) => {
        void failing(place);
        return freeze.observeStep(place);
      },
    });
    const operation = await ask(doomed, kind);
    const frozen = await Promise.race([
      freeze.reached.then(() => true),
      doomed.client.call('operation-wait', { operation }).then(() => false),
    ]);
    // Not every step has an undo.
    if (frozen) await doomed.crash(freeze.thaw);
    else await doomed.stop();
    const next = await house.start();
    expect(await next.client.call('operation-wait', { operation })).not.toMatchObject({ state: 'succeeded' });
    expect(await devicesOf(house, next)).toEqual(noWayBack[`${kind} ${last} ${failsAt}`] ?? before);
  });
});
