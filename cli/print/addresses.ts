/** Addresses of a guest for people. */
import type { CommandReturn } from '../../protocol/commands.ts';
import type { GuestView } from '../../protocol/guest.ts';
import { formatAge } from '../units.ts';
import { renderTable } from './table.ts';

type Reply = CommandReturn<'query-guest-addresses'>;
type Address = Reply['nics'][number]['addresses'][number];
type Forward = NonNullable<GuestView['nics'][number]['forwards']>[number];

const detailText = (address: Address, nowMs: number): string | undefined => {
  if (address.source === 'forward') return `to ${address.guestPort}/${address.protocol} of the guest`;
  if (address.expiresAt !== undefined) return `ends ${formatAge(address.expiresAt, nowMs)}`;
  return address.state;
};

const placeText = ({ address, port }: Address): string =>
  port === undefined ? address : `${address}:${port}`;

/** `nic0: 7 frames dropped (forged_mac 5, forged_arp 2)` */
const droppedLines = (reply: Reply): string[] =>
  reply.nics.flatMap(({ name, droppedFrames }) => {
    const reasons = Object.entries(droppedFrames);
    const total = reasons.reduce((sum, [, count]) => sum + count, 0);
    const words = reasons.map(([reason, count]) => `${reason} ${count}`).join(', ');
    return total === 0 ? [] : [`${name}: ${total} ${total === 1 ? 'frame' : 'frames'} dropped (${words})`];
  });

export const printAddresses = (reply: Reply, nowMs: number): string[] => [
  ...renderTable(
    ['nic', 'network', 'address', 'source', 'detail'],
    reply.nics.flatMap((nic) =>
      nic.addresses.map((address) => [
        nic.name,
        nic.network,
        placeText(address),
        address.source,
        detailText(address, nowMs),
      ]),
    ),
  ),
  ...droppedLines(reply),
];

/** `127.0.0.1:20022→22/tcp` */
export const forwardText = ({ protocol, hostAddress, hostPort, guestPort }: Forward): string =>
  `${hostAddress}:${hostPort}→${guestPort}/${protocol}`;
