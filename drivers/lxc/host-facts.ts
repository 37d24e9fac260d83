/** What the host gives to containers: liblxc, control groups, filters; looked at when it is needed, since it may change. */
import { existsSync, readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Hierarchy, writableHierarchies } from '../../lib/control-groups.ts';
import { runTool } from '../../lib/run-tool.ts';
import type { ContainerConfigInput } from './container-config.ts';
import type { Controllers } from './limits.ts';
import { chooseLower, type MappedIds, type RootPlaces, tryMappedIds, whyNoLower } from './mapped-ids.ts';

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

/**
 * Whether there is a security module that gives programs profiles by their files, as AppArmor and SELinux do: what is executed
 * under another profile loses the signal that is to end it with its parent.
 */
export const hasSecurityModule = (): boolean => {
  try {
    return readFileSync('/proc/self/attr/current').length > 0;
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

/** What a host has for containers, in the form of `query-host`. */
export interface ContainersOfHost {
  readonly available: boolean;
  /** What is missing, where they are not available. */
  readonly why?: string;
  /** Version of liblxc; absent where it is not installed. */
  readonly liblxc?: string;
  /** Of the hierarchies in which limits are set. */
  readonly cgroups: 'v1' | 'v2';
  readonly lxcfs: boolean;
  readonly apparmor: boolean;
  /** Whether the kernel maps the ids of a squashfs, which an image is; where it does not, images are unpacked. */
  readonly idmappedSquashfs: boolean;
}

export interface HostFacts {
  readonly isRoot: boolean;
  readonly liblxc: string | undefined;
  readonly mapped: MappedIds;
  readonly places: RootPlaces;
  readonly controllers: Controllers;
  readonly protections: Protections;
}

const missing = ({ isRoot, liblxc, mapped, places, controllers }: HostFacts): string | undefined => {
  if (liblxc === undefined) return "no lxc-start can be run: install Debian's package lxc";
  if (!isRoot) return 'the daemon does not run as root';
  if (chooseLower(mapped) === undefined) return whyNoLower(mapped, places);
  return controllers.size === 0 ? 'no control groups can be made here' : undefined;
};

/** Pure. */
export const describeFacts = (facts: HostFacts): ContainersOfHost => {
  const { liblxc, mapped, controllers, protections: found } = facts;
  const why = missing(facts);
  return {
    available: why === undefined,
    ...(why === undefined ? {} : { why }),
    ...(liblxc === undefined ? {} : { liblxc }),
    cgroups: controllers.get('memory') === 1 ? 'v1' : 'v2',
    lxcfs: found.lxcfsPath !== undefined,
    apparmor: found.hasAppArmor,
    idmappedSquashfs: mapped.squashfs,
  };
};

export const describeContainers = async (
  { wardenPath, places }: { readonly wardenPath: string; readonly places: RootPlaces },
  signal: AbortSignal,
): Promise<ContainersOfHost> =>
  describeFacts({
    isRoot: process.getuid?.() === 0,
    liblxc: await liblxcVersion(signal).catch(() => {
      signal.throwIfAborted();
      return undefined;
    }),
    mapped: await tryMappedIds(wardenPath, places, signal),
    places,
    controllers: controllersIn(hierarchies()),
    protections: protections(),
  });

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
