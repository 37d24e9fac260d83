/** What a NIC gets for itself: its addresses, its ports of the host. Given in the transaction that records it. */
import { RoostError } from '../../protocol/errors.ts';
import type { StoredNic, StoredSpec } from '../inventory/guest-table.ts';
import { settleForwards } from '../port-forwards.ts';
import type { House } from './house.ts';

export interface Applicant {
  /** Name of the guest. */
  readonly name: string;
  /** NICs of the same guest that are not recorded yet, with what they have just been given. */
  readonly others: readonly StoredNic[];
  /** Ports of the host that are not to be chosen; see `busyPorts`. */
  readonly busyPorts: ReadonlySet<number>;
}

type Registers = Pick<House, 'inventory' | 'networks'>;

/**
 * The NIC with the address that its network keeps for it, the one it wishes for or the next free, and with every port of
 * the host settled. Errors: AlreadyExists for what somebody has; those of `Networks.allocate` and `settleForwards`.
 */
export const allocateNic = (
  { inventory, networks }: Registers,
  nic: StoredNic,
  { name, others, busyPorts }: Applicant,
): StoredNic => {
  if (inventory.guests.macTaken(nic.mac))
    throw new RoostError('AlreadyExists', `The MAC address ${nic.mac} belongs to another NIC`, {
      data: { mac: nic.mac },
      hint: 'Choose another one, or leave it out to get a free one.',
    });
  const chosen = others.flatMap(({ ipv4 }) => ipv4 ?? []);
  const ipv4 = networks.allocate(networks.require(nic.network), nic.ipv4, chosen);
  const forwards = allocateForwards({ inventory }, nic, { name, others, busyPorts });
  return { ...nic, ...(ipv4 === undefined ? {} : { ipv4 }), ...(forwards.length === 0 ? {} : { forwards }) };
};

const allocateForwards = (
  { inventory }: Pick<Registers, 'inventory'>,
  { forwards = [] }: StoredNic,
  { name, others, busyPorts }: Applicant,
): NonNullable<StoredNic['forwards']> => {
  if (forwards.length === 0) return [];
  const own = others.flatMap((nic) => nic.forwards ?? []).map((forward) => ({ ...forward, guest: name }));
  return settleForwards(name, forwards, [...inventory.guests.forwards(), ...own], busyPorts);
};

/** Ports of the host that are not to be chosen for NICs; none are looked for unless one is to be. */
export const busyPorts = async (
  nics: StoredSpec['nics'],
  { networks, stopping }: Pick<House, 'networks' | 'stopping'>,
): Promise<ReadonlySet<number>> => {
  const nic = nics.find(({ forwards = [] }) => forwards.some(({ hostPort }) => hostPort === 0));
  return nic === undefined ? new Set() : await networks.usedPorts(networks.require(nic.network), stopping);
};
