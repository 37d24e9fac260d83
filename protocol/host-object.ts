/**
 * What a plan makes on the host, and what the ledger holds: objects under computable names. An object stands in
 * the ledger before it is made; inspection of the host answers in the same words, so that the two can be compared.
 */
import { z } from 'zod';

export const hostObjectKinds = {
  process: 'A process; its name is the path of the lock or pid file that proves it alive',
  socket: 'A listening UNIX socket, by path',
  file: 'A file, by path',
  directory: 'A directory with what is in it, by path',
  tap: 'A tap device, by link name; goes with the process that holds it',
  veth: 'A veth pair, by the link name of its end on the host; goes with the network namespace of the other end',
  bridge: 'A bridge device, by link name',
  'nft-table': 'An nftables table, as family/name',
  'nft-element': 'An element of an nftables set, as family/table/set/element',
  cgroup: 'A control group, by path',
  scope: 'A transient scope of systemd, by unit name; goes with its process',
} as const;

export type HostObjectKind = keyof typeof hostObjectKinds;

export const hostObject = z.strictObject({
  kind: z.enum(Object.keys(hostObjectKinds) as [HostObjectKind, ...HostObjectKind[]]),
  name: z.string().min(1).describe('Computable name, unique with its kind on this host'),
});

export type HostObject = Readonly<z.infer<typeof hostObject>>;

/** Key under which a host object is the same in ledger and host. */
export const hostObjectKey = (object: HostObject): string => `${object.kind} ${object.name}`;
