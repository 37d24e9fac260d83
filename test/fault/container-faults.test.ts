/**
 * What happens to containers by the host around them: it boots, an image or a link is gone, a pool is full, liblxc is not
 * installed any more, another daemon is beside, somebody leaves groups and links behind.
 */
import { execFile } from 'node:child_process';
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { wardenPath } from '../../native/index.ts';
import type { OperationView } from '../../protocol/operation.ts';
import { groupMounts, groupsOf, membersOf } from '../harness/container-processes.ts';
import {
  agentUp,
  beginWithBusybox,
  type ContainerHome,
  container,
  execIn,
  shellIn,
  startContainer,
  tracesOf,
} from '../harness/containers.ts';
import { leaveNothing } from '../harness/leave-nothing.ts';
import { describeWith } from '../harness/needs.ts';
import type { RealDaemon, StartOptions } from '../harness/real-daemon.ts';
import { testDirectory } from '../harness/test-directory.ts';

const run = promisify(execFile);

/** Executes the daemon where a script has set something up that only it and its containers see. */
const where = (script: string, ...args: readonly string[]): StartOptions => ({
  within: [
    'unshare',
    '--mount',
    '--propagation',
    'private',
    'sh',
    '-ec',
    `${script}\nshift ${args.length}\nexec "$@"`,
    'sh',
    ...args,
  ],
});

const begin = async (): Promise<ContainerHome> => {
  const at = await beginWithBusybox();
  await at.daemon.succeed('network-create', { name: 'lan' });
  return at;
};

const nics = [{ network: 'lan' }];

const restarted = async (at: ContainerHome, options: StartOptions = {}): Promise<ContainerHome> => {
  await at.daemon.kill9();
  return { ...at, daemon: await at.home.start(options) };
};

const differences = async ({ client }: RealDaemon): Promise<readonly unknown[]> =>
  (await client.call('query-fsck', {})).differences;

const repair = async ({ client }: RealDaemon): Promise<void> => {
  const { operation } = await client.call('fsck-repair', {});
  expect(await client.call('operation-wait', { operation })).toMatchObject({ state: 'succeeded' });
};

/** It can be started, has its NIC, and is deleted without a trace. */
const expectWell = async (at: ContainerHome): Promise<void> => {
  const { daemon } = at;
  await daemon.succeed('guest-start', { guest: 'one' });
  await agentUp(daemon, 'one');
  expect(await shellIn(at, 'one')('cat /sys/class/net/eth0/operstate')).toBe('up');
  expect(await differences(daemon)).toEqual([]);
  await leaveNothing(at);
};

const pidOfWarden = async (daemon: RealDaemon, name = 'one'): Promise<number> =>
  (await daemon.guest(name)).process?.pid ?? 0;

