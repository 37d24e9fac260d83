/**
 * The contract of a network backend: it makes networks and the ports by which guests attach to them. A backend yields a
 * `NetPort` for each NIC; what consumes it is none of its business.
 *
 * Words. *Network*: a place where ports meet. *Port*: one NIC's end on the host. *Attach*: make the port and let its
 * frames through. *Lease*: an address the network gave to a port. *Answer*: proof that a guest is there, given by itself.
 *
 * Rules every backend keeps; `test/conformance/network.ts` holds it to them:
 * - Every method may be done again after any crash: a finished one changes nothing.
 * - `attach` either gives a port or leaves nothing behind; a port that is not guarded yet passes nothing.
 * - A veth port that nobody runs with is made anew by `attach`, and `detach` takes it out of whichever namespace it is in.
 * - A port lets through only frames from its own MAC and, for IPv4 and ARP, its own address where it has one.
 * - Nothing of the host outside the backend's own computable names is changed.
 */
import type { ForeignFirewall } from '../protocol/host.ts';
import type { HostObject } from '../protocol/host-object.ts';
import type { NetPort, PortForward } from '../protocol/net-port.ts';
import type { NetworkKind } from '../protocol/network.ts';
import type { GuestId, InstanceId, MacAddress, NetworkId } from '../protocol/types.ts';

export interface NetworkPlace {
  readonly id: NetworkId;
  /** Small number, unique in the instance, never used again: part of link names. */
  readonly number: number;
  readonly name: string;
  readonly kind: NetworkKind;
  readonly instance: InstanceId;
  /** As 10.91.7.0/24; only of kinds nat and isolated. */
  readonly subnet?: string;
  /** Link name of the bridge it joins; only of kind bridge. */
  readonly bridge?: string;
  /** `<state-dir>/networks/<id>`: leases and host files; kept while the network exists. */
  readonly stateDirectory: string;
  /** `<run-dir>/networks/<id>`: pid file of its server; gone after a boot of the host. */
  readonly runDirectory: string;
}

/** What a driver needs of a NIC: `tap`: a descriptor, for a machine · `veth`: a link, for a network namespace. */
export type PortEnd = 'tap' | 'veth';

export interface PortSpec {
  readonly guest: GuestId;
  readonly guestNumber: number;
  /** By which it is found on its network; absent of a guest that is not to be found yet. */
  readonly guestName?: string;
  /** Index of the NIC in its guest. */
  readonly index: number;
  /** `tap` unless given; a kind of network without bridges has but one end of its own. */
  readonly end?: PortEnd;
  readonly mac: MacAddress;
  /** Address kept for it; absent for kind user, and for kind bridge unless it is fixed. */
  readonly ipv4?: string;
  /** What of the host is passed on to it; only of kinds user and nat. */
  readonly forwards?: readonly PortForward[];
}

export interface PortPlan {
  readonly port: NetPort;
  readonly objects: readonly HostObject[];
}

export interface AttachedPort {
  readonly port: NetPort;
  /** Descriptor of a tap, close-on-exec; absent for other ports. Whoever attached closes it after the launch. */
  readonly descriptor?: number;
  /**
   * Resolves when the port lets its own frames through and no others, and its network knows it; absent where nothing is
   * left to do. Before that its guest must not run. Whoever attached waits for the end of it also before detaching, and
   * detaches when it rejects: with HostError, Unsupported or the signal's reason.
   */
  readonly guarded?: Promise<void>;
}

/** Proof that the guest of a port is up and at its address: it was asked, and answered. */
export interface PortAnswer {
  /**
   * `lease`: it took its lease in this run, and its address answers ARP · `neighbour`: its address answers ARP ·
   * `banner`: a server in it spoke through a forwarded port.
   */
  readonly kind: 'lease' | 'neighbour' | 'banner';
  /** Where it answered, as seen from the host. */
  readonly address: string;
}

/** What is known of a port at this moment. */
export interface PortReport {
  /** Addresses with where each is known from. */
  readonly addresses: readonly {
    readonly source: 'lease' | 'neighbour';
    readonly address: string;
    /** State of a neighbour entry, as `reachable` or `stale`. */
    readonly state?: string;
    /** End of a lease, in milliseconds since the epoch. */
    readonly expiresAt?: number;
  }[];
  /** Frames of the guest that were dropped since its port was attached, by reason; only reasons that occurred. */
  readonly droppedFrames: Readonly<Record<string, number>>;
}

