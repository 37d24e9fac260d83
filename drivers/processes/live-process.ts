/** The process that a guest has at this moment, by its lock; and how it is told that there is none. */
import { RoostError } from '../../protocol/errors.ts';
import type { GuestPlace } from '../driver.ts';
import { lockPath } from './guest-files.ts';
import { GuestProcess } from './guest-process.ts';
import { lockHolder, probeLock } from './process-lock.ts';

/** The live process of a guest; undefined when there is none. Errors: Unavailable when that cannot be told. */
export const adopt = async (place: GuestPlace): Promise<GuestProcess | undefined> => {
  if ((await probeLock(lockPath(place))) === 'gone') return undefined;
  const holder = await lockHolder(lockPath(place));
  const process = holder && (await GuestProcess.adopt(holder, place.runDirectory));
  if (process || (await probeLock(lockPath(place))) === 'gone') return process;
  throw unknownError(place);
};

export const goneError = (place: GuestPlace): RoostError =>
  new RoostError('NotFound', `Guest ${place.id} has no live process`, {
    data: { guest: place.id },
    hint: 'Start it.',
  });

export const unknownError = (place: GuestPlace): RoostError =>
  new RoostError('Unavailable', `It cannot be told whether the process of guest ${place.id} lives`, {
    data: { guest: place.id, lock: lockPath(place) },
    hint: 'Look at the lock file and at who has it open.',
  });
