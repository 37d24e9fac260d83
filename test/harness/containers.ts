/** Containers in a daemon of a test: made of busybox, used, and looked at from the host by other means than Roost's own. */
import { execFile } from 'node:child_process';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, onTestFinished } from 'vitest';
import { writableHierarchies } from '../../lib/control-groups.ts';
import type { CommandInput } from '../../protocol/commands.ts';
import { MEBIBYTE } from '../../protocol/types.ts';
import { busyboxRoot } from './busybox-root.ts';
import { listControlGroups, listLoops, listProcesses } from './host-objects.ts';
import { type DaemonHome, type RealDaemon, type StartOptions, testDaemonHome } from './real-daemon.ts';
import { type RoostRun, runRoost } from './roost-cli.ts';
import { TestClient } from './test-client.ts';
import { makeDirectory } from './test-directory.ts';
import { trackInstance, worker } from './worker.ts';

const run = promisify(execFile);

type Boot = Extract<NonNullable<CommandInput<'guest-create'>['boot']>, { readonly kind: 'root' }>;
type Container = Partial<Omit<CommandInput<'guest-create'>, 'boot'>> & Partial<Omit<Boot, 'kind'>>;

/** The spec of one; what belongs to its boot may be given with the rest. */
export const container = (
  name: string,
  { image = 'busybox', init, nesting, keepCapabilities, dropCapabilities, ...more }: Container = {},
): CommandInput<'guest-create'> => ({
  name,
  driver: 'lxc',
  memoryBytes: 64 * MEBIBYTE,
  boot: { kind: 'root', image, init, nesting, keepCapabilities, dropCapabilities },
  ...more,
});

/** An init that says so when it is up, and does nothing else but what is said before. */
export const initOf = (...lines: readonly string[]): string[] => [
  '/bin/sh',
  '-c',
  [...lines, 'echo init is up', 'while :; do sleep 3600 & wait $!; done'].join('; '),
];

export interface ContainerHome {
  readonly home: DaemonHome;
  readonly daemon: RealDaemon;
}

/** A daemon of the test's own that has an image `busybox`. */
export const beginWithBusybox = async (options?: StartOptions): Promise<ContainerHome> => {
  const home = await testDaemonHome({ hasControlGroups: true });
  const daemon = await home.start(options);
  trackInstance((await daemon.client.call('query-daemon', {})).instance);
  const directory = await makeDirectory('busybox');
  const path = await busyboxRoot(directory);
  await daemon.succeed('image-import', { name: 'busybox', kind: 'root', path });
  await rm(directory, { recursive: true });
  return { home, daemon };
};

/** Creates and starts a container, and waits for its agent. */
export const startContainer = async (
  { daemon }: ContainerHome,
  name: string,
  more: Container = {},
): Promise<void> => {
  await daemon.succeed('guest-create', { ...container(name, more), start: true });
  await agentUp(daemon, name);
};

export const agentUp = async (daemon: RealDaemon, name: string): Promise<void> => {
  await daemon.guestWhen(name, ({ agent }) => agent.state === 'connected');
};

/** Runs programs in a container, as `roost exec` does. */
export const execIn =
  ({ home }: Pick<ContainerHome, 'home'>, name: string) =>
  (...argv: readonly string[]): Promise<RoostRun> =>
    runRoost(home, ['exec', name, ...argv]);

/** Runs lines of a shell in a container; they have to succeed. Gives what they wrote, without the last line's end. */
export const shellIn = (at: Pick<ContainerHome, 'home'>, name: string) => {
  const exec = execIn(at, name);
  return async (lines: string): Promise<string> => {
    const { code, stdout, stderr } = await exec('sh', '-c', lines);
    expect({ lines, code, stderr }).toEqual({ lines, code: 0, stderr: '' });
    return stdout.trimEnd();
  };
};

/** A program of liblxc, asked about the containers of a home; its locks are not left behind. */
export const liblxc = async (home: DaemonHome, program: string, ...args: string[]): Promise<string> => {
  onTestFinished(() => rm(join('/run/lxc/lock', worker().directory), { recursive: true, force: true }));
  return await home.run([program, '-P', join(home.stateDirectory, 'guests'), ...args]);
};

