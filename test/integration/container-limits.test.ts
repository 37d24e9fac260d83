/** What a container may use: held by the kernel, changed while it runs, and no matter of others when it wants more. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { MEBIBYTE } from '../../protocol/types.ts';
import {
  agentUp,
  beginWithBusybox,
  container,
  execIn,
  groupFile,
  initPidOf,
  kernelLimits,
  shellIn,
  startContainer,
} from '../harness/containers.ts';
import { leaveNothing } from '../harness/leave-nothing.ts';
import { describeWith } from '../harness/needs.ts';
import { runRoost } from '../harness/roost-cli.ts';

const PERIOD_US = 100_000;

describeWith(['root', 'lxc', 'sqfstar', 'nft', 'ip', 'dnsmasq'], 'the limits of a container', () => {
  it('are those of its spec, change at once while it runs, and hold at its next start', async () => {
    const at = await beginWithBusybox();
    const { home, daemon } = at;
    await startContainer(at, 'one', { memoryBytes: 64 * MEBIBYTE, limits: { processes: 50 } });
    expect(await kernelLimits(at, 'one')).toEqual({ memory: 64 * MEBIBYTE, processes: 50, cpu: PERIOD_US });
    const init = await initPidOf(home, (await daemon.guest('one')).id);
    const grown = ['update', 'one', '-m', '96MiB', '-c', '2', '--processes', '80', '--write-limit', '1MiB'];
    expect(await runRoost(home, grown)).toMatchObject({ code: 0, stderr: '' });
    expect(await kernelLimits(at, 'one')).toEqual({
      memory: 96 * MEBIBYTE,
      processes: 80,
      cpu: 2 * PERIOD_US,
    });
    const written = { v1: 'blkio.throttle.write_bps_device', v2: 'io.max' };
    expect(await readFile(await groupFile(at, 'one', written), 'utf8')).toContain(String(MEBIBYTE));
    const view = await daemon.guest('one');
    expect(view).toMatchObject({ memoryBytes: 96 * MEBIBYTE, pendingChanges: [], limits: { processes: 80 } });
    expect(await initPidOf(home, view.id)).toBe(init);

    const shrunk = ['update', 'one', '-m', '32MiB', '-c', '1', '--no-processes', '--no-write-limit'];
    expect(await runRoost(home, shrunk)).toMatchObject({ code: 0, stderr: '' });
    const limits = { memory: 32 * MEBIBYTE, processes: 32_768, cpu: PERIOD_US };
    expect(await kernelLimits(at, 'one')).toEqual(limits);
    expect(await readFile(await groupFile(at, 'one', written), 'utf8')).not.toContain(String(MEBIBYTE));
    await daemon.succeed('guest-stop', { guest: 'one' });
    await daemon.succeed('guest-start', { guest: 'one' });
    expect(await kernelLimits(at, 'one')).toEqual(limits);
    await daemon.kill9();
    const next = await home.start();
    expect((await next.guest('one')).pendingChanges).toEqual([]);
    expect(await runRoost(home, ['update', 'one', '-m', '48MiB'])).toMatchObject({ code: 0, stderr: '' });
    expect(await kernelLimits({ daemon: next }, 'one')).toMatchObject({ memory: 48 * MEBIBYTE });
    await leaveNothing({ home, daemon: next });
  });

  it('are not lowered below what is in use; that is said, and left for the next start', async () => {
    const at = await beginWithBusybox();
    const { home, daemon } = at;
    await startContainer(at, 'full', { memoryBytes: 64 * MEBIBYTE });
    await shellIn(at, 'full')('mount -t tmpfs tmpfs /run && head -c 40000000 /dev/zero >/run/held');
    const lowered = await runRoost(home, ['update', 'full', '-m', '16MiB']);
    expect(lowered).toMatchObject({ code: 0, stderr: expect.stringContaining('runs on with the limits') });
    expect(await kernelLimits(at, 'full')).toMatchObject({ memory: 64 * MEBIBYTE });
    expect((await daemon.guest('full')).pendingChanges).toEqual(['memoryBytes']);
    await daemon.succeed('guest-stop', { guest: 'full' });
    await daemon.succeed('guest-start', { guest: 'full' });
    expect(await kernelLimits(at, 'full')).toMatchObject({ memory: 16 * MEBIBYTE });
    expect((await daemon.guest('full')).pendingChanges).toEqual([]);
    await leaveNothing(at);
  });

  it('end a program that wants more memory, inside, and the container goes on', async () => {
    const at = await beginWithBusybox();
    const { home, daemon } = at;
    await startContainer(at, 'hog', { memoryBytes: 48 * MEBIBYTE });
    const init = await initPidOf(home, (await daemon.guest('hog')).id);
    // One line without an end.
    expect(await execIn(at, 'hog')('tail', '/dev/zero')).toMatchObject({ code: 128 + 9, stdout: '' });
    const used = { v1: 'memory.max_usage_in_bytes', v2: 'memory.peak' };
    const most = Number(await readFile(await groupFile(at, 'hog', used), 'utf8'));
    expect(most).toBeLessThanOrEqual(48 * MEBIBYTE);
    expect(await execIn(at, 'hog')('hostname')).toMatchObject({ code: 0, stdout: 'hog\n' });
    const view = await daemon.guest('hog');
    expect(view).toMatchObject({ state: 'running', agent: { state: 'connected' } });
    expect(await initPidOf(home, view.id)).toBe(init);
    await leaveNothing(at);
  });

  it('stop a fork bomb, while others and the daemon go on answering', async () => {
    const at = await beginWithBusybox();
    const { home, daemon } = at;
    await startContainer(at, 'bomb', { limits: { processes: 60 } });
    await startContainer(at, 'other');
    const bomb = ['exec', '-d', 'bomb', 'sh', '-c', 'bomb() { bomb | bomb & }; bomb'];
    expect(await runRoost(home, bomb)).toMatchObject({ code: 0 });
    const refused = await groupFile(at, 'bomb', { v1: 'pids.events', v2: 'pids.events' });
    // Version 1 counts where who wanted to fork is, version 2 where the limit is.
    const counters = [refused, join(dirname(refused), 'guest/pids.events')];
    const isRefused = async (path: string): Promise<boolean> =>
      /^max [1-9]/m.test(await readFile(path, 'utf8').catch(() => ''));
    while (!(await Promise.all(counters.map(isRefused))).includes(true));
    const current = await groupFile(at, 'bomb', { v1: 'pids.current', v2: 'pids.current' });
    for (let round = 0; round < 5; round += 1) {
      expect(Number(await readFile(current, 'utf8'))).toBeLessThanOrEqual(60);
      expect(await execIn(at, 'other')('hostname')).toMatchObject({ code: 0, stdout: 'other\n' });
      expect(await daemon.guest('bomb')).toMatchObject({ state: 'running' });
    }
    await daemon.succeed('guest-stop', { guest: 'bomb', force: true });
    expect(await daemon.guest('bomb')).toMatchObject({ state: 'stopped' });
    await daemon.succeed('guest-start', { guest: 'bomb' });
    await agentUp(daemon, 'bomb');
    expect(await execIn(at, 'bomb')('hostname')).toMatchObject({ code: 0, stdout: 'bomb\n' });
    await leaveNothing(at);
  });

  it('of memory are seen inside by whoever asks the group', async () => {
    const at = await beginWithBusybox();
    await startContainer(at, 'one', { memoryBytes: 64 * MEBIBYTE });
    const told =
      'mkdir /mnt; mount -t cgroup -o memory none /mnt && grep hierarchical_memory_limit /mnt/memory.stat';
    expect(await shellIn(at, 'one')(told)).toBe(`hierarchical_memory_limit ${64 * MEBIBYTE}`);
    await leaveNothing(at);
  });
});

/** lxcfs where hosts have it, seen by nobody but the daemon that is begun in the namespace of this process. */
const startLxcfs = async (): Promise<number> => {
  const place = '/var/lib/lxcfs';
  const isNew = (await mkdir(place, { recursive: true })) !== undefined;
  const pidFile = `/tmp/${process.pid}-lxcfs.pid`;
  const argv = ['--mount', '--propagation', 'private', 'lxcfs', '-f', '-p', pidFile, place];
  const child = spawn('unshare', argv, { stdio: ['ignore', 'ignore', 'pipe'] });
  onTestFinished(async () => {
    child.kill('SIGKILL');
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
    await rm(pidFile, { force: true });
    if (isNew) await rm(place, { recursive: true });
  });
  const served = `/proc/${child.pid}/root${place}/proc/meminfo`;
  while ((await readFile(served, 'utf8').catch(() => '')) === '') {
    if (child.exitCode !== null) throw new Error(`lxcfs ended with ${child.exitCode}`);
  }
  return child.pid ?? 0;
};

describeWith(
  ['root', 'lxc', 'lxcfs', 'sqfstar', 'fuse', 'nft', 'ip'],
  'the limits of a container on a host with lxcfs',
  () => {
    it('are what /proc tells in it, also after a change', async () => {
      const lxcfs = await startLxcfs();
      const at = await beginWithBusybox({ within: ['nsenter', `--mount=/proc/${lxcfs}/ns/mnt`, '--'] });
      await at.daemon.succeed('guest-create', {
        ...container('one', { memoryBytes: 64 * MEBIBYTE }),
        start: true,
      });
      await agentUp(at.daemon, 'one');
      const total = () => shellIn(at, 'one')('grep MemTotal /proc/meminfo | tr -s " "');
      expect(await total()).toBe(`MemTotal: ${64 * 1024} kB`);
      expect(await runRoost(at.home, ['update', 'one', '-m', '96MiB'])).toMatchObject({ code: 0 });
      expect(await total()).toBe(`MemTotal: ${96 * 1024} kB`);
      expect(await shellIn(at, 'one')('cat /proc/self/mountinfo')).not.toContain(at.home.stateDirectory);
      await leaveNothing(at);
    });
  },
);
