/** What lies on the host outside of any test's directory: links, tables, namespaces, mounts, control groups, processes. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readdir, readFile, readlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { DIRECTORY_PREFIX, MARKER } from './worker.ts';

const run = promisify(execFile);

export interface FoundProcess {
  readonly pid: number;
  readonly commandLine: string;
  readonly parent: number;
  /** Value of the marker in its environment; undefined when it has none or it can't be read. */
  readonly worker: string | undefined;
  readonly workingDirectory: string;
}

const orEmpty = async (text: Promise<string>): Promise<string> => text.catch(() => '');

/** One live process, or undefined when it is gone or a zombie. */
async function inspectProcess(pid: number): Promise<FoundProcess | undefined> {
  const stat = await orEmpty(readFile(`/proc/${pid}/stat`, 'utf8'));
  // Field 2, the name, may hold anything, parentheses too (proc(5)).
  const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  if (state === undefined || parent === undefined || state === 'Z' || state === 'X') return undefined;
  const [environment, commandLine, workingDirectory] = await Promise.all([
    orEmpty(readFile(`/proc/${pid}/environ`, 'latin1')),
    orEmpty(readFile(`/proc/${pid}/cmdline`, 'utf8')),
    orEmpty(readlink(`/proc/${pid}/cwd`)),
  ]);
  const worker = environment
    .split('\0')
    .find((entry) => entry.startsWith(`${MARKER}=`))
    ?.slice(MARKER.length + 1);
  return {
    pid,
    parent: Number(parent),
    commandLine: commandLine.replaceAll('\0', ' ').trim(),
    worker,
    workingDirectory,
  };
}

/** Every live process but this one. */
export async function listProcesses(): Promise<readonly FoundProcess[]> {
  const pids = (await readdir('/proc'))
    .map(Number)
    .filter((pid) => Number.isInteger(pid) && pid !== process.pid);
  const found = await Promise.all(pids.map(inspectProcess));
  return found.filter((entry) => entry !== undefined);
}

/** Either end of a veth pair of Roost's; nothing but its name tells it from one of somebody else. */
const VETH = /^r[vp][a-z0-9]{5}/;

/** Bridges, taps and ends of veth pairs; whatever else there is, Roost did not make it. */
export async function listLinks(): Promise<readonly string[]> {
  const names = await readdir('/sys/class/net').catch(() => []);
  return names.filter(
    (name) =>
      VETH.test(name) ||
      ['bridge', 'tun_flags'].some((attribute) => existsSync(join('/sys/class/net', name, attribute))),
  );
}

export async function listTables(): Promise<readonly string[]> {
  // Without root or without nft there is none of ours either.
  const { stdout } = await run('nft', ['list', 'tables']).catch(() => ({ stdout: '' }));
  return stdout.split('\n').flatMap((line) => /^table (\S+ \S+)$/.exec(line)?.[1] ?? []);
}

export const listNamespaces = async (): Promise<readonly string[]> => readdir('/run/netns').catch(() => []);

export async function listMounts(): Promise<readonly string[]> {
  const lines = (await orEmpty(readFile('/proc/self/mountinfo', 'utf8'))).split('\n');
  // The place of named network namespaces is made by the first `ip netns add` on a host, and stays.
  return lines.flatMap((line) => line.split(' ')[4] ?? []).filter((path) => path !== '/run/netns');
}

/** Files that loop devices are made of. */
export async function listLoops(): Promise<readonly string[]> {
  const devices = (await readdir('/sys/block').catch(() => [])).filter((name) => name.startsWith('loop'));
  const files = await Promise.all(
    devices.map((name) => orEmpty(readFile(join('/sys/block', name, 'loop/backing_file'), 'utf8'))),
  );
  return files.map((file) => file.trim()).filter((file) => file !== '');
}

/** Control groups with our name in theirs, as deep as roost puts them. */
export async function listControlGroups(root = '/sys/fs/cgroup', depth = 4): Promise<readonly string[]> {
  const entries = await readdir(root, { withFileTypes: true }).catch(() => []);
  const found = await Promise.all(
    entries
      .filter((entry) => entry.isDirectory())
      .map(async ({ name }): Promise<readonly string[]> => {
        const path = join(root, name);
        const inside = depth > 1 ? await listControlGroups(path, depth - 1) : [];
        return name.includes('roost') || root.includes('roost') ? [path, ...inside] : inside;
      }),
  );
  return found.flat();
}

async function listTestDirectories(): Promise<readonly string[]> {
  return (await readdir(tmpdir())).filter((name) => name.startsWith(DIRECTORY_PREFIX));
}

/** Everything that a test could leave, each as one line for people. */
export async function describeHost(): Promise<ReadonlySet<string>> {
  const [links, tables, namespaces, mounts, loops, groups, directories, processes] = await Promise.all([
    listLinks(),
    listTables(),
    listNamespaces(),
    listMounts(),
    listLoops(),
    listControlGroups(),
    listTestDirectories(),
    listProcesses(),
  ]);
  const named = (kind: string, names: readonly string[]): readonly string[] =>
    names.map((name) => `${kind} ${name}`);
  return new Set([
    ...named('link', links),
    ...named('nft table', tables),
    ...named('network namespace', namespaces),
    ...named('mount', mounts),
    ...named('loop device', loops),
    ...named('control group', groups),
    ...named('directory', directories),
    ...processes
      .filter((process) => process.worker !== undefined)
      .map(({ pid, commandLine }) => `process ${pid}: ${commandLine}`),
  ]);
}

export const newSince = (before: ReadonlySet<string>, after: ReadonlySet<string>): readonly string[] =>
  [...after].filter((line) => !before.has(line));
