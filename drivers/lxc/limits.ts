/**
 * What holds a container to its limits: files of its control groups and what is in them, for version 1 and version 2
 * (cgroups(7), the kernel's admin-guide/cgroup-v1 and cgroup-v2.rst). Pure.
 */
import type { GuestLimits } from '../driver.ts';

/** One of the files that limit a group: `memory` and `limit_in_bytes` are memory.limit_in_bytes. */
export interface LimitFile {
  readonly version: 1 | 2;
  readonly controller: string;
  readonly file: string;
  readonly value: string;
}

/** Which version limits what: the controllers that the host has, by the hierarchy that they are in. */
export type Controllers = ReadonlyMap<string, 1 | 2>;

/** Processes and threads of a container that was given no number: enough for a server, too few for a fork bomb. */
export const DEFAULT_PROCESSES = 32_768;

const PERIOD_US = 100_000;
const NO_LIMIT = { 1: '0', 2: 'max' } as const;

const memoryFiles = (bytes: number, controllers: Controllers): readonly LimitFile[] => {
  const controller = 'memory';
  if (controllers.get(controller) === 2)
    return [
      { version: 2, controller, file: 'max', value: String(bytes) },
      { version: 2, controller, file: 'swap.max', value: '0' },
    ];
  return [
    { version: 1, controller, file: 'limit_in_bytes', value: String(bytes) },
    // Of memory and swap together: none is left for swap.
    { version: 1, controller, file: 'memsw.limit_in_bytes', value: String(bytes) },
  ];
};

const cpuFiles = (cpus: number, controllers: Controllers): readonly LimitFile[] => {
  const controller = 'cpu';
  const quota = cpus * PERIOD_US;
  if (controllers.get(controller) === 2)
    return [{ version: 2, controller, file: 'max', value: `${quota} ${PERIOD_US}` }];
  return [
    { version: 1, controller, file: 'cfs_period_us', value: String(PERIOD_US) },
    { version: 1, controller, file: 'cfs_quota_us', value: String(quota) },
  ];
};

/** `device`: the disk that the container's files are on, as `254:0`; undefined where there is none to limit. */
const storageFiles = (
  { readBytesPerSecond, writeBytesPerSecond }: GuestLimits['limits'],
  device: string | undefined,
  controllers: Controllers,
): readonly LimitFile[] => {
  if (device === undefined) return [];
  if (controllers.get('io') === 2) {
    const read = readBytesPerSecond ?? NO_LIMIT[2];
    const written = writeBytesPerSecond ?? NO_LIMIT[2];
    return [{ version: 2, controller: 'io', file: 'max', value: `${device} rbps=${read} wbps=${written}` }];
  }
  return (
    [
      ['read_bps_device', readBytesPerSecond],
      ['write_bps_device', writeBytesPerSecond],
    ] as const
  ).map(([name, bytes]) => ({
    version: 1,
    controller: 'blkio',
    file: `throttle.${name}`,
    value: `${device} ${bytes ?? NO_LIMIT[1]}`,
  }));
};

/** All limits of a container, in the order in which they are set on a group that has none. */
export const limitFiles = (
  { memoryBytes, cpus, limits }: GuestLimits,
  controllers: Controllers,
  device?: string,
): readonly LimitFile[] =>
  [
    ...memoryFiles(memoryBytes, controllers),
    ...cpuFiles(cpus, controllers),
    {
      version: controllers.get('pids') ?? 1,
      controller: 'pids',
      file: 'max',
      value: String(limits.processes ?? DEFAULT_PROCESSES),
    } as const,
    ...storageFiles(limits, device, controllers),
  ].filter(({ controller }) => controllers.has(controller));

/**
 * The order for a group that has limits: that of memory never exceeds that of memory and swap together, so that the larger
 * one is set first when they grow.
 */
export const inOrder = (files: readonly LimitFile[], memoryGrows: boolean): readonly LimitFile[] => {
  if (!memoryGrows) return files;
  const together = files.filter(({ file }) => file.startsWith('memsw.'));
  return [...together, ...files.filter((each) => !together.includes(each))];
};
