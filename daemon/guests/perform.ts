/** Does one operation of a guest when its turn has come; also one that an earlier daemon left. */
import { RoostError } from '../../protocol/errors.ts';
import type { OperationId } from '../../protocol/types.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import { carryOut } from '../operations/carry-out.ts';
import type { RunOptions } from '../operations/operations.ts';
import type { Step } from '../operations/steps.ts';
import { adoption } from './adoption.ts';
import { diskAttachment, nicAttachment } from './attach.ts';
import { cloning } from './cloning.ts';
import { creation } from './creation.ts';
import { deletion } from './deletion.ts';
import { diskDeletion, diskDetachment, nicDetachment } from './detach.ts';
import { freeze, thaw } from './freeze.ts';
import type { Guest } from './guest.ts';
import { isStart } from './guest-status.ts';
import { liveSourceOf, liveTemplateCreation, withoutSource } from './live-template.ts';
import { mediumChange } from './medium.ts';
import { preparation } from './preparation.ts';
import { resetState } from './reset-state.ts';
import { diskResizing } from './resize-disk.ts';
import { start } from './start.ts';
import { stop } from './stop.ts';
import { templateCreation } from './template.ts';
import { verb } from './verb.ts';

/** The steps of an operation and what goes with them. */
export interface Procedure extends RunOptions {
  readonly steps: readonly Step[];
  /** When it is cancelled before its turn has come: nothing was begun, but what was recorded at acceptance may have to go. */
  readonly withdraw?: () => void;
  /** After the end is recorded. */
  readonly after?: (ended: OperationRecord) => Promise<void> | void;
}

const procedureOf = (guest: Guest, operation: OperationRecord): Procedure => {
  switch (operation.kind) {
    case 'guest-create':
      return creation(guest, operation);
    case 'guest-clone':
      return cloning(guest, operation);
    case 'guest-prepare':
      return preparation(guest, operation);
    case 'guest-start':
      return start(guest, operation);
    case 'template-create':
      return templateOf(guest, operation);
    case 'guest-stop':
      return stop(guest, operation);
    case 'guest-delete':
      return deletion(guest, operation);
    case 'guest-adopt':
      return adoption(guest, operation);
    case 'guest-reset-state':
      return resetState(guest, operation);
    case 'guest-pause':
      return verb(guest, 'pause');
    case 'guest-resume':
      return verb(guest, 'resume');
    case 'guest-reset':
      return verb(guest, 'reset');
    case 'guest-disk-attach':
      return diskAttachment(guest, operation);
    case 'guest-disk-detach':
      return diskDetachment(guest, operation);
    case 'guest-disk-resize':
      return diskResizing(guest, operation);
    case 'guest-disk-delete':
      return diskDeletion(guest, operation);
    case 'guest-cdrom-insert':
    case 'guest-cdrom-eject':
      return mediumChange(guest, operation);
    case 'guest-nic-attach':
      return nicAttachment(guest, operation);
    case 'guest-nic-detach':
      return nicDetachment(guest, operation);
    case 'guest-fsfreeze-freeze':
      return freeze(guest, operation);
    case 'guest-fsfreeze-thaw':
      return thaw(guest, operation);
    default:
      throw new RoostError('Internal', `No guest operation is called ${operation.kind}`);
  }
};

/** Of a stopped guest, which becomes it, or of one that runs. */
const templateOf = (guest: Guest, operation: OperationRecord): Procedure => {
  const of = liveSourceOf(operation);
  if (of === undefined) return templateCreation(guest, operation);
  const source = guest.house.guestById(of);
  if (source) return liveTemplateCreation(guest, source, operation);
  return withoutSource(guest);
};

const goneError = (guest: Guest): RoostError =>
  new RoostError(guest.removal.as, `Guest ${guest.name} is gone: ${guest.removal.why}`, {
    data: { guest: guest.name },
  });

/** Ends an operation that was cancelled while it waited. */
export const withdrawOperation = (guest: Guest, id: OperationId): void => {
  const { operations } = guest.house;
  const operation = operations.record(id);
  if (!operation) return;
  if (guest.removed) {
    operations.end(id, 'failed', goneError(guest));
    return;
  }
  const { withdraw, finish } = procedureOf(guest, operation);
  withdraw?.();
  operations.withdrawn(id, finish);
};

export const performOperation = async (guest: Guest, id: OperationId): Promise<void> => {
  const { operations } = guest.house;
  const operation = operations.record(id);
  if (!operation || operation.endedAt !== undefined) return;
  if (guest.removed) {
    operations.end(id, 'failed', goneError(guest));
    return;
  }
  const told = operations.toldBefore(id);
  if (told) {
    const { withdraw, finish, after } = procedureOf(guest, operation);
    await operations.untilRecorded(() => withdraw?.());
    await after?.(await operations.endWhenRecorded(id, 'cancelled', told, finish));
    return;
  }
  const perform = async (): Promise<void> => {
    const { steps, after, withdraw: _withdraw, ...options } = procedureOf(guest, operation);
    const circumstances = { hostBooted: guest.hostBootedBefore(operation), process: guest.found };
    const ended = await carryOut(operations, operation, steps, options, circumstances);
    await after?.(ended);
  };
  if (isStart(operation.kind)) await guest.house.limits.inTurn('starts', id, perform);
  else await perform();
};