export interface NetworkNames {
  /** `guest.domain` is the name of a guest. */
  readonly domain: string;
  /** Address of the DNS server that answers for it. */
  readonly server: string;
  /** Whether the host's own resolver asks that server. */
  readonly onHost: boolean;
}

export interface NetworkBackend {
  readonly kinds: readonly NetworkKind[];

  /** What `ensure` makes, for the ledger. Makes nothing. */
  plan(network: NetworkPlace): readonly HostObject[];
  /**
   * Makes the network, or mends it: bridge, address, rules, DHCP and DNS.
   * Errors: Unsupported without privileges, HostError with the tool's words, ResourceExhausted for a subnet in use.
   */
  ensure(network: NetworkPlace, signal: AbortSignal): Promise<void>;
  /** Removes all of it. */
  remove(network: NetworkPlace, signal: AbortSignal): Promise<void>;

  /** Errors: Unsupported for an end that networks of its kind do not have; of `attach` as well. */
  planPort(network: NetworkPlace, port: PortSpec): PortPlan;
  attach(network: NetworkPlace, port: PortSpec, signal: AbortSignal): Promise<AttachedPort>;
  detach(network: NetworkPlace, port: PortSpec, signal: AbortSignal): Promise<void>;

  /**
   * Puts back the rules and host files of a port that is attached, after somebody took them away; changes nothing
   * where they are there.
   */
  restorePort?(network: NetworkPlace, port: PortSpec, signal: AbortSignal): Promise<void>;

  /** Tells the network of the name that the guest of an attached port has got. May be done again. */
  announce?(network: NetworkPlace, port: PortSpec, signal: AbortSignal): Promise<void>;

  /**
   * Resolves once the guest of an attached port has given an answer in the run that began at `since`; never where nothing
   * can be asked. It asks by itself as long as it is waited for. Rejects with the signal's reason only.
   */
  answer(network: NetworkPlace, port: PortSpec, since: number, signal: AbortSignal): Promise<PortAnswer>;

  /** What is known of a port, attached or not. Errors: HostError. */
  report(network: NetworkPlace, port: PortSpec, signal: AbortSignal): Promise<PortReport>;

  /** How the names of guests are asked for; undefined where it gives them none. From memory. */
  namesOf?(network: NetworkPlace): NetworkNames | undefined;

  /** Subnets in use on the host, by whomever. */
  usedSubnets?(signal: AbortSignal): Promise<readonly string[]>;

  /** Ports on which somebody listens or talks, at any address of the host; where ports are passed on to guests. */
  usedPorts?(signal: AbortSignal): Promise<ReadonlySet<number>>;

  /**
   * Removes objects that `inspect` gave and that belong to no network and no port any more; those that are gone do not
   * matter. Never called for anything of another instance.
   */
  discard(
    place: { readonly instance: InstanceId; readonly runDirectory: string; readonly stateDirectory: string },
    objects: readonly HostObject[],
    signal: AbortSignal,
  ): Promise<void>;

  /** Rules of others that drop what networks forward: for people, never touched. */
  foreignFirewalls?(
    place: { readonly instance: InstanceId },
    signal: AbortSignal,
  ): Promise<readonly ForeignFirewall[]>;

  /** What of another instance is on the host and looks like ours: for people, never touched. */
  foreign?(place: { readonly instance: InstanceId }, signal: AbortSignal): Promise<readonly HostObject[]>;

  /** What of this backend is on the host for the instance, in the words of the ledger. */
  inspect(
    place: { readonly instance: InstanceId; readonly runDirectory: string; readonly stateDirectory: string },
    signal: AbortSignal,
  ): Promise<readonly HostObject[]>;
}

/** IPv4 arithmetic of networks: pure, given by whoever composes the daemon. */
export interface Addressing {
  /** The host's own address in a subnet. Errors: InvalidArgument for a subnet that is malformed, too large or too small. */
  gatewayOf(subnet: string): string;
  /** Whether a guest may have this address: in the subnet, and neither its ends nor the gateway. */
  isGuestAddress(subnet: string, address: string): boolean;
  /** The lowest address that nobody has; undefined when all are taken. */
  freeAddress(subnet: string, used: readonly string[]): string | undefined;
  /** A subnet that overlaps none of those taken; undefined when there is none. */
  chooseSubnet(taken: readonly string[]): string | undefined;
  /** The first of `taken` that the subnet overlaps. */
  overlapping(subnet: string, taken: readonly string[]): string | undefined;
}
