/** Containers, on a pretended host: their life, what is changed while they run, and what they are refused. */
import { describe, expect, test } from 'vitest';
import type { CommandInput } from '../../protocol/commands.ts';
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

const MIB = 1024 * 1024;
const IDS = 65_536;

interface Begun {
  readonly house: FakeHouse;
  readonly daemon: FakeDaemon;
  readonly client: FakeDaemon['client'];
}

const begin = async (): Promise<Begun> => {
  const house = await fakeHouse();
  const daemon = await house.start();
  await importRoot(house, daemon);
  await daemon.client.done('network-create', { name: 'lan', kind: 'nat', subnet: '10.91.7.0/24' });
  return { house, daemon, client: daemon.client };
};

const expectAgreement = async (daemon: FakeDaemon): Promise<void> => {
  expect(daemon.ledger).toEqual(await daemon.host());
};

describe('the life of a container', () => {
  test('created, started, stopped, started and deleted: ledger and host agree at every place', async () => {
    const { house, daemon, client } = await begin();
    const before = daemon.ledger;
    const { id: image } = await client.call('query-image', { image: 'busybox' });
    const boot = { kind: 'root' as const, image: 'busybox', nesting: true, init: ['/bin/sh'] };
    const id = (await client.done(
      'guest-create',
      aContainer('c1', { boot, nics: [{ network: 'lan' }], limits: { processes: 64 } }),
    )) as GuestId;
    const made = await client.call('query-guest', { guest: 'c1' });
    expect(made).toMatchObject({
      driver: 'lxc',
      state: 'stopped',
      boot: { ...boot, image, keepCapabilities: [], dropCapabilities: [] },
      idRange: { count: IDS },
      limits: { processes: 64 },
      agent: { enabled: true },
      disks: [],
      nics: [{ network: 'lan', ipv4: '10.91.7.2' }],
    });
    expect(house.pool.hasRoot(id)).toBe(true);
    await expectAgreement(daemon);
    const existing = daemon.ledger;

    for (let run = 1; run <= 2; run += 1) {
      await client.done('guest-start', { guest: 'c1' });
      const launch = house.host.launchOf('c1');
      expect(launch).toMatchObject({
        boot: {
          kind: 'root',
          init: ['/bin/sh'],
          nesting: true,
          idRange: made.idRange,
          root: { directory: expect.stringContaining(id) as string, image: { readOnly: true } },
        },
        limits: { processes: 64 },
        disks: [],
        nics: [{ kind: 'veth' }],
      });
      expect(launch?.place).not.toHaveProperty('credentials');
      expect(daemon.ledger.some((key) => key.startsWith('veth '))).toBe(true);
      await expectAgreement(daemon);
      await client.done('guest-stop', { guest: 'c1' });
      expect(daemon.ledger).toEqual(existing);
      expect(house.pool.hasRoot(id)).toBe(true);
    }

    await client.done('guest-delete', { guest: 'c1' });
    expect(house.pool.hasRoot(id)).toBe(false);
    expect(daemon.ledger).toEqual(before);
    await expectAgreement(daemon);
  });

  test('planned, it shows the root that it would start with', async () => {
    const { house, client } = await begin();
    const id = (await client.done('guest-create', aContainer('c1'))) as GuestId;
    const plan = await client.call('guest-plan', { guest: 'c1' });
    expect(plan.argv).toEqual(['fake', 'c1', expect.stringContaining(id)]);
    expect(house.pool.calls).not.toContain('leaseRoot');
  });

  test('the image under it stays as long as it does', async () => {
    const { client } = await begin();
    await client.done('guest-create', aContainer('c1'));
    const deleting = (): Promise<string> => client.done('image-delete', { image: 'busybox' });
    await expect(deleting()).rejects.toMatchObject({
      class: 'FailedPrecondition',
      message: expect.stringContaining('c1') as string,
    });
    await client.done('guest-delete', { guest: 'c1' });
    await deleting();
  });

  test('its image is unpacked at its start where the host needs that, and goes with it', async () => {
    const { house, client } = await begin();
    const { id } = await client.call('query-image', { image: 'busybox' });
    await client.done('guest-create', aContainer('c1'));
    await client.done('guest-start', { guest: 'c1' });
    expect(house.images.unpacked).toEqual(new Set());
    await client.done('guest-stop', { guest: 'c1' });
    house.host.host.needsTree = true;
    await client.done('guest-start', { guest: 'c1' });
    expect(house.images.unpacked).toEqual(new Set([id]));
    const tree = house.images.treePath(id);
    expect(house.host.launchOf('c1')?.boot).toMatchObject({ root: { tree } });
    await client.done('guest-delete', { guest: 'c1', force: true });
    await client.done('image-delete', { image: 'busybox' });
    expect(house.images.unpacked).toEqual(new Set());
  });

  test('a start without its root is refused, and makes nothing', async () => {
    const { house, daemon, client } = await begin();
    const id = (await client.done(
      'guest-create',
      aContainer('c1', { nics: [{ network: 'lan' }] }),
    )) as GuestId;
    const before = daemon.ledger;
    await house.pool.removeRoot(id);
    await expect(client.done('guest-start', { guest: 'c1' })).rejects.toMatchObject({
      class: 'FailedPrecondition',
    });
    expect(house.host.calls).toEqual([]);
    expect(daemon.ledger).toEqual(before);
  });

  test('each has ids of its own, for good', async () => {
    const { house, daemon, client } = await begin();
    for (const name of ['c1', 'c2', 'c3']) await client.done('guest-create', aContainer(name));
    const rangesOf = async ({ client: asked }: FakeDaemon): Promise<readonly number[]> => {
      const { guests } = await asked.call('query-guests', { fields: ['idRange'] });
      return guests.map(({ idRange }) => idRange?.first ?? 0);
    };
    const before = await rangesOf(daemon);
    expect(new Set(before.map((first) => Math.floor(first / IDS))).size).toBe(3);
    await daemon.stop();
    expect(await rangesOf(await house.start())).toEqual(before);
  });
});

