/** A guest's record beside its disks, for the case that the inventory is lost; to miss it is no failure of the guest. */
import type { Guest } from './guest.ts';

export const saveRecord = async (guest: Guest): Promise<void> => {
  const { name, spec, machine, generation, createdAt, number } = guest.record;
  try {
    await guest.house.pool.writeRecord(guest.id, {
      generation,
      id: guest.id,
      number,
      name,
      spec,
      machine,
      createdAt,
    });
  } catch (error) {
    guest.house.log.warn(
      { err: error, guest: guest.name },
      'the record beside the disks could not be written',
    );
  }
};
