/** The addresses of a NIC, given in the transaction that records it. */
import { RoostError } from '../../protocol/errors.ts';
import type { StoredNic } from '../inventory/guest-table.ts';
import type { House } from './house.ts';

/**
 * The NIC with the address that its network keeps for it, the one it wishes for or the next free. `chosen` are those just
 * given to other NICs of the same guest. Errors: AlreadyExists for a MAC or an address that somebody has; those of
 * `Networks.allocate`.
 */
export const allocateNic = (
  { inventory, networks }: Pick<House, 'inventory' | 'networks'>,
  nic: StoredNic,
  chosen: readonly string[],
): StoredNic => {
  if (inventory.guests.macTaken(nic.mac))
    throw new RoostError('AlreadyExists', `The MAC address ${nic.mac} belongs to another NIC`, {
      data: { mac: nic.mac },
      hint: 'Choose another one, or leave it out to get a free one.',
    });
  const ipv4 = networks.allocate(networks.require(nic.network), nic.ipv4, chosen);
  return ipv4 === undefined ? nic : { ...nic, ipv4 };
};
