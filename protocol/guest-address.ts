/** Where a guest is found: ports of the host that lead to it, proof that it is up, and what vouches for an address. */
import { z } from 'zod';
import { ipv4Address, millisecondsSinceEpoch } from './types.ts';

export const portNumber = z.int().min(1).max(65_535);

/** A port of the host that is passed on to a guest by QEMU's user-mode stack (its `hostfwd`). */
export const portForward = z.strictObject({
  protocol: z.enum(['tcp', 'udp']).default('tcp'),
  hostAddress: ipv4Address
    .default('127.0.0.1')
    .describe("Where the guest's process listens; 0.0.0.0 is every address of the host"),
  hostPort: z.int().min(0).max(65_535).default(0).describe('0: a free one is chosen once, and kept'),
  guestPort: portNumber.describe('Port in the guest'),
});
export const forwards = z
  .array(portForward)
  .max(64)
  .describe('Ports of the host that are passed on to the guest; only on a network of kind nat or user');

/** Proof that a guest is up: what it gave, and when. */
export const readiness = z.strictObject({
  kind: z
    .enum(['agent', 'lease', 'neighbour', 'banner'])
    .describe(
      'agent: its guest agent answered; lease: it took its lease since the start and its address answers ARP; neighbour: its address answers ARP; banner: its SSH server spoke through a forwarded port',
    ),
  address: z.string().optional().describe('Where it answered, as seen from the host'),
  at: millisecondsSinceEpoch,
});
export type Readiness = Readonly<z.infer<typeof readiness>>;

/** Where an address of a guest is known from, the best evidence first. */
export const addressSources = {
  agent: 'Told by the agent in the guest; only the guest vouches for it',
  neighbour: 'The guest was met there: an entry of the host’s neighbour table',
  lease: 'The guest took it from the DHCP server',
  forward: 'A port of the host that is passed on to the guest',
  reserved: 'Kept for it in the inventory, whether or not it uses it',
} as const;
export type AddressSource = keyof typeof addressSources;
export const addressSource = z.enum(Object.keys(addressSources) as [AddressSource, ...AddressSource[]]);
