/** query-guest-addresses: where a guest is found, each address with what vouches for it. */
import type { PortReport, PortSpec } from '../../network/backend.ts';
import type { AgentInterface } from '../../protocol/agent.ts';
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

/** How long the agent may hold up what the host knows by itself. */
const AGENT_TIMEOUT_MS = 2_000;
/** A guest may claim any number; nobody reads more. */
const MOST_TOLD = 64;

/** Addresses at a NIC, by what the agent said; of interfaces that are none of our NICs nothing is said. */
export const toldAt = (mac: PortSpec['mac'], interfaces: readonly AgentInterface[]): readonly string[] => {
  const addresses = interfaces
    .filter(({ hardwareAddress }) => hardwareAddress === mac)
    .flatMap(({ ipAddresses }) => ipAddresses.map(({ ipAddress }) => ipAddress));
  return [...new Set(addresses)].slice(0, MOST_TOLD);
};

/** None where no agent is there, or none that answers in time. */
const interfacesOf = async (guest: Guest, signal: AbortSignal): Promise<readonly AgentInterface[]> => {
  if (guest.status.state !== 'running' || guest.handle?.agent?.isOpen !== true) return [];
  try {
    return await guest.agent.use((agent, limit) => agent.interfaces(limit), {
      signal,
      timeoutMs: AGENT_TIMEOUT_MS,
    });
  } catch (error) {
    signal.throwIfAborted();
    guest.house.log.debug({ err: error, guest: guest.name }, 'the agent told no addresses');
    return [];
  }
};

export const addressesOf = async (guest: Guest, signal: AbortSignal): Promise<Reply> => {
  const { networks } = guest.house;
  const ports = guest.record.spec.nics.map((nic) => ({ name: nic.name, ...portSpecOf(guest, nic) }));
  const [interfaces, ...reports] = await Promise.all([
    interfacesOf(guest, signal),
    ...ports.map(({ network, port }) => networks.report(network, port, signal)),
  ]);
  const { ready } = guest.view;
  return {
    guest: guest.id,
    name: guest.name,
    ...(ready === undefined ? {} : { ready }),
    nics: ports.map(({ name, network, port }, index) => {
      const report = reports[index] ?? { addresses: [], droppedFrames: {} };
      return {
        name,
        network: networks.byId(network).name,
        mac: port.mac,
        addresses: ranked(port, report, toldAt(port.mac, interfaces)),
        droppedFrames: { ...report.droppedFrames },
      };
    }),
  };
};
