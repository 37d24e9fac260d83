/** What a network yields and a driver consumes: a NIC's end on the host. A tap's descriptor travels beside it. */
import type { MacAddress } from './types.ts';

export type NetPort =
  | { readonly kind: 'tap'; readonly link: string; readonly mac: MacAddress }
  | { readonly kind: 'user'; readonly mac: MacAddress };