describe('what a container may use', () => {
  test('is changed while it runs, and nothing waits for a restart', async () => {
    const { house, client } = await begin();
    await client.done('guest-create', aContainer('c1', { start: true, limits: { processes: 64 } }));
    const accepted = await client.call('guest-update', {
      guest: 'c1',
      memoryBytes: 2 * MIB,
      cpu: { count: 2 },
      limits: { processes: null, writeBytesPerSecond: MIB },
    });
    expect(accepted).not.toHaveProperty('warnings');
    expect(house.host.limitsOf('c1')).toEqual({
      memoryBytes: 2 * MIB,
      cpus: 2,
      limits: { writeBytesPerSecond: MIB },
    });
    expect(await client.call('query-guest', { guest: 'c1' })).toMatchObject({
      memoryBytes: 2 * MIB,
      limits: { writeBytesPerSecond: MIB },
      pendingChanges: [],
    });
    expect(house.host.calls.filter((call) => call === 'limits c1')).toHaveLength(1);
  });

  test('that cannot be changed now waits for the next start, with the reason', async () => {
    const { house, client } = await begin();
    await client.done('guest-create', aContainer('c1', { start: true }));
    house.host.before = (call) => {
      if (call === 'limits') throw new RoostError('ResourceExhausted', 'it uses more already');
    };
    const { warnings } = await client.call('guest-update', { guest: 'c1', limits: { processes: 1 } });
    expect(warnings).toEqual([expect.stringContaining('it uses more already')]);
    const seen = (): Promise<unknown> => client.call('query-guest', { guest: 'c1' });
    expect(await seen()).toMatchObject({ limits: { processes: 1 }, pendingChanges: ['limits'] });
    house.host.before = () => undefined;
    await client.done('guest-stop', { guest: 'c1' });
    await client.done('guest-start', { guest: 'c1' });
    expect(house.host.limitsOf('c1')).toMatchObject({ limits: { processes: 1 } });
    expect(await seen()).toMatchObject({ pendingChanges: [] });
  });

  test('that a daemon was told and did not come to is seen to by the next', async () => {
    const { house, daemon, client } = await begin();
    await client.done('guest-create', aContainer('c1', { start: true }));
    house.host.before = (call) => {
      if (call === 'limits') throw new RoostError('HostError', 'not now');
    };
    await client.call('guest-update', { guest: 'c1', limits: { processes: 7 } });
    await daemon.crash();
    house.host.before = () => undefined;
    const next = await house.start();
    expect(await next.client.call('query-guest', { guest: 'c1' })).toMatchObject({ pendingChanges: [] });
    expect(house.host.limitsOf('c1')).toMatchObject({ limits: { processes: 7 } });
  });

  test('while it is started, holds once it runs', async () => {
    const { house, daemon, client } = await begin();
    await client.done('guest-create', aContainer('c1'));
    await daemon.stop();
    const { observeStep, reached, thaw } = freezeAt(
      ({ kind, step, moment }) => kind === 'guest-start' && step === 'launch' && moment === 'after',
    );
    const slow = await house.start({ observeStep });
    const { operation } = await slow.client.call('guest-start', { guest: 'c1' });
    await reached;
    await slow.client.call('guest-update', { guest: 'c1', limits: { processes: 5 } });
    await slow.crash(thaw);
    const next = await house.start();
    expect((await next.client.call('operation-wait', { operation })).state).toBe('succeeded');
    expect(house.host.limitsOf('c1')).toMatchObject({ limits: { processes: 5 } });
    expect(await next.client.call('query-guest', { guest: 'c1' })).toMatchObject({ pendingChanges: [] });
  });

  test('more memory than the host has is refused, and nothing is changed', async () => {
    const { house, client } = await begin();
    await client.done('guest-create', aContainer('c1', { start: true }));
    await expect(
      client.call('guest-update', { guest: 'c1', memoryBytes: 2 ** 40 * 64 }),
    ).rejects.toMatchObject({ class: 'ResourceExhausted' });
    expect(await client.call('query-guest', { guest: 'c1' })).toMatchObject({ memoryBytes: MIB });
    expect(house.host.calls).not.toContain('limits c1');
  });
});

