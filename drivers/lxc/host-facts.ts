/** What the host gives to containers: liblxc, control groups, filters; looked at when it is needed, since it may change. */
import { existsSync, readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Hierarchy, writableHierarchies } from '../../lib/control-groups.ts';
import { runTool } from '../../lib/run-tool.ts';
import type { ContainerConfigInput } from './container-config.ts';
import type { Controllers } from './limits.ts';

const LXC_START = '/usr/bin/lxc-start';
const SECCOMP_PATH = '/usr/share/lxc/config/common.seccomp';
const LXCFS_PATH = '/var/lib/lxcfs';
const VERSION_TIMEOUT_MS = 10_000;

/** Hierarchies of control groups that containers can have groups in. */
export const hierarchies = (): readonly Hierarchy[] =>
  writableHierarchies(readFileSync('/proc/self/mountinfo', 'utf8'), (mount) => {
    try {
      return readFileSync(join(mount, 'cgroup.controllers'), 'utf8').trim().split(/\s+/).filter(Boolean);
    } catch {
      return [];
    }
  });

/** Which version has each controller; a controller of version 1 is in no other. */
export const controllersIn = (found: readonly Hierarchy[]): Controllers => {
  const named = found.toSorted((a, b) => b.version - a.version);
  return new Map(
    named.flatMap(({ version, controllers }) => controllers.map((name) => [name, version] as const)),
  );
};

export type Protections = Pick<ContainerConfigInput, 'seccompPath' | 'hasAppArmor' | 'lxcfsPath'>;

const hasAppArmor = (): boolean => {
  try {
    return readFileSync('/sys/module/apparmor/parameters/enabled', 'utf8').startsWith('Y');
  } catch {
    return false;
  }
};

/** What stands between a container and the host besides its namespaces, as far as it is here. */
export const protections = (): Protections => ({
  ...(existsSync(SECCOMP_PATH) ? { seccompPath: SECCOMP_PATH } : {}),
  hasAppArmor: hasAppArmor(),
  // The mount point is there without it, and empty.
  ...(existsSync(join(LXCFS_PATH, 'proc/meminfo')) ? { lxcfsPath: LXCFS_PATH } : {}),
});

/** Whether containers can be run at all. */
export const hasLiblxc = (): boolean => existsSync(LXC_START);

/** Version of liblxc; undefined where it is not installed. */
export const liblxcVersion = async (signal: AbortSignal): Promise<string | undefined> => {
  if (!hasLiblxc()) return undefined;
  const { stdout } = await runTool([LXC_START, '--version'], { signal, timeoutMs: VERSION_TIMEOUT_MS });
  return stdout.trim();
};

/**
 * The disk that has a path's files, as control groups name it: `254:0`. Undefined where they are on none, or on a file
 * system of several.
 */
export const diskOf = async (device: number): Promise<string | undefined> => {
  // makedev(3) of glibc.
  const major = Number((BigInt(device) >> 8n) & 0xfffn);
  const minor = (device & 0xff) | Number((BigInt(device) >> 12n) & 0xfff00n);
  if (major === 0) return undefined;
  const path = `/sys/dev/block/${major}:${minor}`;
  const isPartition = existsSync(join(path, 'partition'));
  return (
    (await readFile(join(path, isPartition ? '../dev' : 'dev'), 'utf8').catch(() => '')).trim() || undefined
  );
};
