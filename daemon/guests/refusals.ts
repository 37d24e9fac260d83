/** What is refused before anything is done, whoever asks it of a guest. */
import { RoostError } from '../../protocol/errors.ts';
import type { Actor, Role } from '../../protocol/types.ts';
import type { StoredSpec } from '../inventory/guest-table.ts';
import { imagesUsed } from '../inventory/images-used.ts';
import { hostStops } from './host-stops.ts';
import type { House } from './house.ts';

/** Who asks: the actor for the record, the role for what only administrators may. */
export interface Asker {
  readonly actor: Actor;
  readonly role: Role;
}

/** In the transaction that begins to use them: one that is being deleted is not to be had any more. */
export const requireImages = ({ images }: Pick<House, 'images'>, spec: StoredSpec): void => {
  for (const image of imagesUsed(spec)) images.require(image);
};

/** Errors: FailedPrecondition. */
export const refuseWhileHostStops = ({ operations }: Pick<House, 'operations'>): void => {
  if (!hostStops(operations)) return;
  throw new RoostError('FailedPrecondition', 'The host is being shut down: no guest is started', {
    hint: 'Start it after the boot; or wait until host-shutdown-guests has ended, if the host stays.',
  });
};

/** Errors: AlreadyExists. */
export const refuseTakenName = ({ inventory }: Pick<House, 'inventory'>, name: string): void => {
  if (inventory.guests.idByName(name) === undefined) return;
  throw new RoostError('AlreadyExists', `There is a guest called ${name}`, {
    data: { name },
    hint: 'Choose another name.',
  });
};

/** Whoever names paths of the host may read and write it as root. Errors: PermissionDenied. */
export const refuseHostPaths = (filesystems: readonly unknown[], asker: Asker): void => {
  if (filesystems.length === 0 || asker.role === 'admin') return;
  throw new RoostError(
    'PermissionDenied',
    'Directories of the host are given to guests by administrators only',
    {
      hint: 'Use the socket of the daemon, or a token with the role admin.',
    },
  );
};

/** Errors: PermissionDenied. */
export const refuseTaint = (extraArgs: readonly unknown[] | undefined, asker: Asker): void => {
  if (!extraArgs?.length || asker.role === 'admin') return;
  throw new RoostError('PermissionDenied', 'Extra arguments for QEMU are for administrators only', {
    hint: 'Use the socket of the daemon, or a token with the role admin.',
  });
};
