/**
 * Live processes of guests, whoever's they are: known by the lock that each has open under the same number, and by what
 * its command line says of the guest. A process that only has such arguments holds no lock.
 */
import { readdir, readFile, readlink } from 'node:fs/promises';
import type { FoundProcess } from '../driver.ts';
import { isLockName } from './guest-files.ts';
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

const foundAt = async (pid: number, identify: Identify): Promise<FoundProcess | undefined> => {
  try {
    const [argv, opened] = await Promise.all([
      commandLineOf(pid),
      readlink(`/proc/${pid}/fd/${descriptorNumbers.lock}`),
    ]);
    const whose = identify(argv);
    const lock = opened.endsWith(UNLINKED) ? opened.slice(0, -UNLINKED.length) : opened;
    if (!whose || !isLockName(lock)) return undefined;
    const process = identityOf(pid);
    return process && { process, ...whose, lock, holdsLock: await holds(pid, lock) };
  } catch {
    // Gone meanwhile, or none of ours to look at.
    return undefined;
  }
};

export const findProcesses = async (identify: Identify): Promise<readonly FoundProcess[]> => {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const found = await Promise.all(pids.map((pid) => foundAt(pid, identify)));
  return found.filter((process) => process !== undefined);
};
