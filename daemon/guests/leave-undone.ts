/** What an earlier daemon began on a guest whose driver this one does not have: neither finished nor undone. */
import { RoostError } from '../../protocol/errors.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import type { Guest } from './guest.ts';

/**
 * Ends it where this daemon has no driver for the guest, and tells so; what it had made stays, and so do its rows in the
 * ledger. What gives the guest up goes on.
 */
export const leftUndone = (guest: Guest, operation: OperationRecord): boolean => {
  const givesUp = operation.kind === 'guest-delete' && operation.arguments['force'] === true;
  if (guest.missingDriver === undefined || givesUp) return false;
  const { operations } = guest.house;
  operations.admitted(operation);
  operations.end(
    operation.id,
    'failed',
    new RoostError(
      'Unsupported',
      `${operation.kind} of ${guest.name} was given up: this daemon has no driver called ${guest.missingDriver}`,
      {
        data: { guest: guest.name },
        hint: 'What it had begun stays as it is. Ask again of a daemon that has the driver; fsck-repair mends what is left.',
      },
    ),
  );
  return true;
};
