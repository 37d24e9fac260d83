/** A guest's record beside its disks, for the case that the inventory is lost; to miss it is no failure of the guest. */
import type { GuestRecord } from '../inventory/guest-table.ts';
import { recordOfGuest } from '../records/record-of.ts';
import type { Guest } from './guest.ts';

export const saveRecord = async (guest: Guest): Promise<void> => {
  const { pool, instance, inventory, clock, log } = guest.house;
  try {
    const record = recordOfGuest(instance, inventory, guest.record);
    await pool.writeRecord(guest.id, { ...record, writtenAt: clock.now() });
  } catch (error) {
    log.warn({ err: error, guest: guest.name }, 'the record beside the disks could not be written');
  }
};

/** Takes over a record as committed, and saves it in its turn. Waits for that, but not behind work that may be a while. */
export const saveInTurn = async (guest: Guest, record: GuestRecord): Promise<void> => {
  guest.setRecord(record);
  const isIdle = !guest.mailbox.busy;
  const saved = guest.mailbox.post(() => guest.saveRecord());
  if (isIdle) await saved;
};
