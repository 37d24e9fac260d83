/**
 * Gives a live process its lock again, after somebody took the file away by whose lock its life is known. The file cannot
 * be had back: nothing links to it any more. So a new one is locked here, and its descriptor handed to the process, which
 * keeps it until its end as it did the first.
 */
import { closeSync, ftruncateSync, writeSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { RoostError } from '../../protocol/errors.ts';
import type { ProcessIdentity } from '../driver.ts';
import { holds, takeLock } from './process-lock.ts';

/** Name of the descriptor in QEMU. */
const DESCRIPTOR = 'roost-lock';

/** Done already when the process holds it. Errors: FailedPrecondition when another process does; those of `send`. */
export const relock = async (
  path: string,
  identity: ProcessIdentity,
  send: (name: string, descriptor: number) => Promise<void>,
): Promise<void> => {
  if (await holds(identity.pid, path)) return;
  const lock = takeLock(path);
  if (lock === 'held')
    throw new RoostError('FailedPrecondition', `Another process than ${identity.pid} holds ${path}`, {
      data: { path, pid: identity.pid },
      hint: 'Two processes run one guest: end the one that is not wanted.',
    });
  try {
    ftruncateSync(lock, 0);
    writeSync(lock, `${identity.pid} ${identity.startTicks} ${identity.bootId}\n`, 0);
    await send(DESCRIPTOR, lock);
  } catch (error) {
    await rm(path, { force: true });
    throw error;
  } finally {
    closeSync(lock);
  }
};
