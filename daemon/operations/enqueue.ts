/** What images and networks have in common: an accepted operation waits in a mailbox and is carried out in its turn. */
import type { Mailbox } from '../../lib/mailbox.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { Accepted } from '../../protocol/operation.ts';
import type { OperationId } from '../../protocol/types.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import { carryOut } from './carry-out.ts';
import type { Operations, RunOptions } from './operations.ts';
import type { Step } from './steps.ts';

/** How an operation is carried out. */
export interface OperationWork {
  readonly steps: readonly Step[];
  readonly options: RunOptions;
}

/** Made of the record alone, so that a later daemon makes it too; undefined when what it is about is gone. */
export type WorkOf = (record: OperationRecord) => OperationWork | undefined;

const perform = async (operations: Operations, { id }: OperationRecord, workOf: WorkOf): Promise<void> => {
  const record = operations.record(id);
  if (!record || record.endedAt !== undefined) return;
  const work = workOf(record);
  const told = operations.toldBefore(id);
  if (told) await operations.endWhenRecorded(id, 'cancelled', told, work?.options.finish);
  else if (work) await carryOut(operations, record, work.steps, work.options);
  else {
    const { kind, name } = record.subject;
    operations.end(id, 'failed', new RoostError('NotFound', `The ${kind} ${name} is gone`));
  }
};

/** After the commit that accepted it. One that has ended or waits already, as for a key used again, stays as it is. */
export const enqueue = (
  operations: Operations,
  record: OperationRecord,
  mailbox: () => Mailbox,
  workOf: WorkOf,
  /** Does the work when the host bears it. */
  inTurn: (id: OperationId, work: () => Promise<void>) => Promise<unknown> = (_id, work) => work(),
): Accepted => {
  const accepted = { operation: record.id, id: record.subject.id };
  const withdraw = (): void => void operations.withdrawn(record.id, workOf(record)?.options.finish);
  if (!operations.admitted(record, withdraw)) return accepted;
  mailbox()
    .post(async () => {
      // One that was cancelled while it waited in the mailbox has ended.
      if (operations.record(record.id)?.endedAt !== undefined) return;
      await inTurn(record.id, () => perform(operations, record, workOf));
    })
    .catch((error: unknown) => operations.unrecorded(record.id, error));
  return accepted;
};
