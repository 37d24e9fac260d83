/** Where a guest is on this host: computable from its id and number alone. */
import { join } from 'node:path';
import type { GuestPlace } from '../../drivers/driver.ts';
import type { GuestRecord } from '../inventory/guest-table.ts';
import type { House } from './house.ts';

export const placeOf = (
  house: Pick<House, 'instance' | 'stateDirectory' | 'runDirectory' | 'credentialsOf'>,
  { id, number }: Pick<GuestRecord, 'id' | 'number'>,
): GuestPlace => {
  const credentials = house.credentialsOf(number);
  return {
    id,
    number,
    instance: house.instance,
    stateDirectory: join(house.stateDirectory, 'guests', id),
    runDirectory: join(house.runDirectory, 'guests', id),
    ...(credentials === undefined ? {} : { credentials }),
  };
};
