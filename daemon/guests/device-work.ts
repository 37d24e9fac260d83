/** What every change of a guest's devices needs: the line to its process, its record, and the news of the change. */
import type { GuestHandle } from '../../drivers/driver.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { GuestRecord } from '../inventory/guest-table.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import type { Finish } from '../operations/operations.ts';
import type { Guest } from './guest.ts';

/**
 * The line to the guest's process; undefined when the guest is down. Errors: Unavailable when the process cannot be
 * reached or its fate is not known.
 */
export const liveHandle = (guest: Guest): GuestHandle | undefined => {
  if (guest.handle) return guest.handle;
  if (!guest.isLive()) return undefined;
  throw new RoostError('Unavailable', `Guest ${guest.name} is ${guest.status.state} and cannot be reached`, {
    data: { guest: guest.name, state: guest.status.state },
    hint: 'Wait until it answers again, or stop it by force.',
  });
};

/** Whether somebody waits to end the guest: then no change of its devices is worth waiting for. */
export const isBeingEnded = (guest: Guest): boolean =>
  guest.unfinished.some(({ kind }) => kind === 'guest-stop' || kind === 'guest-delete');

/** Writes a change of the record down for good, then into the record beside the disks. */
export const changeRecord = async (
  guest: Guest,
  change: (record: GuestRecord) => GuestRecord,
  also: (record: GuestRecord) => void = () => undefined,
): Promise<void> => {
  const { inventory } = guest.house;
  const record = await inventory.db.durably(() => {
    const changed = inventory.guests.update(change(guest.recorded()));
    also(changed);
    return changed;
  });
  guest.setRecord(record);
  await guest.saveRecord();
};

/** What an operation that changed devices ends with. */
export const tellChanged =
  (
    guest: Guest,
    operation: OperationRecord,
    member: 'disks' | 'nics' | 'cdroms',
    result: Readonly<Record<string, unknown>> = {},
  ): Finish =>
  (state) => {
    if (state !== 'succeeded') return undefined;
    guest.house.events.emit({
      event: 'GUEST_UPDATED',
      data: { guest: guest.id, name: guest.name, actor: operation.actor, changed: [member] },
    });
    return { guest: guest.id, ...result };
  };
