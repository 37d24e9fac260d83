/**
 * Work that reads what a container has written. It takes the turn of the container, which does not run then, and is not
 * started before the work is done.
 */
import { deferred, waitOrAbort } from '../../lib/abort.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { OperationId } from '../../protocol/types.ts';
import type { Guest } from './guest.ts';

/** Errors: Unsupported for a machine. `what` completes "only a container is …". */
export const requireRooted = ({ name, record }: Guest, what: string, hint: string): void => {
  if (record.spec.boot.kind === 'root') return;
  throw new RoostError('Unsupported', `Guest ${name} is a machine: only a container is ${what}`, {
    data: { guest: name },
    hint,
  });
};

const requireAtRest = (guest: Guest): void => {
  const { name, state } = guest;
  if (guest.removed)
    throw new RoostError(guest.removal.as, `Guest ${name} is gone: ${guest.removal.why}`, {
      data: { guest: name },
    });
  if (guest.isLive())
    throw new RoostError('FailedPrecondition', `Guest ${name} is ${state}`, {
      data: { guest: name, state },
      hint: 'Stop it first, and ask again.',
    });
};

/**
 * Begins when all that was asked of the guest before is done. Errors: FailedPrecondition where it runs then, NotFound where it is
 * gone; those of the work.
 */
export const whileAtRest = async <T>(
  guest: Guest,
  { operation, signal }: { readonly operation: OperationId; readonly signal: AbortSignal },
  work: () => Promise<T>,
): Promise<T> => {
  const held = deferred<void>();
  const over = deferred<void>();
  void guest.mailbox.post(async () => {
    held.resolve();
    await over.promise;
  });
  try {
    await waitOrAbort(held.promise, signal);
    guest.heldBy = operation;
    requireAtRest(guest);
    return await work();
  } finally {
    if (guest.heldBy === operation) guest.heldBy = undefined;
    over.resolve();
  }
};
