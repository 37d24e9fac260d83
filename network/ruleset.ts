/**
 * The nftables rules of an instance, as text for `nft`. Pure.
 *
 * Two tables of one name, `roost_<instance>`: in family `bridge` the guard, which holds each port to its own addresses,
 * and in family `inet` the firewall, which keeps networks apart and gives kind nat its way out. Their rules are static
 * and speak of sets; a network and a port are elements of those, so making one never touches another's.
 *
 * Rules it keeps:
 * - Every text is one transaction and may be applied again; the sets keep their elements when the rules are renewed.
 * - The guard fails closed: a tap or veth of ours that is in no set passes nothing.
 * - What is not ours (another prefix) is never judged.
 *
 * IPv6: no network hands out IPv6 addresses, so a port may use any under its own MAC address, as its link-local one;
 * router advertisements and DHCPv6 answers of guests are dropped. Neighbour discovery is not judged: a guest can claim a
 * neighbour's link-local address.
 */
import type { HostObject } from '../protocol/host-object.ts';
import type { PortForward } from '../protocol/net-port.ts';
import type { NetworkKind } from '../protocol/network.ts';
import type { InstanceId, MacAddress } from '../protocol/types.ts';
import { bridgePrefix, tapPrefix, vethPrefix } from './link-names.ts';

/** Counters of the guard: frames dropped, by reason. */
export const guardCounters = [
  'forged_mac',
  'forged_arp',
  'forged_ipv4',
  'guest_dhcp_server',
  'guest_router',
  'other_protocol',
] as const;
export type DropReason = (typeof guardCounters)[number];

/** Element of a set: where it is, and what it is made of. */
export interface SetElement {
  readonly family: 'bridge' | 'inet';
  readonly set:
    | 'mac'
    | 'ip4'
    | 'any_ip4'
    | 'joined'
    | 'bridged'
    | 'nat_bridges'
    | 'nat_subnets'
    | 'port_forwards'
    | 'address_forwards'
    | DropSet;
  /** In the set's order; more than one is a concatenation. */
  readonly parts: readonly string[];
  /** Of a map: what these are mapped to. */
  readonly value?: readonly string[];
}

export const tableName = (instance: InstanceId): string => `roost_${instance}`;

export const tableObjects = (instance: InstanceId): readonly HostObject[] => [
  { kind: 'nft-table', name: `bridge/${tableName(instance)}` },
  { kind: 'nft-table', name: `inet/${tableName(instance)}` },
];

export const elementObject = (instance: InstanceId, element: SetElement): HostObject => ({
  kind: 'nft-element',
  name: `${element.family}/${tableName(instance)}/${element.set}/${element.parts.join(' . ')}`,
});

/** The set in which the rules count the drops of each port, by reason; its elements are made by the rules themselves. */
export type DropSet = `${DropReason}_ports`;
export const dropSet = (reason: DropReason): DropSet => `${reason}_ports`;
/** The reason that a set of this name counts; undefined for any other set. */
export const reasonOfSet = (set: string): DropReason | undefined =>
  guardCounters.find((reason) => dropSet(reason) === set);

export interface RuledNetwork {
  readonly bridge: string;
  readonly kind: NetworkKind;
  readonly subnet: string;
}

/** What makes a bridge a network: frames may pass within it, and for kind nat packets out of it. */
export const networkElements = (network: RuledNetwork): readonly SetElement[] => [
  { family: 'inet', set: 'bridged', parts: [network.bridge, network.bridge] },
  ...(network.kind === 'nat'
    ? ([
        { family: 'inet', set: 'nat_bridges', parts: [network.bridge] },
        { family: 'inet', set: 'nat_subnets', parts: [network.subnet] },
      ] as const)
    : []),
];

/** A bridge of somebody else that our ports join. No rule asks for it: it keeps the tables while no bridge of ours does. */
export const joinedElements = (bridge: string): readonly SetElement[] => [
  { family: 'bridge', set: 'joined', parts: [bridge] },
];

