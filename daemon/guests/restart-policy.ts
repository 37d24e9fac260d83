/**
 * Whether a guest that ended by itself is started again, and when: pure. Docker's rule of doubling delays, with the
 * count beginning anew after a run that lasted.
 */
import type { GuestSpec, GuestTarget } from '../../protocol/guest.ts';

/** A run at least this long ends a row of failures. */
export const LASTING_RUN_MS = 10_000;

export interface EndedRun {
  readonly cause: 'guest-shutdown' | 'asked' | 'killed' | 'crashed' | 'unknown';
  readonly target: GuestTarget;
  /** Restarts in a row before this end. */
  readonly restartCount: number;
  readonly ranMs: number;
  /** Its main program ended by a signal, or with another exit code than 0. */
  readonly programFailed?: boolean;
}

export type Decision =
  | { readonly kind: 'rest'; readonly why: string }
  | { readonly kind: 'restart'; readonly delayMs: number; readonly attempt: number };

export const decideRestart = (policy: GuestSpec['restartPolicy'], run: EndedRun): Decision => {
  if (run.target === 'stopped') return { kind: 'rest', why: 'it is to be stopped' };
  if (run.cause === 'asked') return { kind: 'rest', why: 'somebody ended it on purpose' };
  switch (policy.when) {
    case 'never':
      return { kind: 'rest', why: 'its restart policy is never' };
    case 'on-failure':
      if (run.cause === 'guest-shutdown' && run.programFailed !== true)
        return { kind: 'rest', why: 'it shut itself down' };
      break;
    case 'always':
      break;
  }
  const before = run.ranMs >= LASTING_RUN_MS ? 0 : run.restartCount;
  const delayMs = Math.min(policy.delayMs * 2 ** Math.min(before, 40), policy.maxDelayMs);
  return { kind: 'restart', delayMs, attempt: before + 1 };
};
