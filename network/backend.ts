/**
 * The contract of a network backend: it makes networks and the ports by which guests attach to them. A backend yields a
 * `NetPort` for each NIC; what consumes it is none of its business.
 *
 * Words. *Network*: a place where ports meet. *Port*: one NIC's end on the host. *Attach*: make the port and let its
 * frames through. *Lease*: an address the network gave to a port.
 *
 * Rules every backend keeps; `test/conformance/network.ts` holds it to them:
 * - Every method may be done again after any crash: a finished one changes nothing.
 * - `attach` either gives a port or leaves nothing behind; a port that is not guarded yet passes nothing.
 * - A port lets through only frames from its own MAC and, for IPv4 and ARP, its own address.
 * - Nothing of the host outside the backend's own computable names is changed.
 */
import type { HostObject } from '../protocol/host-object.ts';
import type { NetPort } from '../protocol/net-port.ts';
import type { NetworkKind } from '../protocol/network.ts';
import type { GuestId, InstanceId, MacAddress, NetworkId } from '../protocol/types.ts';

export interface NetworkPlace {
  readonly id: NetworkId;
  /** Small number, unique in the instance, never used again: part of link names. */
  readonly number: number;
  readonly name: string;
  readonly kind: NetworkKind;
  readonly instance: InstanceId;
  /** As 10.91.7.0/24; absent for kind user. */
  readonly subnet?: string;
  /** `<state-dir>/networks/<id>`: leases and host files; kept while the network exists. */
  readonly stateDirectory: string;
  /** `<run-dir>/networks/<id>`: pid file of its server; gone after a boot of the host. */
  readonly runDirectory: string;
}

export interface PortSpec {
  readonly guest: GuestId;
  readonly guestNumber: number;
  readonly guestName: string;
  /** Index of the NIC in its guest. */
  readonly index: number;
  readonly mac: MacAddress;
  /** Address kept for it; absent for kind user. */
  readonly ipv4?: string;
}

export interface PortPlan {
  readonly port: NetPort;
  readonly objects: readonly HostObject[];
}

export interface AttachedPort {
  readonly port: NetPort;
  /** Descriptor of the tap, close-on-exec; absent for kind user. Whoever attached closes it after the launch. */
  readonly descriptor?: number;
  /**
   * Resolves when the port lets its own frames through and no others, and its network knows it; absent where nothing is
   * left to do. Before that its guest must not run. Whoever attached waits for the end of it also before detaching, and
   * detaches when it rejects: with HostError, Unsupported or the signal's reason.
   */
  readonly guarded?: Promise<void>;
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

  planPort(network: NetworkPlace, port: PortSpec): PortPlan;
  attach(network: NetworkPlace, port: PortSpec, signal: AbortSignal): Promise<AttachedPort>;
  detach(network: NetworkPlace, port: PortSpec, signal: AbortSignal): Promise<void>;

  /**
   * Puts back the rules and host files of a port that is attached, after somebody took them away; changes nothing
   * where they are there.
   */
  restorePort?(network: NetworkPlace, port: PortSpec, signal: AbortSignal): Promise<void>;

  /** Subnets in use on the host, by whomever. */
  usedSubnets?(signal: AbortSignal): Promise<readonly string[]>;

  /**
   * Removes objects that `inspect` gave and that belong to no network and no port any more; those that are gone do not
   * matter. Never called for anything of another instance.
   */
  discard(
    place: { readonly instance: InstanceId; readonly runDirectory: string; readonly stateDirectory: string },
    objects: readonly HostObject[],
    signal: AbortSignal,
  ): Promise<void>;

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
