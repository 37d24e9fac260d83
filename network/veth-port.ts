/** What a veth port is to whoever runs its guest: follows from the records of network and port alone. Pure. */
import type { StaticIpv4, VethPort } from '../protocol/net-port.ts';
import { gatewayOf } from './addressing.ts';
import type { NetworkPlace, PortSpec } from './backend.ts';
import { vethName, vethPeerName } from './link-names.ts';

export type VethNetwork = Pick<NetworkPlace, 'instance' | 'kind' | 'subnet'>;

export function vethPort(network: VethNetwork, port: PortSpec): VethPort {
  const { guestNumber, index, mac } = port;
  const ipv4 = staticIpv4(network, port);
  return {
    kind: 'veth',
    link: vethName(network.instance, guestNumber, index),
    peer: vethPeerName(network.instance, guestNumber, index),
    mac,
    ...(ipv4 === undefined ? {} : { ipv4 }),
  };
}

/** The same that the network's DHCP server gives. */
function staticIpv4({ kind, subnet }: VethNetwork, { ipv4 }: PortSpec): StaticIpv4 | undefined {
  if (subnet === undefined || ipv4 === undefined) return undefined;
  const prefixLength = Number(subnet.split('/')[1]);
  return { address: ipv4, prefixLength, ...(kind === 'nat' ? { gateway: gatewayOf(subnet) } : {}) };
}
