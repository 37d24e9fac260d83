/** Addresses of NICs, the wished one or the next free; decided in the transaction that records them. */
import type { Addressing } from '../network/backend.ts';
import { RoostError } from '../protocol/errors.ts';
import type { NetworkRecord } from './inventory/network-table.ts';

const refuseTaken = (network: Pick<NetworkRecord, 'name'>, wished: string, used: readonly string[]): void => {
  if (!used.includes(wished)) return;
  throw new RoostError('AlreadyExists', `${wished} is kept for another NIC of network ${network.name}`, {
    data: { address: wished },
    hint: 'Choose another one, or leave out ipv4 to get a free one.',
  });
};

/**
 * Undefined where the network gives no address and none is wished. `used`: what is kept for NICs on the network.
 * Errors: InvalidArgument, AlreadyExists, ResourceExhausted.
 */
export const allocateAddress = (
  network: Pick<NetworkRecord, 'name' | 'kind' | 'subnet'>,
  wished: string | undefined,
  used: readonly string[],
  addressing: Addressing,
): string | undefined => {
  const { subnet, kind, name } = network;
  if (wished === undefined) {
    if (subnet === undefined) return undefined;
    const free = addressing.freeAddress(subnet, used);
    if (free !== undefined) return free;
    throw new RoostError('ResourceExhausted', `Network ${name} has no free address in ${subnet}`, {
      data: { subnet, used: used.length },
      hint: 'Delete guests that are not needed, or create another network.',
    });
  }
  if (kind === 'user')
    throw new RoostError('InvalidArgument', `Network ${name} (${kind}) keeps no addresses`, {
      hint: 'Leave out ipv4.',
    });
  if (subnet !== undefined && !addressing.isGuestAddress(subnet, wished))
    throw new RoostError('InvalidArgument', `${wished} is no guest's address in ${subnet}`, {
      data: { subnet, address: wished },
      hint: `Give one of ${subnet} that is neither its first two nor its last, or leave out ipv4.`,
    });
  refuseTaken(network, wished, used);
  return wished;
};