export interface RuledPort {
  /** The tap, or the host's end of the veth pair. */
  readonly link: string;
  readonly mac: MacAddress;
  /** Its one address; `any`: whichever it takes; without one it has no IPv4 at all. */
  readonly ipv4?: string;
}

/** What a port may send: its MAC address, and with it its IPv4 address in IPv4 and ARP. */
export const portElements = ({ link, mac, ipv4 }: RuledPort): readonly SetElement[] => {
  const own = { family: 'bridge', set: 'mac', parts: [link, mac] } as const;
  if (ipv4 === undefined) return [own];
  return ipv4 === 'any'
    ? [own, { family: 'bridge', set: 'any_ip4', parts: [link, mac] }]
    : [own, { family: 'bridge', set: 'ip4', parts: [link, mac, ipv4] }];
};

const ANY_ADDRESS = '0.0.0.0';

/** What of the host is passed on to a guest at that address. */
export const forwardElements = (ipv4: string, forwards: readonly PortForward[]): readonly SetElement[] =>
  forwards.map(({ protocol, hostAddress, hostPort, guestPort }) => {
    const value = [ipv4, String(guestPort)];
    return hostAddress === ANY_ADDRESS
      ? { family: 'inet', set: 'port_forwards', parts: [protocol, String(hostPort)], value }
      : {
          family: 'inet',
          set: 'address_forwards',
          parts: [hostAddress, protocol, String(hostPort)],
          value,
        };
  });

/** What the rules may have counted of a port. */
export const dropElements = (link: string): readonly SetElement[] =>
  guardCounters.map((reason) => ({ family: 'bridge', set: dropSet(reason), parts: [link] }));

/** ARP for IPv4 over Ethernet (RFC 826); any other form could hide its addresses from the rules. */
const PLAIN_ARP = 'arp htype 1 arp ptype ip arp hlen 6 arp plen 4';

/** Where a drop is counted for its port; a set that cannot take one more port must not keep the frame from being dropped. */
const dropSetText = (reason: DropReason): string => `	set ${dropSet(reason)} {
		type ifname
		flags dynamic
		counter
	}
`;
const dropChainText = (reason: DropReason): string => `	chain ${reason} {
		update @${dropSet(reason)} { iifname }
		counter name ${reason} drop
	}
`;

/** The guard. An address probe (RFC 5227 section 2.1.1) has no sender address: only one's own may be asked for. */
function guard(instance: InstanceId): string {
  return `add table bridge ${tableName(instance)}
flush table bridge ${tableName(instance)}
table bridge ${tableName(instance)} {
${guardCounters.map((counter) => `\tcounter ${counter} {\n\t}`).join('\n')}
	set mac {
		type ifname . ether_addr
	}
	set ip4 {
		type ifname . ether_addr . ipv4_addr
	}
	set any_ip4 {
		type ifname . ether_addr
	}
	set joined {
		type ifname
	}
${guardCounters.map(dropSetText).join('')}${guardCounters.map(dropChainText).join('')}	chain guard {
		type filter hook prerouting priority dstnat; policy accept;
		iifname "${tapPrefix(instance)}*" goto guard_port
		iifname "${vethPrefix(instance)}*" goto guard_port
	}
	chain guard_port {
		iifname . ether saddr != @mac goto forged_mac
		ether type arp goto guard_arp
		ether type ip goto guard_ipv4
		ether type ip6 goto guard_ipv6
		goto other_protocol
	}
	chain guard_arp {
		${PLAIN_ARP} iifname . arp saddr ether . arp saddr ip @ip4 accept
		${PLAIN_ARP} arp operation request arp saddr ip 0.0.0.0 iifname . arp saddr ether . arp daddr ip @ip4 accept
		${PLAIN_ARP} iifname . arp saddr ether @any_ip4 accept
		goto forged_arp
	}
	chain guard_ipv4 {
		udp sport 67 goto guest_dhcp_server
		iifname . ether saddr . ip saddr @ip4 accept
		ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept
		iifname . ether saddr @any_ip4 accept
		goto forged_ipv4
	}
	chain guard_ipv6 {
		icmpv6 type nd-router-advert goto guest_router
		udp sport 547 goto guest_dhcp_server
		accept
	}
}
`;
}

