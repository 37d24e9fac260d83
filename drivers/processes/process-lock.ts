/**
 * Whether a guest's process lives, and which one it is. The process holds a lock from before it becomes QEMU until
 * the kernel closes its last descriptor, so that the lock alone tells alive from gone, and two processes of one guest
 * can never be. Which process it is, the launcher has written into the locked file; since the guest's process can
 * write there too, what it says counts only if the process named has that very file open.
 *
 * Files of /proc and of the run directory are in memory: to read one takes some ten microseconds, and five times as long
 * by the detour over a thread that the event loop is spared of what blocks it.
 */
import { closeSync, readFileSync, type Stats, statSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { runTool } from '../../lib/run-tool.ts';
import { isTurnOver, nextTurn } from '../../lib/turn.ts';
import { lockFile } from '../../native/index.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { Probe, ProcessIdentity } from '../driver.ts';
import { descriptorNumbers } from './process-interface.ts';

const LOCK_FILE_MODE = 0o600;
/** A process that is killed may have to wait for a disk first. */
const FREE_TIMEOUT_MS = 10_000;

/** Asks the lock. Nothing is waited for between taking and giving it back, so nobody else here ever meets it. */
export const probeLock = async (path: string): Promise<Probe> => {
  try {
    statSync(path);
    const fd = lockFile(path);
    if (fd === 'held') return 'alive';
    closeSync(fd);
    return 'gone';
  } catch (error) {
    return isMissing(error) ? 'gone' : 'unknown';
  }
};

/**
 * Waits until a lock is free whose holder is gone: a child that it was about to execute has the lock still, until it dies with
 * it. By flock(1), which waits in the kernel. Errors: HostError when that takes unreasonably long.
 */
export const whenFree = async (path: string): Promise<void> => {
  if ((await probeLock(path)) !== 'alive') return;
  try {
    // Bounded by itself, and what it belongs to cannot be given up.
    const { signal } = new AbortController();
    await runTool(['flock', '--shared', path, 'true'], { signal, timeoutMs: FREE_TIMEOUT_MS });
  } catch (error) {
    throw new RoostError('HostError', `The lock ${path} is held still, and whoever should hold it is gone`, {
      cause: error,
      data: { path },
      hint: 'See by `lsof` which process has it open.',
    });
  }
};

/** Takes the lock for a new process: its descriptor is the process's to inherit. `held`: there is one already. */
export const takeLock = (path: string): number | 'held' => lockFile(path, { mode: LOCK_FILE_MODE });

/** The process that holds the lock; undefined when it is gone or cannot be told. */
export const lockHolder = async (path: string): Promise<ProcessIdentity | undefined> => {
  const named = namedHolder(path);
  if (named && (await holds(named.pid, path)) && isSame(named)) return named;
  const pids = (await readdir('/proc'))
    .map(Number)
    .filter((pid) => Number.isInteger(pid) && pid !== process.pid);
  for (const pid of pids) if (await holds(pid, path)) return identityOf(pid);
  return undefined;
};

/** Identity of the process that has this pid now; undefined when there is none. */
export const identityOf = (pid: number): ProcessIdentity | undefined => {
  try {
    const startTicks = parseStartTicks(readFileSync(`/proc/${pid}/stat`, 'utf8'));
    return startTicks === undefined ? undefined : { pid, startTicks, bootId: currentBootId() };
  } catch {
    return undefined;
  }
};

/** Whether the pid still is that process's. */
export const isSame = (identity: ProcessIdentity): boolean => {
  const now = identityOf(identity.pid);
  return now?.startTicks === identity.startTicks && now.bootId === identity.bootId;
};

/** Field 22 of /proc/PID/stat (proc(5)); the name, field 2, may hold anything. */
export const parseStartTicks = (text: string): number | undefined => {
  const field = text.slice(text.lastIndexOf(')') + 2).split(' ')[22 - 3];
  return field !== undefined && /^\d+$/.test(field) ? Number(field) : undefined;
};

/** The line that the launcher wrote: `PID STARTTICKS BOOTID`. */
export const parseHolder = (text: string): ProcessIdentity | undefined => {
  const match = /^(\d{1,10}) (\d{1,16}) ([0-9a-f-]{36})\n$/.exec(text);
  const [, pid, startTicks, bootId] = match ?? [];
  if (pid === undefined || startTicks === undefined || bootId === undefined) return undefined;
  return { pid: Number(pid), startTicks: Number(startTicks), bootId };
};

const namedHolder = (path: string): ProcessIdentity | undefined => {
  try {
    return parseHolder(readFileSync(path, 'utf8'));
  } catch {
    return undefined;
  }
};

/** Whether a process has that very file open: under the number it was launched with, or as it was given it later. */
export const holds = async (pid: number, path: string): Promise<boolean> => {
  try {
    const lock = statSync(path);
    if (isOpenAs(pid, String(descriptorNumbers.lock), lock)) return true;
    for (const number of await readdir(`/proc/${pid}/fd`)) {
      if (isTurnOver()) await nextTurn();
      if (isOpenAs(pid, number, lock)) return true;
    }
  } catch {
    // No such file, or no such process.
  }
  return false;
};

const isOpenAs = (pid: number, number: string, { dev, ino }: Stats): boolean => {
  try {
    const opened = statSync(`/proc/${pid}/fd/${number}`);
    return opened.dev === dev && opened.ino === ino;
  } catch {
    return false;
  }
};

let bootId: string | undefined;

const currentBootId = (): string => {
  bootId ??= readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  return bootId;
};

const isMissing = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && error.code === 'ENOENT';
