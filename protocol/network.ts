/**
 * Networks that guests attach to. Kinds use libvirt's words. `bridge` is a bridge of the host that somebody else made;
 * `user` is QEMU's own user-mode stack, the only kind that needs no privileges: each guest has one to itself.
 */
import { z } from 'zod';
import {
  ipv4Address,
  ipv4Subnet,
  linkName,
  millisecondsSinceEpoch,
  networkId,
  networkName,
} from './types.ts';

export const networkKind = z.enum(['nat', 'isolated', 'bridge', 'user']);
export type NetworkKind = z.infer<typeof networkKind>;

export const networkSpec = z.strictObject({
  name: networkName,
  kind: networkKind.default('nat'),
  subnet: ipv4Subnet
    .optional()
    .describe(
      'IPv4 subnet, as 10.91.7.0/24 (/16 to /29); a free one is chosen unless given; only for kinds nat and isolated',
    ),
  bridge: linkName
    .optional()
    .describe('Bridge of the host to join, which stays as it is; for kind bridge, and only for it'),
});
export type NetworkSpec = z.output<typeof networkSpec>;

export const networkView = z.strictObject({
  id: networkId,
  name: networkName,
  kind: networkKind,
  state: z.enum(['creating', 'ready', 'failed', 'deleting']),
  reason: z.string().optional(),
  bridge: z.string().optional().describe('Link name of its bridge, or of the one it joins'),
  subnet: z.string().optional(),
  gateway: ipv4Address.optional().describe("The host's address in it"),
  names: z
    .strictObject({
      domain: z.string().describe('A guest is found as its name, a dot and this'),
      server: ipv4Address.describe('DNS server that answers for it'),
      onHost: z
        .boolean()
        .describe(
          "Whether the host's own resolver asks that server; else ask it, as `dig @SERVER GUEST.DOMAIN`",
        ),
    })
    .optional()
    .describe('How guests are found by name; absent where the network gives them none'),
  usedBy: z.array(z.string()).describe('Names of the guests attached'),
  createdAt: millisecondsSinceEpoch,
});
export type NetworkView = Readonly<z.infer<typeof networkView>>;
