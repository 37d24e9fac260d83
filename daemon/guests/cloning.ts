/** guest-clone: as a creation, with a copy of what another has written, in whose turn that is copied. */
import { RoostError } from '../../protocol/errors.ts';
import type { GuestId } from '../../protocol/types.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import type { Step } from '../operations/steps.ts';
import { whileAtRest } from './at-rest.ts';
import { creation, directory, record, removeDisks } from './creation.ts';
import type { Guest } from './guest.ts';
import { rootSpec } from './launch-of.ts';
import { preparePool } from './mend.ts';
import type { Procedure } from './perform.ts';

/** What the journal keeps besides the request. */
export interface CloneRecord {
  readonly of: GuestId;
}

const sourceOf = (guest: Guest, operation: OperationRecord): Guest => {
  const { of } = operation.arguments as unknown as CloneRecord;
  const source = guest.house.guestById(of);
  if (source) return source;
  throw new RoostError('NotFound', `The container that ${guest.name} was to be a copy of is gone`, {
    data: { guest: guest.name },
  });
};

/** The first step, so that nothing that is asked of the other later comes before it. */
const copy = (guest: Guest, operation: OperationRecord): Step => ({
  name: 'copy',
  do: async (work) => {
    const source = sourceOf(guest, operation);
    await whileAtRest(source, { operation: operation.id, signal: work.signal }, async () => {
      await preparePool(guest);
      const message = `Copying what ${source.name} has written`;
      work.progress({ done: 0, total: 1, unit: 'steps', message });
      const root = rootSpec(guest);
      if (root) await guest.house.pool.cloneRoot(source.id, root, work);
    });
  },
  undo: () => removeDisks(guest),
});

export const cloning = (guest: Guest, operation: OperationRecord): Procedure => ({
  ...creation(guest, operation),
  steps: [copy(guest, operation), directory(guest), record(guest)],
});
