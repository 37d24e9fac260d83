/**
 * Networks that guests attach to. Kinds use libvirt's words. `user` is QEMU's own user-mode stack, the only kind
 * that needs no privileges: each guest has one to itself.
 */
import { z } from 'zod';
import { ipv4Address, ipv4Subnet, millisecondsSinceEpoch, networkId, networkName } from './types.ts';

export const networkKind = z.enum(['nat', 'isolated', 'user']);
export type NetworkKind = z.infer<typeof networkKind>;

export const networkSpec = z.strictObject({
  name: networkName,
  kind: networkKind.default('nat'),
  subnet: ipv4Subnet
    .optional()
    .describe(
      'IPv4 subnet, as 10.91.7.0/24 (/16 to /29); a free one is chosen unless given; not for kind user',
    ),
});
export type NetworkSpec = z.output<typeof networkSpec>;

export const networkView = z.strictObject({
  id: networkId,
  name: networkName,
  kind: networkKind,
  state: z.enum(['creating', 'ready', 'failed', 'deleting']),
  reason: z.string().optional(),
  bridge: z.string().optional().describe('Link name of its bridge'),
  subnet: z.string().optional(),
  gateway: ipv4Address.optional().describe("The host's address in it"),
  usedBy: z.array(z.string()).describe('Names of the guests attached'),
  createdAt: millisecondsSinceEpoch,
});
export type NetworkView = Readonly<z.infer<typeof networkView>>;
