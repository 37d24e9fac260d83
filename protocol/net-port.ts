/** What a network yields and a driver consumes: a NIC's end. A tap's descriptor travels beside it. */
import type { MacAddress } from './types.ts';

/** A port of the host whose connections or packets a guest gets. */
export interface PortForward {
  readonly protocol: 'tcp' | 'udp';
  readonly hostAddress: string;
  readonly hostPort: number;
  readonly guestPort: number;
}

/** An address that a guest may take without asking for it; a DHCP server gives the same. */
export interface StaticIpv4 {
  readonly address: string;
  readonly prefixLength: number;
  /** Where the way out is; absent on a network without one. */
  readonly gateway?: string;
}

/** A pair of links, of which what is sent into one comes out of the other. */
export interface VethPort {
  readonly kind: 'veth';
  /** The host's end: in the bridge, and guarded. */
  readonly link: string;
  /**
   * The guest's end, under its MAC address: in the network namespace of the daemon, and down, until whoever runs the
   * guest moves it into the guest's. It is gone with that namespace, and with the other end.
   */
  readonly peer: string;
  readonly mac: MacAddress;
  /** Absent where the network keeps no address for the port, or does not know its subnet. */
  readonly ipv4?: StaticIpv4;
}

export type NetPort =
  | VethPort
  | { readonly kind: 'tap'; readonly link: string; readonly mac: MacAddress }
  | { readonly kind: 'user'; readonly mac: MacAddress; readonly forwards?: readonly PortForward[] };
