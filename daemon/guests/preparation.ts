/**
 * guest-prepare: a fork that nobody has asked for yet is made ahead, told all but its name, and paused. It waits until
 * somebody asks for a guest like it, and is theirs then; see `preparations.ts` and `waiting.ts`.
 */
import type { OperationRecord } from '../inventory/operation-table.ts';
import type { Step } from '../operations/steps.ts';
import { directory, record, volumes } from './creation.ts';
import type { Guest } from './guest.ts';
import { prepareInside } from './inside.ts';
import type { Procedure } from './perform.ts';
import { begin } from './start.ts';

const hold = (guest: Guest): Step => ({
  name: 'hold',
  do: async ({ signal }) => {
    await guest.handle?.pause(signal);
    const { applied } = guest.status;
    guest.setStatus({
      state: 'paused',
      reason: 'waiting',
      ...(applied === undefined ? {} : { applied: { ...applied, prepared: true } }),
    });
  },
});

export const preparation = (guest: Guest, operation: OperationRecord): Procedure => {
  const { inventory } = guest.house;
  // One that is booted has as much memory as any guest: nobody waits with that.
  const { boot, inside } = begin(guest, operation, { forkOnly: true });
  const prepare: Step = {
    name: 'prepare',
    do: async (work) => {
      await inside(work, (tries) => prepareInside(guest, tries, work.signal));
    },
  };
  return {
    steps: [directory(guest), volumes(guest), record(guest), ...boot, prepare, hold(guest)],
    finish: (state, clean) => {
      if (state === 'succeeded') return { guest: guest.id };
      inventory.guests.delete(guest.id);
      if (clean) inventory.ledger.release({ kind: 'guest', id: guest.id });
      return undefined;
    },
    withdraw: () => guest.remove('its preparation was cancelled'),
    after: (ended) => {
      if (ended.state !== 'succeeded') guest.remove(`its preparation ended as ${ended.state}`);
    },
  };
};
