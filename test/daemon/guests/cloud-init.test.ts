/** What cloud-init in a guest is told, through the whole daemon over a pretended host. */
import { describe, expect, test } from 'vitest';
import type { CommandInput } from '../../../protocol/commands.ts';
import { RoostError } from '../../../protocol/errors.ts';
import type { PoolEffect } from '../../../storage/fake/fake-pool.ts';
import { aGuest, type FakeDaemon, type FakeHouse, fakeHouse } from '../fake-house.ts';

const HASH = '$6$salt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2';
const SECRET = 'hush-hush';

const told = (
  cloudInit: NonNullable<CommandInput<'guest-create'>['cloudInit']> = {},
): CommandInput<'guest-create'> => aGuest('web1', { nics: [{ network: 'lan' }], cloudInit });

const begun = async (): Promise<{ house: FakeHouse; daemon: FakeDaemon }> => {
  const house = await fakeHouse();
  const daemon = await house.start();
  await daemon.client.done('network-create', { name: 'lan' });
  return { house, daemon };
};

const viewOf = ({ client }: FakeDaemon) => client.call('query-guest', { guest: 'web1' });
const seedOf = async (house: FakeHouse, daemon: FakeDaemon) => house.pool.seedOf((await viewOf(daemon)).id);
const update = (daemon: FakeDaemon, cloudInit: CommandInput<'guest-update'>['cloudInit']) =>
  daemon.client.done('guest-update', { guest: 'web1', cloudInit });

describe('a seed', () => {
  test('is made at the start and handed to the driver', async () => {
    const { house, daemon } = await begun();
    await daemon.client.done('guest-create', told({ user: 'alice' }));
    expect(await seedOf(house, daemon)).toBeUndefined();
    await daemon.client.done('guest-start', { guest: 'web1' });
    const seed = await seedOf(house, daemon);
    expect(seed).toMatchObject({ label: 'cidata' });
    expect(seed?.files['user-data']).toContain('name: alice');
    expect(house.host.launchOf('web1')?.seed).toMatchObject({ format: 'raw', readOnly: true });
  });

  test('is not made for a guest that is told nothing', async () => {
    const { house, daemon } = await begun();
    await daemon.client.done('guest-create', { ...aGuest('web1'), start: true });
    expect(house.host.launchOf('web1')).not.toHaveProperty('seed');
    expect(house.pool.calls.filter((call) => call.includes('Seed'))).toEqual([]);
    expect(await viewOf(daemon)).not.toHaveProperty('cloudInit');
  });

  test('is in the plan where the start would make it', async () => {
    const { house, daemon } = await begun();
    await daemon.client.done('guest-create', told());
    const { argv } = await daemon.client.call('guest-plan', { guest: 'web1' });
    expect(house.pool.calls.filter((call) => call.startsWith('writeSeed'))).toEqual([]);
    await daemon.client.done('guest-start', { guest: 'web1' });
    expect(argv).toContain(`seed=${house.host.launchOf('web1')?.seed?.path}`);
  });

  test('that cannot be made fails the start, and nothing is left of it', async () => {
    const { house, daemon } = await begun();
    await daemon.client.done('guest-create', told());
    house.beforePool = (effect: PoolEffect) => {
      if (effect === 'writeSeed') throw new RoostError('ResourceExhausted', 'the pool is full');
    };
    const { operation } = await daemon.client.call('guest-start', { guest: 'web1' });
    expect(await daemon.client.call('operation-wait', { operation })).toMatchObject({
      state: 'failed',
      error: { class: 'ResourceExhausted' },
    });
    expect(daemon.ledger).toEqual(await daemon.host());
    house.beforePool = () => undefined;
    await daemon.client.done('guest-start', { guest: 'web1' });
    expect(await viewOf(daemon)).toMatchObject({ state: 'running' });
  });
});

