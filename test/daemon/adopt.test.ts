/** A running guest that is lost from the inventory is taken over again, by its process and the record beside its disks. */
import { expect, test } from 'vitest';
import type { IdRange } from '../../protocol/container.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { GuestId } from '../../protocol/types.ts';
import {
  aContainer,
  aGuest,
  type FakeDaemon,
  type FakeHouse,
  fakeHouse,
  freezeAt,
  importRoot,
} from './fake-house.ts';

interface Lost {
  readonly house: FakeHouse;
  readonly id: GuestId;
  readonly pid: number;
}

/** A guest runs, and a restarted daemon knows nothing of it. */
const lose = async (asked = aGuest('web1'), state: 'running' | 'stopped' = 'running'): Promise<Lost> => {
  const house = await fakeHouse();
  const daemon = await house.start();
  await importRoot(house, daemon);
  await daemon.client.done('network-create', { name: 'lan' });
  const id = (await daemon.client.done('guest-create', {
    ...asked,
    nics: [{ network: 'lan' }],
    labels: { tier: 'web' },
  })) as GuestId;
  await daemon.client.done('guest-start', { guest: 'web1' });
  const { process } = await daemon.client.call('query-guest', { guest: 'web1' });
  if (state === 'stopped') await daemon.client.done('guest-stop', { guest: 'web1' });
  daemon.daemon.inventory.guests.delete(id);
  daemon.daemon.inventory.ledger.release({ kind: 'guest', id });
  await daemon.stop();
  return { house, id, pid: process?.pid ?? 0 };
};

/** What the container was launched with. */
const idsOf = (house: FakeHouse): IdRange => {
  const boot = house.host.launchOf('web1')?.boot;
  if (boot?.kind === 'root') return boot.idRange;
  throw new Error('no container was launched');
};

const expectAgreement = async (daemon: FakeDaemon): Promise<void> => {
  expect((await daemon.client.call('query-fsck', {})).differences).toEqual([]);
  expect(daemon.ledger).toEqual(await daemon.host());
};

test.each(['pid', 'socket'] as const)(
  'by its %s it is the guest that it was, and can be stopped and deleted',
  async (by) => {
    const { house, id, pid } = await lose();
    const daemon = await house.start();
    const { differences } = await daemon.client.call('query-fsck', {});
    expect(differences.map(({ kind }) => kind)).toContain('stray-process');
    const named =
      by === 'pid'
        ? { pid }
        : { socket: `${daemon.daemon.socketPath.replace('roost.sock', '')}guests/${id}/monitor.sock` };
    await daemon.client.done('guest-adopt', named);
    expect(await daemon.client.call('query-guest', { guest: 'web1' })).toMatchObject({
      id,
      state: 'running',
      target: 'running',
      labels: { tier: 'web' },
      process: { pid },
      nics: [{ network: 'lan' }],
    });
    await expectAgreement(daemon);
    await daemon.client.done('guest-stop', { guest: 'web1', force: true });
    await daemon.client.done('guest-start', { guest: 'web1' });
    await daemon.client.done('guest-delete', { guest: 'web1', force: true });
    await expectAgreement(daemon);
  },
);

test('a stopped one is the guest that it was by its id, and can be started', async () => {
  const { house, id } = await lose(aGuest('web1'), 'stopped');
  const daemon = await house.start();
  const { differences } = await daemon.client.call('query-fsck', {});
  expect(differences.find(({ kind }) => kind === 'stray-record')?.mend.how).toContain(`roost adopt ${id}`);
  await daemon.client.done('guest-adopt', { guest: id });
  expect(await daemon.client.call('query-guest', { guest: 'web1' })).toMatchObject({
    id,
    state: 'stopped',
    target: 'stopped',
    labels: { tier: 'web' },
    nics: [{ network: 'lan', ipv4: expect.any(String) }],
  });
  await expectAgreement(daemon);
  await daemon.client.done('guest-start', { guest: 'web1' });
  await expectAgreement(daemon);
  await expect(daemon.client.call('guest-adopt', { guest: id })).rejects.toMatchObject({
    class: 'FailedPrecondition',
  });
});

test('a stopped one is refused while another has what it had, and comes back once that is given up', async () => {
  const { house, id } = await lose(aGuest('web1'), 'stopped');
  const daemon = await house.start();
  const { client } = daemon;
  // Whoever comes first to the network gets the address that nobody is known to have.
  await client.done('guest-create', aGuest('other', { nics: [{ network: 'lan' }] }));
  const refused = client.call('guest-adopt', { guest: id });
  await expect(refused).rejects.toMatchObject({ class: 'AlreadyExists' });
  await expect(client.call('query-guest', { guest: id })).rejects.toMatchObject({ class: 'NotFound' });
  await client.done('guest-delete', { guest: 'other' });
  await client.done('guest-adopt', { guest: id });
  await expectAgreement(daemon);
});