describe('a container is refused, before anything is done,', () => {
  type Input = CommandInput<'guest-create'>;
  const unsupported: Readonly<Record<string, Partial<Input>>> = {
    program: { program: { image: 'nothing' } },
    disks: { disks: [{ sizeBytes: 512 }] },
    cdroms: { cdroms: [{}] },
    filesystems: { filesystems: [{ source: '/srv', target: '/srv' }] },
    cloudInit: { cloudInit: { user: 'alice' } },
    machine: { machine: 'microvm' },
    firmware: { firmware: 'uefi' },
    'cpu.topology': { cpu: { count: 1, topology: { sockets: 1, cores: 1, threads: 1 } } },
    'cpu.model': { cpu: { model: 'host' } },
    'qemu.accel': { qemu: { accel: 'tcg' } },
    'qemu.binary': { qemu: { binary: 'other' } },
    'qemu.extraArgs': { qemu: { extraArgs: [{ argument: '-nodefaults', reason: 'a trial' }] } },
  };

  test.each(Object.keys(unsupported))('%s', async (member) => {
    const { daemon, client } = await begin();
    const before = daemon.ledger;
    await expect(client.call('guest-create', aContainer('c1', unsupported[member]))).rejects.toMatchObject({
      class: 'Unsupported',
      message: `Guest c1 is a container, which has no ${member}`,
      data: { guest: 'c1', member },
      hint: expect.stringMatching(/\w/) as string,
    });
    expect(daemon.ledger).toEqual(before);
    expect((await client.call('query-guests', {})).guests).toEqual([]);
  });

  test('a driver that makes machines, and a machine the driver that makes none', async () => {
    const { client } = await begin();
    await expect(client.call('guest-create', aContainer('c1', { driver: 'qemu' }))).rejects.toMatchObject({
      class: 'InvalidArgument',
      hint: expect.stringContaining('lxc') as string,
    });
    await expect(client.call('guest-create', aGuest('c1', { driver: 'lxc' }))).rejects.toMatchObject({
      class: 'InvalidArgument',
      hint: expect.stringContaining('boot of kind root') as string,
    });
  });

  test('a capability that it is to have and not to have', async () => {
    const { client } = await begin();
    const boot = { kind: 'root' as const, image: 'busybox' };
    const both = { ...boot, keepCapabilities: ['sys_time', 'mknod'], dropCapabilities: ['mknod'] };
    const refusal = { class: 'InvalidArgument', data: { member: 'boot', capability: 'mknod' } };
    await expect(client.call('guest-create', aContainer('c1', { boot: both }))).rejects.toMatchObject(
      refusal,
    );
    await client.done('guest-create', aContainer('c1', { boot }));
    await expect(client.call('guest-update', { guest: 'c1', boot: both })).rejects.toMatchObject(refusal);
  });

  test('an image that is no root', async () => {
    const { house, client } = await begin();
    house.images.offer('/srv/linux', MIB);
    await client.done('image-import', { name: 'linux', kind: 'kernel', path: '/srv/linux' });
    await expect(
      client.call('guest-create', aContainer('c1', { boot: { kind: 'root', image: 'linux' } })),
    ).rejects.toMatchObject({ class: 'InvalidArgument', data: { kind: 'kernel' } });
  });

  test('a network that QEMU makes', async () => {
    const { client } = await begin();
    await client.done('network-create', { name: 'home', kind: 'user' });
    const refusal = { class: 'Unsupported', hint: expect.stringContaining('nat') as string };
    await expect(
      client.call('guest-create', aContainer('c1', { nics: [{ network: 'home' }] })),
    ).rejects.toMatchObject(refusal);
    await client.done('guest-create', aContainer('c1'));
    await expect(client.call('guest-nic-attach', { guest: 'c1', network: 'home' })).rejects.toMatchObject(
      refusal,
    );
  });

  test('what a machine gets later', async () => {
    const { client } = await begin();
    await client.done('guest-create', aContainer('c1', { start: true }));
    const guest = 'c1';
    const refusal = { class: 'Unsupported' };
    await expect(client.call('guest-disk-attach', { guest, sizeBytes: 512 })).rejects.toMatchObject(refusal);
    await expect(client.call('guest-update', { guest, cloudInit: { user: 'a' } })).rejects.toMatchObject(
      refusal,
    );
    await expect(client.call('guest-update', { guest, cpu: { model: 'host' } })).rejects.toMatchObject(
      refusal,
    );
    await expect(client.call('template-create', { guest, name: 't' })).rejects.toMatchObject(refusal);
    expect(await client.call('query-guest', { guest })).toMatchObject({ generation: 1, disks: [] });
  });

  test('another root, or none', async () => {
    const { house, client } = await begin();
    house.images.offer('/srv/other.tar', MIB);
    await client.done('image-import', { name: 'other', kind: 'root', path: '/srv/other.tar' });
    await client.done('guest-create', aContainer('c1'));
    await client.done('guest-create', aGuest('web1'));
    const refusal = { class: 'InvalidArgument', data: { member: 'boot' } };
    const update = (guest: string, boot: NonNullable<Input['boot']>): Promise<unknown> =>
      client.call('guest-update', { guest, boot });
    await expect(update('c1', { kind: 'root', image: 'other' })).rejects.toMatchObject(refusal);
    await expect(update('c1', { kind: 'disk' })).rejects.toMatchObject(refusal);
    await expect(update('web1', { kind: 'root', image: 'other' })).rejects.toMatchObject(refusal);
    await client.done('guest-update', {
      guest: 'c1',
      boot: { kind: 'root', image: 'busybox', nesting: true },
    });
    expect(await client.call('query-guest', { guest: 'c1' })).toMatchObject({ boot: { nesting: true } });
  });
});