describeWith(['root', 'lxc', 'sqfstar', 'nft', 'ip', 'dnsmasq'], 'a container', () => {
  it('is found stopped after a boot of the host, and starts again with what it had written', async () => {
    const at = await begin();
    await startContainer(at, 'one', { nics });
    await shellIn(at, 'one')('echo kept > /root/note');
    const { instance } = await at.daemon.client.call('query-daemon', {});
    const [{ id }, pid] = [await at.daemon.guest('one'), await pidOfWarden(at.daemon)];
    await at.daemon.kill9();
    process.kill(pid, 'SIGKILL');
    await run(wardenPath(), ['--clear', '--cgroup', `roost-${instance}-${id}`]);
    await rm(at.home.runDirectory, { recursive: true });
    await at.home.run(['nft', 'flush', 'ruleset']);
    for (const link of await bridgesIn(at)) await at.home.run(['ip', 'link', 'delete', link]);
    const boot = join(await testDirectory(), 'boot_id');
    await writeFile(boot, '6a6fcd8a-0000-4000-8000-6a6fcd8a0000\n');

    const booted = await at.home.start(where('mount --bind "$1" /proc/sys/kernel/random/boot_id', boot));
    expect(await booted.guest('one')).toMatchObject({
      state: 'stopped',
      lastExit: { detail: 'the host was booted' },
    });
    expect(await differences(booted)).toEqual([]);
    // Where something lies over a part of /proc, the kernel lets no container have one of its own.
    await booted.stop();
    const next = { ...at, daemon: await at.home.start() };
    await next.daemon.succeed('guest-start', { guest: 'one' });
    await agentUp(next.daemon, 'one');
    expect(await shellIn(next, 'one')('cat /root/note')).toBe('kept');
    await next.daemon.succeed('guest-stop', { guest: 'one' });
    await expectWell(next);
  });

  it('whose NIC is gone when it is to be begun is not begun, in words, and can be started again', async () => {
    const at = await begin();
    await at.daemon.succeed('guest-create', container('one', { nics }));
    await at.daemon.stop();
    const doomed = await at.home.start({ crashAt: 'guest-start/launch/after' });
    await expect(doomed.change('guest-start', { guest: 'one' })).rejects.toThrow(/connection/i);
    await doomed.ended;
    const [link = ''] = (await at.home.run(['ip', '-o', 'link'])).match(/rv[a-z0-9]+/) ?? [];
    await at.home.run(['ip', 'link', 'delete', link]);

    const next = { ...at, daemon: await at.home.start() };
    const { operations } = await next.daemon.client.call('query-operations', {});
    const start = operations.find(({ kind }) => kind === 'guest-start');
    const ended = (await next.daemon.client.callAny('operation-wait', {
      operation: start?.id,
    })) as OperationView;
    expect(ended).toMatchObject({ state: 'failed', error: { class: 'HostError' } });
    expect(ended.error?.desc).toContain('Failed to retrieve ifindex');
    expect(await next.daemon.guest('one')).toMatchObject({ state: 'failed', lastExit: { cause: 'crashed' } });
    expect(await differences(next.daemon)).toEqual([]);
    await expectWell(next);
  });

  it('whose image is gone is not started, in words, and is once that is back', async () => {
    const at = await begin();
    const { daemon, home } = at;
    await daemon.succeed('guest-create', container('one', { nics }));
    const { id } = await daemon.client.call('query-image', { image: 'busybox' });
    const images = join(home.stateDirectory, 'images', id);
    await rename(images, `${images}.away`);
    const failed = await daemon.change('guest-start', { guest: 'one' });
    expect(failed).toMatchObject({ state: 'failed' });
    expect(failed.error?.desc).toContain(id);
    expect(
      await groupsOf((await daemon.client.call('query-daemon', {})).instance, (await daemon.guest('one')).id),
    ).toEqual([]);
    await rename(`${images}.away`, images);
    expect(await differences(daemon)).toEqual([]);
    await expectWell(at);
  });

  it('on a full pool goes on, and another is not created there but in words', async () => {
    const before = await begin();
    await before.daemon.stop();
    const pool = join(before.home.stateDirectory, 'pools/default');
    const mount = 'mkdir -p "$1"; mount -t tmpfs -o size=2m,nr_inodes=100,mode=711 pool "$1"';
    const at = { ...before, daemon: await before.home.start(where(mount, pool)) };
    const { daemon } = at;
    await startContainer(at, 'one', { nics });
    const filled = await execIn(at, 'one')(
      'sh',
      '-c',
      'head -c 4194304 /dev/zero > /root/big; i=0; while mkdir /root/$i; do i=$((i+1)); done',
    );
    expect(filled.stderr).toMatch(/No space left/);
    const refused = await daemon.change('guest-create', container('two', { nics }));
    expect(refused).toMatchObject({ state: 'failed', error: { class: 'ResourceExhausted' } });
    expect(await daemon.guest('one')).toMatchObject({ state: 'running' });
    expect(await differences(daemon)).toEqual([]);
    await shellIn(at, 'one')('rm -r /root/*');
    await daemon.succeed('guest-stop', { guest: 'one' });
    await daemon.succeed('guest-create', container('two'));
    await daemon.succeed('guest-delete', { guest: 'two' });
    await daemon.succeed('guest-delete', { guest: 'one' });
    await leaveNothing(at);
  });

  it('is unknown where liblxc is not installed any more, can be given up, and else is as before', async () => {
    const at = await begin();
    await startContainer(at, 'one', { nics });
    await at.daemon.succeed('guest-create', container('two', { nics }));
    const pid = await pidOfWarden(at.daemon);
    const without = await testDirectory();
    for (const name of ['upper', 'work']) await mkdir(join(without, name));
    await run('mknod', [join(without, 'upper/lxc-start'), 'c', '0', '0']);
    const overlay = 'mount -t overlay -o "lowerdir=/usr/bin,upperdir=$1/upper,workdir=$1/work" none /usr/bin';
    const poor = await restarted(at, where(overlay, without));
    for (const guest of ['one', 'two'])
      expect(await poor.daemon.guest(guest)).toMatchObject({
        state: 'unknown',
        reason: expect.stringContaining('lxc'),
      });
    await expect(poor.daemon.change('guest-create', container('three'))).rejects.toThrow(
      'This daemon has no driver called lxc',
    );
    await poor.daemon.succeed('guest-delete', { guest: 'two', force: true });
    expect((await poor.daemon.client.call('query-guests', {})).total).toBe(1);

    const again = await restarted(poor);
    await agentUp(again.daemon, 'one');
    expect(await again.daemon.guest('one')).toMatchObject({ state: 'running', process: { pid } });
    expect(await differences(again.daemon)).toEqual([]);
    await leaveNothing(again);
  });

  it('of one daemon is nothing to another beside it', async () => {
    const [here, there] = [await begin(), await begin()];
    for (const at of [here, there]) await startContainer(at, 'one', { nics });
    const untouched = await tracesOf(there);
    const pid = await pidOfWarden(there.daemon);
    process.kill(await pidOfWarden(here.daemon), 'SIGKILL');
    const next = await restarted(here);
    await repair(next.daemon);
    await next.daemon.succeed('guest-delete', { guest: 'one', force: true });
    expect(await tracesOf(there)).toEqual(untouched);
    expect(await there.daemon.guest('one')).toMatchObject({ state: 'running', process: { pid } });
    expect(await shellIn(there, 'one')('cat /sys/class/net/eth0/operstate')).toBe('up');
    expect(await differences(there.daemon)).toEqual([]);
    await leaveNothing(next);
    await leaveNothing(there);
  });

  it('that left groups, a link and a socket is named by fsck, which takes them away', async () => {
    const at = await begin();
    const { home, daemon } = at;
    const { instance } = await daemon.client.call('query-daemon', {});
    const id = '0b6c2f5e-8c0d-4b39-9d39-7d6e3b8a1f00';
    const groups = (await groupMounts()).map((mount) => join(mount, `roost-${instance}-${id}`));
    for (const group of groups) await mkdir(join(group, 'payload/guest/deep'), { recursive: true });
    const socket = join(home.runDirectory, 'guests', id, 'qmp.sock');
    await mkdir(dirname(socket));
    await run(process.execPath, [
      '-e',
      `require('net').createServer().listen(${JSON.stringify(socket)}, () => process.exit(0))`,
    ]);
    const link = `rv${instance}0z0`;
    await home.run(['ip', 'link', 'add', link, 'type', 'veth', 'peer', 'name', `rp${instance}0z0`]);
    const named = (await differences(daemon)) as readonly {
      readonly kind: string;
      readonly object: { readonly name: string };
    }[];
    const wanted = [...groups, socket, link];
    expect(named.map(({ object }) => object.name).sort()).toEqual(wanted.sort());
    await repair(daemon);
    expect(await differences(daemon)).toEqual([]);
    expect(await groupsOf(instance, id as Parameters<typeof groupsOf>[1])).toEqual([]);
    await leaveNothing(at);
  });

  it('whose lock somebody removed is named by fsck, and has it again after the repair', async () => {
    const at = await begin();
    const { home, daemon } = at;
    await startContainer(at, 'one', { nics });
    const { id } = await daemon.guest('one');
    const pid = await pidOfWarden(daemon);
    await rm(join(home.stateDirectory, `guests/${id}.lock`));
    expect(await differences(daemon)).toMatchObject([{ kind: 'unlocked-process' }]);
    await repair(daemon);
    expect(await differences(daemon)).toEqual([]);
    const next = await restarted(at);
    await agentUp(next.daemon, 'one');
    expect(await next.daemon.guest('one')).toMatchObject({ state: 'running', process: { pid } });
    const { instance } = await next.daemon.client.call('query-daemon', {});
    await next.daemon.succeed('guest-stop', { guest: 'one', force: true });
    expect(await membersOf(instance, id)).toEqual([]);
    await leaveNothing(next);
  });
});

const bridgesIn = async ({ home }: ContainerHome): Promise<readonly string[]> =>
  (await home.run(['ip', '-o', 'link', 'show', 'type', 'bridge']))
    .split('\n')
    .flatMap((line) => /^\d+: ([^:@]+)/.exec(line)?.[1] ?? []);
