/** guest-fsfreeze-freeze and guest-fsfreeze-thaw; what they promise is kept by `Freezing`. */
import type { OperationRecord } from '../inventory/operation-table.ts';
import type { Asking } from './freezing.ts';
import type { Guest } from './guest.ts';
import type { Procedure } from './perform.ts';

const numberOf = (operation: OperationRecord, argument: string, otherwise: number): number => {
  const value = operation.arguments[argument];
  return typeof value === 'number' ? value : otherwise;
};

const procedure = (
  guest: Guest,
  operation: OperationRecord,
  name: string,
  ask: (asking: Asking) => Promise<number | undefined>,
  undo?: (timeoutMs: number) => Promise<void>,
): Procedure => {
  let count: number | undefined;
  const timeoutMs = numberOf(operation, 'timeoutMs', 10_000);
  return {
    steps: [
      {
        name,
        do: async ({ signal }) => {
          count = await ask({ signal, timeoutMs });
        },
        ...(undo === undefined ? {} : { undo: () => undo(timeoutMs) }),
      },
    ],
    finish: () => ({ guest: guest.id, ...(count === undefined ? {} : { fileSystems: count }) }),
  };
};

export const freeze = (guest: Guest, operation: OperationRecord): Procedure =>
  procedure(
    guest,
    operation,
    'freeze',
    (asking) => guest.freezing.freeze(numberOf(operation, 'forMs', 60_000), asking),
    (timeoutMs) => guest.freezing.takeBack(timeoutMs),
  );

export const thaw = (guest: Guest, operation: OperationRecord): Procedure =>
  procedure(guest, operation, 'thaw', (asking) => guest.freezing.thaw('asked', asking));
