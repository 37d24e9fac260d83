/** Where a guest is on this host: computable from its id and number alone. */
import { join } from 'node:path';
import type { GuestPlace } from '../../drivers/driver.ts';
import type { GuestRecord } from '../inventory/guest-table.ts';
import type { House } from './house.ts';

export const placeOf = (
  house: Pick<House, 'instance' | 'stateDirectory' | 'runDirectory' | 'credentialsOf'>,
  { id, number, spec }: Pick<GuestRecord, 'id' | 'number'> & Partial<Pick<GuestRecord, 'spec'>>,
): GuestPlace => {
  // What a container runs as is its own matter, within its ids; what begins it has the daemon's rights.
  const credentials = spec?.boot.kind === 'root' ? undefined : house.credentialsOf(number);
  return {
    id,
    number,
    instance: house.instance,
    stateDirectory: join(house.stateDirectory, 'guests', id),
    runDirectory: join(house.runDirectory, 'guests', id),
    ...(credentials === undefined ? {} : { credentials }),
  };
};
