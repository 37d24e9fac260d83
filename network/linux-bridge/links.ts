/** Bridges of networks, and what links and addresses there are on the host. */
import { linkIndex } from '../../native/index.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { InstanceId } from '../../protocol/types.ts';
import { bridgeMac, overlapping } from '../addressing.ts';
import { bridgePrefix } from '../link-names.ts';
import { ip } from './host-tool.ts';
import type { Site } from './site.ts';

/**
 * Makes the bridge of a network or mends it. It never runs the spanning tree protocol: ports are guests, and a port must
 * pass frames at once.
 * Errors: ResourceExhausted when its subnet is in use already, HostError.
 */
export async function ensureBridge(site: Site, signal: AbortSignal): Promise<void> {
  const { bridge, gateway, subnet } = site;
  const absent = linkIndex(bridge) === undefined;
  if (absent) refuseOverlap(subnet, await usedSubnets(signal));
  const mac = bridgeMac(site.instance, site.networkNumber);
  await ip(
    {
      batch: [
        ...(absent ? [`link add name ${bridge} type bridge`] : []),
        `link set dev ${bridge} address ${mac} addrgenmode none`,
        `link set dev ${bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0`,
        `address replace ${gateway}/${subnet.split('/')[1] ?? ''} dev ${bridge}`,
        `link set dev ${bridge} up`,
      ],
    },
    signal,
  );
}

function refuseOverlap(subnet: string, used: readonly string[]): void {
  const other = overlapping(subnet, used);
  if (other === undefined) return;
  throw new RoostError(
    'ResourceExhausted',
    `Subnet ${subnet} overlaps ${other}, which is in use on this host`,
    {
      data: { subnet, overlaps: other },
      hint: 'Create the network with another subnet, or without one to have a free one chosen.',
    },
  );
}

/**
 * A bridge of somebody else, and its MTU. Asked of the kernel by netlink: `/sys` may show another network namespace.
 * Errors: FailedPrecondition where there is no such bridge, InvalidArgument for one of our own.
 */
export async function requireBridge(
  bridge: string,
  instance: InstanceId,
  signal: AbortSignal,
): Promise<{ readonly mtu: number }> {
  if (bridge.startsWith(bridgePrefix(instance)))
    throw new RoostError('InvalidArgument', `The bridge ${bridge} is one of Roost's own networks`, {
      data: { bridge },
      hint: 'Attach guests to that network itself.',
    });
  const missing = linkIndex(bridge) === undefined;
  const [link] = missing
    ? []
    : (parse(await ip({ args: ['-json', '-details', 'link', 'show', 'dev', bridge] }, signal)) as readonly {
        readonly mtu?: number;
        readonly linkinfo?: { readonly info_kind?: string };
      }[]);
  if (link?.linkinfo?.info_kind === 'bridge') return { mtu: link.mtu ?? 1500 };
  throw new RoostError(
    'FailedPrecondition',
    missing ? `There is no bridge ${bridge} on this host` : `The link ${bridge} is no Linux bridge`,
    {
      data: { bridge },
      hint: '`ip link show type bridge` lists those there are; Roost makes none of its own here.',
    },
  );
}

/** Deletes a link; one that is gone already is no error. */
export async function deleteLink(link: string, signal: AbortSignal): Promise<void> {
  if (linkIndex(link) === undefined) return;
  try {
    await ip({ args: ['link', 'delete', 'dev', link] }, signal);
  } catch (error) {
    if (linkIndex(link) !== undefined) throw error;
  }
}

/** Names of the links in this network namespace. */
export async function linkNames(signal: AbortSignal): Promise<readonly string[]> {
  const links = parse(await ip({ args: ['-json', 'link', 'show'] }, signal)) as readonly {
    ifname?: string;
  }[];
  return links.flatMap((link) => link.ifname ?? []);
}

interface AddressedLink {
  readonly addr_info?: readonly { readonly local?: string; readonly prefixlen?: number }[];
}

/** Subnets of the host's addresses and of its routes, the default route apart. */
export async function usedSubnets(signal: AbortSignal): Promise<readonly string[]> {
  const [addresses, routes] = await Promise.all([
    ip({ args: ['-json', '-4', 'address', 'show'] }, signal),
    ip({ args: ['-json', '-4', 'route', 'show', 'table', 'main'] }, signal),
  ]);
  const ofAddresses = (parse(addresses) as readonly AddressedLink[]).flatMap((link) =>
    (link.addr_info ?? []).flatMap(({ local, prefixlen }) =>
      local === undefined || prefixlen === undefined ? [] : `${local}/${prefixlen}`,
    ),
  );
  const ofRoutes = (parse(routes) as readonly { dst?: string }[]).flatMap(({ dst }) =>
    dst === undefined || dst === 'default' ? [] : dst,
  );
  return [...new Set([...ofAddresses, ...ofRoutes])];
}

/** `ip -json` prints nothing at all for an empty list, and empty objects for what a filter left out. */
const parse = (output: string): readonly unknown[] =>
  output.trim() === '' ? [] : (JSON.parse(output) as readonly unknown[]);
