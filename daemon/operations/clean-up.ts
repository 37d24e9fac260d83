/**
 * Clean-up: work that nobody can cancel, because what it takes back must not stay. It has an owner and an end all the
 * same: it is given up after a time, and when the daemon stops, whether it listens to its signal or not.
 */
import { firstOf, waitOrAbort } from '../../lib/abort.ts';
import type { Clock } from '../../lib/clock.ts';
import { RoostError } from '../../protocol/errors.ts';

/** How long a piece of clean-up may take. Tools of the host have their own minute; none needs a second in health. */
export const CLEAN_UP_MS = 30_000;

export interface CleanUpOwner {
  readonly clock: Clock;
  /** Aborts when the daemon stops. */
  readonly stopping: AbortSignal;
}

/** Errors: DeadlineExceeded when it has not ended in time; the work's own. What it does later is nobody's. */
export const cleanUp = async <T>(
  { clock, stopping }: CleanUpOwner,
  what: string,
  work: (signal: AbortSignal) => Promise<T>,
  limitMs = CLEAN_UP_MS,
): Promise<T> => {
  const over = new AbortController();
  const cancelTimer = clock.after(limitMs, () =>
    over.abort(
      new RoostError(
        'DeadlineExceeded',
        `${what} has not ended within ${limitMs / 1000} s and was given up`,
        {
          data: { what, limitMs },
          hint: 'Something of the host holds it; fsck names what is left.',
        },
      ),
    ),
  );
  using both = firstOf(over.signal, stopping);
  try {
    return await waitOrAbort(work(both.signal), both.signal);
  } finally {
    cancelTimer();
  }
};
