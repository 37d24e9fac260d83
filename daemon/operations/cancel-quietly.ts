/** Cancels an operation for somebody who has no answer to wait for: one that has ended by now is as well. */
import { toRoostError } from '../../protocol/errors.ts';
import type { OperationId } from '../../protocol/types.ts';
import type { Operations } from './operations.ts';

export const cancelQuietly = (operations: Operations, id: OperationId): void => {
  try {
    operations.cancel(id);
  } catch (error) {
    if (toRoostError(error).class !== 'FailedPrecondition') throw error;
  }
};
