/**
 * Live processes of guests, whoever's they are: known by the lock that each has open under the same number, and by what
 * its command line says of the guest. A process that only has such arguments holds no lock.
 */
import { readdir, readFile, readlink, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { FoundProcess } from '../driver.ts';
import { isLockName, lockPath } from './guest-files.ts';
import { descriptorNumbers } from './process-interface.ts';
import { holds, identityOf } from './process-lock.ts';

/** What the kernel appends to the name of an open file that was unlinked. */
const UNLINKED = ' (deleted)';

export const commandLineOf = async (pid: number): Promise<readonly string[]> =>
  (await readFile(`/proc/${pid}/cmdline`, 'utf8')).split('\0').slice(0, -1);

/** The value after an argument. */
export const valueAfter = (argv: readonly string[], argument: string): string | undefined => {
  const at = argv.indexOf(argument);
  return at < 0 ? undefined : argv[at + 1];
};

/** Whose process it is by its command line; undefined for one that is no guest's. */
export type Identify = (argv: readonly string[]) => Pick<FoundProcess, 'guest' | 'name'> | undefined;

/**
 * The path of a lock that a process has open. What was opened by way of a mount that is gone since, as by an earlier run of a
 * service, is called from there: `/guests/ID.lock`. Our own is known by the file that it is.
 */
const pathOf = async (descriptor: string, expected: string): Promise<string> => {
  const [opened, ours] = await Promise.all([stat(descriptor), stat(expected).catch(() => undefined)]);
  if (ours && opened.dev === ours.dev && opened.ino === ours.ino) return expected;
  const path = await readlink(descriptor);
  return path.endsWith(UNLINKED) ? path.slice(0, -UNLINKED.length) : path;
};

const foundAt = async (
  pid: number,
  identify: Identify,
  stateRoot: string,
): Promise<FoundProcess | undefined> => {
  try {
    const whose = identify(await commandLineOf(pid));
    if (!whose) return undefined;
    const expected = lockPath({ stateDirectory: join(stateRoot, 'guests', whose.guest) });
    const lock = await pathOf(`/proc/${pid}/fd/${descriptorNumbers.lock}`, expected);
    if (!isLockName(lock)) return undefined;
    const process = identityOf(pid);
    return process && { process, ...whose, lock, holdsLock: await holds(pid, lock) };
  } catch {
    // Gone meanwhile, or none of ours to look at.
    return undefined;
  }
};

/** `stateRoot`: the daemon's state directory. */
export const findProcesses = async (
  identify: Identify,
  stateRoot: string,
): Promise<readonly FoundProcess[]> => {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const found = await Promise.all(pids.map((pid) => foundAt(pid, identify, stateRoot)));
  return found.filter((process) => process !== undefined);
};
