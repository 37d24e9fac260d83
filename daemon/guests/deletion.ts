/** guest-delete: end the process if that was asked for, then remove everything, the record last. */
import { rm } from 'node:fs/promises';
import { RoostError } from '../../protocol/errors.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import type { Step } from '../operations/steps.ts';
import type { Guest } from './guest.ts';
import { volumeSpecs } from './launch-of.ts';
import type { Procedure } from './perform.ts';
import { endProcess, keepRunning } from './stop.ts';

const end = (guest: Guest, force: boolean): Step => ({
  name: 'end',
  do: async ({ signal }) => {
    guest.restarts.silence();
    if (!guest.isLive()) return;
    if (!force)
      throw new RoostError('FailedPrecondition', `Guest ${guest.name} is ${guest.status.state}`, {
        data: { guest: guest.name, state: guest.status.state },
        hint: 'Stop it first, or delete it with force.',
      });
    guest.setStatus({ state: 'stopping', reason: undefined });
    await guest.wrapUp(await endProcess(guest, signal));
  },
});

const remove = (guest: Guest): Step => ({
  name: 'remove',
  do: async () => {
    const { place } = guest;
    await guest.freeRun();
    for (const volume of volumeSpecs(guest)) await guest.house.pool.deleteVolume(volume);
    await guest.house.pool.removeGuest(guest.id);
    await rm(place.runDirectory, { recursive: true, force: true });
    await rm(place.stateDirectory, { recursive: true, force: true });
  },
});

export const deletion = (guest: Guest, operation: OperationRecord): Procedure => {
  const { inventory, events } = guest.house;
  return {
    steps: [end(guest, operation.arguments['force'] === true), remove(guest)],
    cancellable: false,
    finish: (state) => {
      if (state !== 'succeeded') return undefined;
      inventory.guests.delete(guest.id);
      inventory.ledger.release({ kind: 'guest', id: guest.id });
      events.emit({
        event: 'GUEST_DELETED',
        data: { guest: guest.id, name: guest.name, actor: operation.actor },
      });
      return undefined;
    },
    withdraw: () => keepRunning(guest, operation),
    after: (ended) => {
      if (ended.state === 'succeeded') guest.remove();
    },
  };
};
