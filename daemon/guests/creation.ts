/** guest-create: the guest's directory, its volumes, its record beside them. */
import { rm } from 'node:fs/promises';
import { enter } from '../../lib/account.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import { cleanUp } from '../operations/clean-up.ts';
import type { Step } from '../operations/steps.ts';
import type { Guest } from './guest.ts';
import { ensureFirmwareVariables, rootSpec, volumeSpecs } from './launch-of.ts';
import { makeStateDirectory, preparePool } from './mend.ts';
import type { Procedure } from './perform.ts';

export const directory = (guest: Guest): Step => ({
  name: 'directory',
  do: async () => {
    await makeStateDirectory(guest);
    enter({ kind: 'made', object: `directory ${guest.place.stateDirectory}` });
  },
  undo: () =>
    cleanUp(guest.house, `the removal of ${guest.place.stateDirectory}`, () =>
      rm(guest.place.stateDirectory, { recursive: true, force: true }),
    ),
});

export const removeDisks = (guest: Guest): Promise<void> =>
  cleanUp(guest.house, `the removal of guest ${guest.name}'s disks`, () =>
    guest.house.pool.removeGuest(guest.id),
  );

export const volumes = (guest: Guest): Step => ({
  name: 'volumes',
  do: async (work) => {
    const specs = volumeSpecs(guest);
    await preparePool(guest);
    await ensureFirmwareVariables(guest);
    const root = rootSpec(guest);
    if (root) await guest.house.pool.prepareRoot(root, work);
    for (const [index, volume] of specs.entries()) {
      work.progress({ done: index, total: specs.length, unit: 'steps', message: volume.name });
      await guest.house.pool.createVolume(volume, work);
    }
  },
  undo: () => removeDisks(guest),
});

export const record = (guest: Guest): Step => ({ name: 'record', do: () => guest.saveRecord() });

export const creation = (guest: Guest, operation: OperationRecord): Procedure => {
  const { inventory, events } = guest.house;
  return {
    steps: [directory(guest), volumes(guest), record(guest)],
    finish: (state, clean) => {
      if (state === 'succeeded') {
        events.emit({
          event: 'GUEST_CREATED',
          data: { guest: guest.id, name: guest.name, actor: operation.actor },
        });
        return { guest: guest.id };
      }
      inventory.guests.delete(guest.id);
      if (clean) inventory.ledger.release({ kind: 'guest', id: guest.id });
      return undefined;
    },
    withdraw: () => guest.remove('its creation was cancelled'),
    after: (ended) => {
      if (ended.state !== 'succeeded')
        guest.remove(
          `its creation ended as ${ended.state}: ${ended.error?.desc ?? ''}`,
          ended.state === 'failed' ? ended.error?.class : undefined,
        );
    },
  };
};
