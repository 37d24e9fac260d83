/** What a network yields and a driver consumes: a NIC's end on the host. A tap's descriptor travels beside it. */
import type { MacAddress } from './types.ts';

/** A port of the host whose connections or packets a guest gets. */
export interface PortForward {
  readonly protocol: 'tcp' | 'udp';
  readonly hostAddress: string;
  readonly hostPort: number;
  readonly guestPort: number;
}

export type NetPort =
  | { readonly kind: 'tap'; readonly link: string; readonly mac: MacAddress }
  | { readonly kind: 'user'; readonly mac: MacAddress; readonly forwards?: readonly PortForward[] };
