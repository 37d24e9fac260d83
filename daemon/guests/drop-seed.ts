/** Takes away the seed of a guest that is to have none any more; one that runs keeps what it has open. In the mailbox. */
import type { Guest } from './guest.ts';

export const dropSeed = async (guest: Guest): Promise<void> => {
  const { house, id, name, record } = guest;
  if (guest.removed || record.spec.cloudInit !== undefined) return;
  try {
    await house.pool.deleteSeed(id);
  } catch (error) {
    house.log.warn({ err: error, guest: name }, 'the seed could not be removed');
  }
};