/**
 * Where what comes to a port of the host goes on to; networks that are kept apart get nowhere by it. What is in no map goes to
 * the next rule by itself: some kernels, that of Debian 12 among them, refuse a map where only a member is asked for.
 */
const forwardRules = `		dnat ip to ip daddr . meta l4proto . th dport map @address_forwards
		fib daddr type local dnat ip to meta l4proto . th dport map @port_forwards
`;

/**
 * The firewall. `bridged` is for hosts where bridge-nf-call-iptables sends bridged frames through these hooks, with the
 * bridge as both ends. Whatever leaves a bridge of ours for elsewhere does so as nat or not at all.
 *
 * Ports of the host are passed on by the maps. What the host itself sends to such a port of its loopback interface leaves
 * with the bridge's address, for which the bridge has route_localnet; `loopback` keeps guests from what else is there.
 */
function firewall(instance: InstanceId): string {
  const ours = `"${bridgePrefix(instance)}*"`;
  return `add table inet ${tableName(instance)}
flush table inet ${tableName(instance)}
table inet ${tableName(instance)} {
	counter not_forwarded {
	}
	set bridged {
		type ifname . ifname
	}
	set nat_bridges {
		type ifname
	}
	set nat_subnets {
		type ipv4_addr
		flags interval
	}
	map port_forwards {
		type inet_proto . inet_service : ipv4_addr . inet_service
	}
	map address_forwards {
		type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
	}
	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		iifname ${ours} iifname != @nat_bridges return
${forwardRules}	}
	chain output {
		type nat hook output priority -100; policy accept;
${forwardRules}	}
	chain loopback {
		type filter hook input priority filter; policy accept;
		iifname ${ours} ip daddr 127.0.0.0/8 ct state new,invalid,untracked counter name not_forwarded drop
	}
	chain forward {
		type filter hook forward priority filter; policy accept;
		iifname . oifname @bridged accept
		oifname @nat_bridges ct status dnat accept
		iifname @nat_bridges oifname != ${ours} ip saddr @nat_subnets accept
		oifname @nat_bridges iifname != ${ours} ct state established,related accept
		iifname ${ours} counter name not_forwarded drop
		oifname ${ours} counter name not_forwarded drop
	}
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		oifname != ${ours} ip saddr @nat_subnets masquerade
		oifname @nat_bridges ip saddr 127.0.0.0/8 masquerade
		oifname @nat_bridges ip saddr @nat_subnets ct status dnat masquerade
	}
}
`;
}

/** Makes both tables, or renews their rules. */
export const tablesText = (instance: InstanceId): string => guard(instance) + firewall(instance);

/** Deletes both tables; absent ones do not matter. */
export const tablesRemovalText = (instance: InstanceId): string =>
  (['bridge', 'inet'] as const)
    .flatMap((family) => [
      `add table ${family} ${tableName(instance)}`,
      `delete table ${family} ${tableName(instance)}`,
    ])
    .map((line) => `${line}\n`)
    .join('');

export const addElementsText = (instance: InstanceId, elements: readonly SetElement[]): string =>
  elements.map((element) => `${change('add', instance, element)}\n`).join('');

/** Deletes elements, absent ones too: `delete` alone would refuse those, so each is added before. */
export const deleteElementsText = (instance: InstanceId, elements: readonly SetElement[]): string =>
  elements
    .map((element) => `${change('add', instance, element)}\n${change('delete', instance, element)}\n`)
    .join('');

function change(
  verb: 'add' | 'delete',
  instance: InstanceId,
  { family, set, parts, value = [] }: SetElement,
): string {
  const key = parts.map(elementWord).join(' . ');
  const mapped = verb === 'add' && value.length > 0 ? ` : ${value.join(' . ')}` : '';
  return `${verb} element ${family} ${tableName(instance)} ${set} { ${key}${mapped} }`;
}

/** A part of an element as `nft` reads it: names of links are quoted. */
export const elementWord = (part: string): string =>
  /^[A-Za-z]/.test(part) && !part.includes(':') && part !== 'tcp' && part !== 'udp' ? `"${part}"` : part;
