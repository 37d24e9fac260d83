/**
 * Names and places of one network on the host. Pure: all follow from the network's record.
 *
 * The DHCP and DNS server drops to a user of its own, who must reach the files of ports while it runs; a state or run
 * directory may lie below a directory that is closed to others. So those files have a place of their own below `/run`;
 * what is opened before the drop (leases, pid file, log) stays with the network.
 */
import { join } from 'node:path';
import { RoostError } from '../../protocol/errors.ts';
import type { HostObject } from '../../protocol/host-object.ts';
import type { InstanceId } from '../../protocol/types.ts';
import { gatewayOf } from '../addressing.ts';
import type { NetworkPlace, PortSpec } from '../backend.ts';
import { bridgeName, tapName, vethName } from '../link-names.ts';
import {
  elementObject,
  forwardElements,
  joinedElements,
  networkElements,
  portElements,
  type SetElement,
  tableObjects,
} from '../ruleset.ts';

/** A network with a bridge of its own. */
export interface Site {
  readonly instance: InstanceId;
  readonly networkName: string;
  readonly networkNumber: number;
  readonly kind: 'nat' | 'isolated';
  readonly bridge: string;
  readonly subnet: string;
  readonly gateway: string;
  readonly stateDirectory: string;
  readonly runDirectory: string;
  /** Files of ports, read by the server after it has dropped its privileges. */
  readonly portsDirectory: string;
  /** A file for each port, `MAC,address,name`: what DHCP gives it. */
  readonly dhcpDirectory: string;
  /** A file for each port, `address name`: what DNS answers. */
  readonly namesDirectory: string;
  readonly leaseFile: string;
  readonly pidFile: string;
  /** Standard error of the server, locked for as long as it lives; known also when the run directory is lost. */
  readonly serverLog: string;
}

/** A network on a bridge of somebody else: nothing of it is ours but what our ports may send. */
export interface JoinedSite {
  readonly instance: InstanceId;
  readonly networkName: string;
  readonly kind: 'bridge';
  readonly bridge: string;
}

export type AnySite = Site | JoinedSite;

/** Name of the server's log in a network's state directory. */
export const SERVER_LOG = 'dnsmasq.log';

export function siteOf(network: NetworkPlace, portsRoot: string): AnySite {
  const { kind, subnet, instance } = network;
  if (kind === 'bridge' && network.bridge !== undefined)
    return { instance, networkName: network.name, kind, bridge: network.bridge };
  if (kind === 'user' || kind === 'bridge' || subnet === undefined)
    throw new RoostError('Internal', `Network ${network.name} (${kind}) has no bridge or no subnet`);
  const bridge = bridgeName(instance, network.number);
  const portsDirectory = join(portsRoot, bridge);
  return {
    instance,
    networkName: network.name,
    networkNumber: network.number,
    kind,
    bridge,
    subnet,
    gateway: gatewayOf(subnet),
    stateDirectory: network.stateDirectory,
    runDirectory: network.runDirectory,
    portsDirectory,
    dhcpDirectory: join(portsDirectory, 'dhcp'),
    namesDirectory: join(portsDirectory, 'names'),
    leaseFile: join(network.stateDirectory, 'leases'),
    pidFile: join(network.runDirectory, 'dnsmasq.pid'),
    serverLog: join(network.stateDirectory, SERVER_LOG),
  };
}

export const serverGroupPrefix = (instance: InstanceId): string => `roost-${instance}-network-`;
/** Control group of the network's server. */
export const serverGroup = ({ instance, networkNumber }: Site): string =>
  `${serverGroupPrefix(instance)}${networkNumber}`;

/** Elements that make it a network. */
export const siteElements = (site: AnySite): readonly SetElement[] =>
  site.kind === 'bridge' ? joinedElements(site.bridge) : networkElements(site);

export const siteObjects = (site: AnySite): readonly HostObject[] => [
  ...(site.kind === 'bridge' ? [] : ownObjects(site)),
  ...tableObjects(site.instance),
  ...siteElements(site).map((element) => elementObject(site.instance, element)),
];

const ownObjects = (site: Site): readonly HostObject[] => [
  { kind: 'directory', name: site.stateDirectory },
  { kind: 'directory', name: site.runDirectory },
  { kind: 'directory', name: site.portsDirectory },
  { kind: 'bridge', name: site.bridge },
  { kind: 'process', name: site.serverLog },
];

/** The port's link in the bridge. */
export const linkOf = ({ instance }: AnySite, { end, guestNumber, index }: PortSpec): string =>
  end === 'veth' ? vethName(instance, guestNumber, index) : tapName(instance, guestNumber, index);

/** On a bridge of somebody else an address may be given by a server of somebody else. */
export const elementsOf = (site: AnySite, port: PortSpec): readonly SetElement[] => {
  const ipv4 = port.ipv4 ?? (site.kind === 'bridge' ? 'any' : undefined);
  const own = portElements({
    link: linkOf(site, port),
    mac: port.mac,
    ...(ipv4 === undefined ? {} : { ipv4 }),
  });
  const passesOn = site.kind === 'nat' && port.ipv4 !== undefined;
  return passesOn ? [...own, ...forwardElements(port.ipv4, port.forwards ?? [])] : own;
};
