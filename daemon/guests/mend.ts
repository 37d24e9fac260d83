/** Makes a guest's part of the host agree with the ledger again. In its mailbox, when nothing else is under way. */
import { chmod, mkdir } from 'node:fs/promises';
import { enter } from '../../lib/account.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { Guest } from './guest.ts';
import { existenceObjects, recordRun } from './launch-of.ts';
import { restorePorts } from './reconcile.ts';

/** The guest's own directory. */
export const makeStateDirectory = async (guest: Guest): Promise<void> => {
  const { stateDirectory } = guest.place;
  await mkdir(stateDirectory, { recursive: true });
  // The guest's process works in here under another uid; what is in it is not readable to it.
  await chmod(stateDirectory, 0o711);
};

/** The guest's place among the volumes. */
export const preparePool = async (guest: Guest): Promise<void> => {
  const { credentials } = guest.place;
  await guest.house.pool.prepareGuest(
    guest.id,
    credentials && { uid: credentials.uid, gid: credentials.gid },
  );
};

/**
 * Writes the rows of what the guest has again, makes again what is missing, and clears away what a run left that is over.
 * A process that lives is left alone.
 */
export const mendGuest = async (guest: Guest): Promise<void> => {
  const { inventory, clock } = guest.house;
  if (guest.removed) return;
  inventory.db.soon(() =>
    inventory.ledger.record(
      { kind: 'guest', id: guest.id },
      'existence',
      existenceObjects(guest),
      clock.now(),
    ),
  );
  await makeStateDirectory(guest);
  // Others have to reach the disks of a template, which this would keep for its own.
  if (!guest.record.spec.template) await preparePool(guest);
  await guest.saveRecord();
  await guest.handle?.holdLock(guest.house.stopping);
  switch (await guest.driver.probe(guest.place)) {
    case 'alive':
      inventory.db.soon(() => recordRun(guest));
      await restorePorts(guest);
      enter({
        kind: 'note',
        text: `guest ${guest.name} runs: its rows were written and its ports looked at`,
      });
      return;
    case 'gone':
      if (guest.handle) return;
      await guest.freeRun();
      enter({ kind: 'note', text: `guest ${guest.name} does not run: what a run had left was cleared away` });
      return;
    case 'unknown':
      throw new RoostError(
        'Unavailable',
        `It cannot be told whether the process of guest ${guest.name} lives`,
        {
          data: { guest: guest.name },
          hint: 'Look at the lock file and at who has it open.',
        },
      );
  }
};