describe('a change of what is told', () => {
  test('waits for the next start of a running guest', async () => {
    const { house, daemon } = await begun();
    await daemon.client.done('guest-create', { ...told({ user: 'alice' }), start: true });
    const before = await seedOf(house, daemon);
    expect(await viewOf(daemon)).toMatchObject({ pendingChanges: [] });
    await update(daemon, { hostname: 'www' });
    expect(await viewOf(daemon)).toMatchObject({
      pendingChanges: ['cloudInit'],
      cloudInit: { hostname: 'www', user: 'alice' },
    });
    expect(await seedOf(house, daemon)).toEqual(before);
    await daemon.client.done('guest-stop', { guest: 'web1', force: true });
    await daemon.client.done('guest-start', { guest: 'web1' });
    expect((await seedOf(house, daemon))?.files['meta-data']).toContain('local-hostname: www');
    expect(await viewOf(daemon)).toMatchObject({ pendingChanges: [] });
  });

  test('back to what the guest was started with is none', async () => {
    const { daemon } = await begun();
    await daemon.client.done('guest-create', { ...told(), start: true });
    await update(daemon, { hostname: 'www' });
    await update(daemon, { hostname: null });
    expect(await viewOf(daemon)).toMatchObject({ pendingChanges: [] });
  });

  test('gives a new instance-id only when that is asked for', async () => {
    const { daemon } = await begun();
    await daemon.client.done('guest-create', told());
    const { id } = await viewOf(daemon);
    await update(daemon, { userData: '#!/bin/sh\ntrue\n' });
    expect(await viewOf(daemon)).toMatchObject({ cloudInit: { instanceId: id } });
    await update(daemon, { newInstance: true });
    expect(await viewOf(daemon)).toMatchObject({ cloudInit: { instanceId: `${id}-2` } });
  });

  test('to nothing takes the seed away, and a later one gets the same place', async () => {
    const { house, daemon } = await begun();
    await daemon.client.done('guest-create', { ...told(), start: true });
    await daemon.client.done('guest-stop', { guest: 'web1', force: true });
    await update(daemon, null);
    await daemon.client.done('guest-start', { guest: 'web1' });
    expect(await viewOf(daemon)).not.toHaveProperty('cloudInit');
    expect(await seedOf(house, daemon)).toBeUndefined();
    expect(house.host.launchOf('web1')).not.toHaveProperty('seed');
    await update(daemon, {});
    expect(await viewOf(daemon)).toMatchObject({ pendingChanges: ['cloudInit'] });
  });

  test('follows the name of the guest', async () => {
    const { house, daemon } = await begun();
    await daemon.client.done('guest-create', told());
    await daemon.client.done('guest-rename', { guest: 'web1', newName: 'web2' });
    await daemon.client.done('guest-rename', { guest: 'web2', newName: 'web1' });
    await daemon.client.done('guest-start', { guest: 'web1' });
    expect((await seedOf(house, daemon))?.files['meta-data']).toContain('local-hostname: web1');
  });
});

describe('what is wrong', () => {
  const errorOf = async (daemon: FakeDaemon, cloudInit: object): Promise<unknown> =>
    await daemon.client
      .call('guest-create', told(cloudInit as CommandInput<'guest-create'>['cloudInit'] & object))
      .catch((error: unknown) => error);

  test.each([
    { userData: 'no known beginning' },
    { userData: '#cloud-config\na: [\n' },
    { metaData: '[]' },
    { networkConfig: 'ethernets: {}' },
    { user: 'root' },
    { user: 'Alice' },
    { hostname: '-x' },
    { sshKeys: ['-----BEGIN OPENSSH PRIVATE KEY-----'] },
    { passwordHash: 'plain' },
    { passwordHash: '$6$salt$ha:sh' },
    { password: 'plain' },
  ])('is refused before anything is made: %j', async (cloudInit) => {
    const { house, daemon } = await begun();
    expect(await errorOf(daemon, cloudInit)).toMatchObject({ class: 'InvalidArgument' });
    expect(house.pool.calls).toEqual([]);
    expect(await daemon.client.call('query-operations', { subject: 'web1' })).toEqual({ operations: [] });
  });

  test('no disk may be called as the seed is', async () => {
    const { daemon } = await begun();
    await expect(
      daemon.client.call('guest-create', aGuest('web1', { disks: [{ name: 'cidata', sizeBytes: 512 }] })),
    ).rejects.toMatchObject({ class: 'InvalidArgument' });
  });

  test('a guest that is told nothing has nothing to show', async () => {
    const { daemon } = await begun();
    await daemon.client.done('guest-create', aGuest('web1'));
    await expect(daemon.client.call('query-guest-cloud-init', { guest: 'web1' })).rejects.toMatchObject({
      class: 'FailedPrecondition',
    });
  });

  test('is warned of in the reply, also in that to the same key', async () => {
    const { daemon } = await begun();
    const asked = {
      ...told({ userData: '#cloud-config\npakages: [curl]\n' }),
      idempotencyKey: 'once',
    };
    const first = await daemon.client.call('guest-create', asked);
    expect(first.warnings).toEqual([
      "user-data: cloud-init knows no 'pakages' and will ignore it; did you mean 'packages'?",
    ]);
    expect(await daemon.client.call('guest-create', asked)).toEqual(first);
  });
});

test('a secret is nowhere to be read but in the seed', async () => {
  const { house, daemon } = await begun();
  const userData = `#cloud-config\npassword: ${SECRET}\n`;
  await daemon.client.done('guest-create', { ...told({ userData, passwordHash: HASH }), start: true });
  await update(daemon, { metaData: `token: ${SECRET}\n` });
  const files = await daemon.client.call('query-guest-cloud-init', { guest: 'web1' });
  const shown = [
    files,
    await viewOf(daemon),
    await daemon.client.call('query-guests', {}),
    await daemon.client.call('query-operations', {}),
    await daemon.client.call('query-events', { since: 0 }),
    daemon.daemon.inventory.operations.query({ limit: 100 }),
  ];
  expect(JSON.stringify(shown)).not.toContain(SECRET);
  expect(JSON.stringify(shown)).not.toContain(HASH);
  expect(JSON.stringify(await seedOf(house, daemon))).toContain(SECRET);
});
