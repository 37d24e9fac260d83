/** Does an operation when its turn has come, new or left by an earlier daemon, as `settle` decides. */
import { RoostError } from '../../protocol/errors.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import type { Operations, RunOptions } from './operations.ts';
import { type LeftOver, settle } from './settle.ts';
import type { Step } from './steps.ts';

/** What is known of the subject besides the operation itself. */
export type Circumstances = Pick<LeftOver, 'hostBooted' | 'process'>;

const undone = (operation: OperationRecord, why: string): RoostError =>
  new RoostError('Cancelled', `${operation.kind} of ${operation.subject.name} was undone: ${why}`, {
    data: { operation: operation.id },
  });

/** What it failed with before the daemon ended, if it had. */
const whyUndone = (operation: OperationRecord, why: string): RoostError =>
  operation.state === 'undoing' && operation.error !== undefined
    ? RoostError.fromWire(operation.error)
    : undone(operation, why);

const givenUp = (operation: OperationRecord, why: string): RoostError =>
  new RoostError('Unavailable', `${operation.kind} of ${operation.subject.name} was given up: ${why}`, {
    hint: `Look at the ${operation.subject.kind} and ask again if it is still needed.`,
  });

export const carryOut = async (
  operations: Operations,
  operation: OperationRecord,
  steps: readonly Step[],
  options: RunOptions,
  circumstances: Circumstances = { hostBooted: false },
): Promise<OperationRecord> => {
  const { id, kind, state, cancelRequested } = operation;
  const settlement = settle({ kind, state, cancelRequested, ...circumstances });
  switch (settlement.kind) {
    case 'continue':
      return await operations.run(id, steps, options);
    case 'undo':
      return await operations.undo(id, steps, whyUndone(operation, settlement.why), options);
    case 'succeed':
      return await operations.endWhenRecorded(id, 'succeeded', undefined, options.finish);
    case 'fail':
      return await operations.endWhenRecorded(
        id,
        'failed',
        givenUp(operation, settlement.why),
        options.finish,
      );
  }
};
