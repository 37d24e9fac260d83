/**
 * What becomes of an operation that a daemon left unfinished: a pure table. `continue` does all its steps again from
 * the first (each may run twice), `undo` takes back what it may have done, `succeed` and `fail` only write down the end.
 */
import type { OperationState } from '../../protocol/operation.ts';

export type Settlement =
  | { readonly kind: 'continue' }
  | { readonly kind: 'undo'; readonly why: string }
  | { readonly kind: 'succeed' }
  | { readonly kind: 'fail'; readonly why: string };

export interface LeftOver {
  readonly kind: string;
  readonly state: OperationState;
  readonly cancelRequested: boolean;
  /** Whether the host has booted since the operation was accepted. */
  readonly hostBooted: boolean;
  /** For a guest: how its process was found. */
  readonly process?: 'alive' | 'gone' | 'unknown' | 'shut-down-by-guest';
}

/** Kinds whose second run after a crash could surprise: it is not known whether the first was seen by the guest. */
const ONCE_ONLY: ReadonlySet<string> = new Set(['guest-reset']);

/** Kinds that begin a process, which a boot of the host has ended. */
const MAKES_PROCESS: ReadonlySet<string> = new Set(['guest-start', 'guest-prepare', 'template-create']);

/** Kinds that tell a running guest something: after a boot of the host there is none to tell. */
const ONE_WORD: ReadonlySet<string> = new Set([
  'guest-pause',
  'guest-resume',
  'guest-reset',
  'guest-fsfreeze-freeze',
  'guest-fsfreeze-thaw',
]);

/** Kinds that cannot be taken back once begun: cancelling them has no effect then. */
const NO_WAY_BACK: ReadonlySet<string> = new Set([
  'guest-delete',
  'guest-disk-resize',
  'guest-disk-delete',
  'image-delete',
  'image-prune',
  'network-delete',
]);

export const settle = (left: LeftOver): Settlement => {
  switch (left.state) {
    case 'succeeded':
    case 'failed':
    case 'cancelled':
      return { kind: 'succeed' };
    case 'undoing':
      return { kind: 'undo', why: 'it was being undone when the daemon ended' };
    case 'queued':
    case 'running':
      break;
  }
  if (left.cancelRequested && !(left.state === 'running' && NO_WAY_BACK.has(left.kind)))
    return { kind: 'undo', why: 'it was cancelled' };
  if (left.hostBooted && MAKES_PROCESS.has(left.kind))
    return { kind: 'undo', why: 'the host booted meanwhile; after a boot only autostart starts guests' };
  if (left.hostBooted && ONE_WORD.has(left.kind)) return { kind: 'fail', why: 'the host booted meanwhile' };
  if (left.kind === 'guest-start' && left.state === 'running' && left.process === 'shut-down-by-guest')
    return { kind: 'succeed' };
  if (ONCE_ONLY.has(left.kind) && left.state === 'running')
    return { kind: 'fail', why: 'the daemon ended before it was known whether the guest was told' };
  return { kind: 'continue' };
};