/** What `lxc-info` says of a container: `State`, `PID`, `IP`. */
export const lxcInfo = async (home: DaemonHome, id: string): Promise<ReadonlyMap<string, string>> => {
  const said = await liblxc(home, 'lxc-info', '-n', id);
  return new Map(
    said.split('\n').flatMap((line) => {
      const at = line.indexOf(':');
      return at < 0 ? [] : [[line.slice(0, at), line.slice(at + 1).trim()] as const];
    }),
  );
};

/** Number of a container's init on the host, by liblxc's word. */
export const initPidOf = async (home: DaemonHome, id: string): Promise<number> =>
  Number((await lxcInfo(home, id)).get('PID'));

/** Whether a process of the host runs; one that nobody has asked about how it ended does not. */
export const isAlive = async (pid: number): Promise<boolean> =>
  /^State:\t[^ZX]/m.test(await readFile(`/proc/${pid}/status`, 'utf8').catch(() => ''));

/** The file of a controller that holds a container, in whichever hierarchy that is. */
export const groupFile = async (
  { daemon }: Pick<ContainerHome, 'daemon'>,
  name: string,
  { v1, v2 }: { readonly v1: string; readonly v2: string },
): Promise<string> => {
  const { instance } = await daemon.client.call('query-daemon', {});
  const { id } = await daemon.guest(name);
  const mounts = await readFile('/proc/self/mountinfo', 'utf8');
  const controller = v1.slice(0, v1.indexOf('.'));
  const found = writableHierarchies(mounts, () => []).find((each) => each.controllers.includes(controller));
  const unified = mounts.split('\n').find((line) => line.includes(' - cgroup2 '));
  const [mount, file] = found ? [found.mount, v1] : [unified?.split(' ')[4] ?? '/sys/fs/cgroup', v2];
  return join(mount, `roost-${instance}-${id}`, 'payload', file);
};

const limitFiles = {
  memory: { v1: 'memory.limit_in_bytes', v2: 'memory.max' },
  processes: { v1: 'pids.max', v2: 'pids.max' },
  cpu: { v1: 'cpu.cfs_quota_us', v2: 'cpu.max' },
} as const;

/** What the kernel holds a container to; of the CPU it is the time in 100 ms, in µs. */
export const kernelLimits = async (
  at: Pick<ContainerHome, 'daemon'>,
  name: string,
): Promise<Readonly<Record<keyof typeof limitFiles, number>>> => {
  const read = async (limit: keyof typeof limitFiles): Promise<number> =>
    Number.parseInt(await readFile(await groupFile(at, name, limitFiles[limit]), 'utf8'), 10);
  return { memory: await read('memory'), processes: await read('processes'), cpu: await read('cpu') };
};

/** Every event of a daemon from now on; ends with the test. */
export const watchEvents = async ({ home }: Pick<ContainerHome, 'home'>): Promise<TestClient> => {
  const watcher = await TestClient.connect(join(home.runDirectory, 'roost.sock'));
  onTestFinished(() => watcher[Symbol.asyncDispose]());
  return watcher;
};

/** All that guests of a home have on the host, as the kernel's own lists tell it. */
export const tracesOf = async ({ home, daemon }: ContainerHome): Promise<readonly string[]> => {
  const { instance } = await daemon.client.call('query-daemon', {});
  const [links, rules, files] = await Promise.all([
    home.run(['ip', '-o', 'link']),
    home.run(['nft', 'list', 'ruleset']),
    run('find', [home.stateDirectory, home.runDirectory, '-path', '*/guests/*']),
  ]);
  const processes = (await listProcesses()).filter(
    ({ pid, commandLine }) => pid !== daemon.pid && commandLine.includes(home.stateDirectory),
  );
  return [
    ...links.split('\n').flatMap((line) => /^\d+: (r[vp][^:@]+)/.exec(line)?.[1] ?? []),
    ...[...rules.matchAll(/"(rv[^"*]+)"/g)].map(([, name]) => `rule for ${name}`),
    ...files.stdout.split('\n').filter(Boolean),
    ...processes.map(({ commandLine }) => commandLine),
    ...(await listControlGroups()).filter((path) => path.includes(`roost-${instance}-`)),
    ...(await listLoops()).filter((path) => path.includes(home.stateDirectory)),
  ];
};
