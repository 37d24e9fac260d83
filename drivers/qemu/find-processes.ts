/**
 * Live QEMUs that a launcher of Roost made, whoever's they are: known by the lock that each has open under the same
 * number, and by the guest's id on its command line. A process that only has such arguments holds no lock.
 */
import { readdir, readFile, readlink } from 'node:fs/promises';
import { guestId } from '../../protocol/types.ts';
import type { FoundProcess } from '../driver.ts';
import { isLockName } from './guest-files.ts';
import { descriptorNumbers } from './launch-args.ts';
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

const nameIn = (argv: readonly string[]): string =>
  /(?:^|,)guest=([^,]*)/.exec(valueAfter(argv, '-name') ?? '')?.[1] ?? '';

/** The process, if it is one of a launcher. */
export const foundAt = async (pid: number): Promise<FoundProcess | undefined> => {
  try {
    const [argv, opened] = await Promise.all([
      commandLineOf(pid),
      readlink(`/proc/${pid}/fd/${descriptorNumbers.lock}`),
    ]);
    const guest = guestId.safeParse(valueAfter(argv, '-uuid'));
    const lock = opened.endsWith(UNLINKED) ? opened.slice(0, -UNLINKED.length) : opened;
    if (!guest.success || !isLockName(lock)) return undefined;
    const process = identityOf(pid);
    return (
      process && { process, guest: guest.data, name: nameIn(argv), lock, holdsLock: await holds(pid, lock) }
    );
  } catch {
    // Gone meanwhile, or none of ours to look at.
    return undefined;
  }
};

export const findProcesses = async (): Promise<readonly FoundProcess[]> => {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const found = await Promise.all(pids.map(foundAt));
  return found.filter((process) => process !== undefined);
};
