/** query-guest-addresses: where a guest is found, each address with what vouches for it. */
import type { PortReport, PortSpec } from '../../network/backend.ts';
import type { CommandReturn } from '../../protocol/commands.ts';
import { type AddressSource, addressSources } from '../../protocol/guest-address.ts';
import type { Guest } from './guest.ts';
import { portSpecOf } from './launch-of.ts';

type Reply = CommandReturn<'query-guest-addresses'>;
type Address = Reply['nics'][number]['addresses'][number];

const order = Object.keys(addressSources) as AddressSource[];

/** Neighbours that do not answer vouch for less than a lease that has not ended. */
const rank = ({ source, state }: Address): number =>
  source === 'neighbour' && state !== 'reachable' ? order.indexOf('lease') + 0.5 : order.indexOf(source);

/** Pure: the best evidence first. Each address stands once for each source. */
export const ranked = (port: PortSpec, report: PortReport, told: readonly string[]): Address[] => {
  const addresses: Address[] = [
    ...told.map((address) => ({ address, source: 'agent' }) as const),
    ...report.addresses.map((found) => ({ ...found })),
    ...(port.forwards ?? []).map(({ hostAddress, hostPort, guestPort, protocol }) => ({
      address: hostAddress,
      source: 'forward' as const,
      port: hostPort,
      guestPort,
      protocol,
    })),
    ...(port.ipv4 === undefined ? [] : [{ address: port.ipv4, source: 'reserved' } as const]),
  ];
  return addresses.sort((one, other) => rank(one) - rank(other));
};

export const addressesOf = async (guest: Guest, signal: AbortSignal): Promise<Reply> => {
  const { networks } = guest.house;
  const { ready } = guest.view;
  const nics = await Promise.all(
    guest.record.spec.nics.map(async (nic) => {
      const { network, port } = portSpecOf(guest, nic);
      const report = await networks.report(network, port, signal);
      return {
        name: nic.name,
        network: networks.byId(network).name,
        mac: port.mac,
        addresses: ranked(port, report, []),
        droppedFrames: { ...report.droppedFrames },
      };
    }),
  );
  return { guest: guest.id, name: guest.name, ...(ready === undefined ? {} : { ready }), nics };
};