test('one that runs is not taken for a stopped one, nor what has no record', async () => {
  const { house, id, pid } = await lose();
  const daemon = await house.start();
  await expect(daemon.client.call('guest-adopt', { guest: id })).rejects.toMatchObject({
    class: 'FailedPrecondition',
    data: { pid },
  });
  const nobody = '00000000-0000-4000-8000-000000000001' as GuestId;
  await expect(daemon.client.call('guest-adopt', { guest: nobody })).rejects.toMatchObject({
    class: 'NotFound',
  });
  expect(house.host.isAlive('web1')).toBe(true);
});

test('a container has its root, its ids and its limits as before', async () => {
  const { house, id, pid } = await lose(aContainer('web1', { limits: { processes: 64 } }));
  const daemon = await house.start();
  await daemon.client.done('guest-adopt', { pid });
  expect(await daemon.client.call('query-guest', { guest: id })).toMatchObject({
    driver: 'lxc',
    state: 'running',
    boot: { kind: 'root' },
    idRange: idsOf(house),
    limits: { processes: 64 },
    process: { pid },
  });
  await expectAgreement(daemon);
  await daemon.client.done('guest-delete', { guest: 'web1', force: true });
  expect(house.pool.hasRoot(id)).toBe(false);
  await expectAgreement(daemon);
});

test('what is no guest, not ours, or in the inventory is refused with the reason, and nothing is changed', async () => {
  const { house, pid } = await lose();
  const daemon = await house.start();
  const { client } = daemon;
  await expect(client.call('guest-adopt', { pid: 1 })).rejects.toMatchObject({ class: 'NotFound' });
  await expect(client.call('guest-adopt', { socket: '/nowhere/monitor.sock' })).rejects.toMatchObject({
    class: 'NotFound',
  });
  await expect(client.call('guest-adopt', {})).rejects.toMatchObject({ class: 'InvalidArgument' });
  await client.done('guest-create', aGuest('web1'));
  await expect(client.call('guest-adopt', { pid })).rejects.toMatchObject({
    class: 'AlreadyExists',
    message: expect.stringContaining('there is a guest of that name'),
  });
  await client.done('guest-delete', { guest: 'web1' });
  await client.done('guest-adopt', { pid });
  await expect(client.call('guest-adopt', { pid })).rejects.toMatchObject({
    class: 'FailedPrecondition',
    message: expect.stringContaining('is that of guest web1'),
  });
});

test('without a record beside its disks it is refused, and lives on', async () => {
  const { house, pid, id } = await lose();
  await house.pool.removeGuest(id);
  const daemon = await house.start();
  await expect(daemon.client.call('guest-adopt', { pid })).rejects.toMatchObject({
    class: 'NotFound',
    message: expect.stringContaining('no record'),
  });
  expect(house.host.isAlive('web1')).toBe(true);
});

const places = ['attach', 'record'].flatMap((step) =>
  (['before', 'after'] as const).map((moment) => ({ step, moment })),
);

test.each(places)(
  'a crash $moment $step of guest-adopt is made good by the next daemon',
  async ({ step, moment }) => {
    const { house, pid } = await lose();
    const freeze = freezeAt(
      (place) => place.kind === 'guest-adopt' && place.step === step && place.moment === moment,
    );
    const doomed = await house.start({ observeStep: freeze.observeStep });
    const { operation } = await doomed.client.call('guest-adopt', { pid });
    await freeze.reached;
    await doomed.crash(freeze.thaw);
    const next = await house.start();
    expect(await next.client.call('operation-wait', { operation })).toMatchObject({ state: 'succeeded' });
    expect(await next.client.call('query-guest', { guest: 'web1' })).toMatchObject({
      state: 'running',
      process: { pid },
    });
    await expectAgreement(next);
  },
);

test.each(places)(
  'a failure $moment $step of guest-adopt leaves all as it was; it can be asked for again',
  async ({ step, moment }) => {
    const { house, pid } = await lose();
    let failing = true;
    const daemon = await house.start({
      observeStep: (place) => {
        if (failing && place.kind === 'guest-adopt' && place.step === step && place.moment === moment)
          throw new RoostError('HostError', 'the test says no');
      },
    });
    expect(await daemon.client.finish('guest-adopt', { pid })).toMatchObject({ state: 'failed' });
    expect((await daemon.client.call('query-guests', {})).total).toBe(0);
    expect(house.host.isAlive('web1')).toBe(true);
    failing = false;
    await daemon.client.done('guest-adopt', { pid });
    await expectAgreement(daemon);
  },
);
