/**
 * Frees what a guest's run had on the host, part by part: one that cannot be freed stops no other, and keeps its rows in
 * the ledger, so that fsck names it and mends it later.
 */
import { enter } from '../../lib/account.ts';
import { toRoostError } from '../../protocol/errors.ts';
import { type HostObject, hostObjectKey } from '../../protocol/host-object.ts';
import { cleanUp } from '../operations/clean-up.ts';
import type { Guest } from './guest.ts';
import { portSpecs, runObjects } from './launch-of.ts';

/** One thing to take away, with the objects that are gone then. */
export interface Remains {
  readonly what: string;
  readonly objects: readonly HostObject[];
  readonly remove: (signal: AbortSignal) => Promise<void>;
}

/** Takes each away and forgets its rows. Resolves with what could not be taken away, in words. */
export const takeAway = async (guest: Guest, remains: readonly Remains[]): Promise<readonly string[]> => {
  const { house } = guest;
  const failures: string[] = [];
  for (const { what, objects, remove } of remains) {
    try {
      await cleanUp(house, what, remove);
      // It is gone whether or not that can be written: its rows then go with those of the whole, which is tried again.
      house.operations.recordNews(`the end of ${what}`, () =>
        house.inventory.db.soon(() => {
          for (const object of objects) house.inventory.ledger.forget(guest.id, object);
        }),
      );
      for (const object of objects) enter({ kind: 'removed', object: hostObjectKey(object) });
    } catch (error) {
      if (house.stopping.aborted) throw error;
      const { message } = toRoostError(error);
      house.log.warn({ err: error, guest: guest.name }, `${what} could not be removed`);
      enter({ kind: 'note', text: `gave up on ${what}: ${message}` });
      failures.push(`${what}: ${message}`);
    }
  }
  return failures;
};

/** Ports and the files of the process, which must be gone by now. */
export const runRemains = (guest: Guest): readonly Remains[] => {
  const { networks } = guest.house;
  const ports = portSpecs(guest).map(
    ({ network, port }): Remains => ({
      what: `port ${port.index} of guest ${guest.name}`,
      objects: networks.portObjects(network, port),
      remove: (signal) => networks.detach(network, port, signal),
    }),
  );
  return [
    ...ports,
    {
      what: `the files of guest ${guest.name}'s process`,
      objects: runObjects(guest),
      remove: () => guest.driver.clear(guest.place),
    },
  ];
};

/** What `Guest.freeRun` does. */
export const freeRun = async (guest: Guest): Promise<readonly string[]> => {
  const { inventory } = guest.house;
  const { handle } = guest;
  guest.handle = undefined;
  guest.agent.took(undefined);
  guest.readiness.end();
  guest.freezing.end();
  await handle?.release();
  const failures = await takeAway(guest, runRemains(guest));
  if (failures.length === 0)
    inventory.db.soon(() => inventory.ledger.release({ kind: 'guest', id: guest.id }, 'run'));
  guest.setStatus({ process: undefined, applied: undefined, cursor: 0 });
  return failures;
};
