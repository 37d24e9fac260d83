/**
 * Scalars and ids that the whole contract shares. Sizes are integers of bytes, times of the wire are
 * milliseconds since the epoch unless a name says otherwise.
 */
import { z } from 'zod';

export const MEBIBYTE = 1024 * 1024;

export const guestId = z.uuid().brand<'GuestId'>();
export type GuestId = z.infer<typeof guestId>;
export const operationId = z.uuid().brand<'OperationId'>();
export type OperationId = z.infer<typeof operationId>;
export const imageId = z.uuid().brand<'ImageId'>();
export type ImageId = z.infer<typeof imageId>;
export const networkId = z.uuid().brand<'NetworkId'>();
export type NetworkId = z.infer<typeof networkId>;
/** Short id of one daemon with its state directory; part of every computable name on the host. */
export const instanceId = z
  .string()
  .regex(/^[a-z0-9]{5}$/)
  .brand<'InstanceId'>();
export type InstanceId = z.infer<typeof instanceId>;

/** A DNS label (RFC 1123 section 2.1), because a guest is found by its name on its network. */
export const dnsLabel = z
  .string()
  .regex(
    /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/,
    'must be a DNS label: a-z, 0-9 and inner hyphens, 1 to 63 long',
  );
export const guestName = dnsLabel.describe('Name of a guest: a DNS label, unique in the inventory');
export const networkName = dnsLabel.describe('Name of a network');
export const imageName = z
  .string()
  .max(63)
  .regex(
    /^[a-z0-9][a-z0-9._-]*(\/[a-z0-9][a-z0-9._-]*)*$/,
    'must be 1 to 63 of a-z, 0-9, dot, underscore and hyphen, in parts between slashes, as debian/12',
  )
  .describe('Name of an image');
export const imageVersion = z
  .string()
  .regex(
    /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/,
    'must be 1 to 63 of letters, digits, dot, underscore and hyphen',
  )
  .describe('Version of an image, unique under its name');
export const deviceName = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,14}$/, 'must be 1 to 15 of a-z, 0-9 and hyphen, starting with a letter')
  .describe('Name of a device, unique in its guest');

/** A guest, named or by id. An id always wins over a name of the same form. */
export const guestReference = z.string().min(1).max(63).describe('Name or id of a guest');
export const imageReference = z
  .string()
  .min(1)
  .max(127)
  .describe('An image: NAME for its newest version, NAME@VERSION for that one, an alias, or an id');
export const networkReference = z.string().min(1).max(63).describe('Name or id of a network');

export const macAddress = z
  .string()
  .regex(/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/, 'must be six lower-case octets, as 52:54:00:12:34:56')
  .refine((mac) => (Number.parseInt(mac.slice(0, 2), 16) & 1) === 0, 'must be a unicast address')
  .brand<'MacAddress'>();
export type MacAddress = z.infer<typeof macAddress>;
/** A network interface of the host, as the kernel takes it (dev_valid_name): 15 bytes, no slash, colon or white space. */
export const linkName = z
  .string()
  .regex(/^[A-Za-z][A-Za-z0-9._-]{0,14}$/, 'must be 1 to 15 of A-Z, a-z, 0-9, dot, underscore and hyphen')
  .describe('Name of a network interface of the host');
export const ipv4Address = z.ipv4();
export const ipv4Subnet = z.cidrv4();

export const byteCount = z.int().nonnegative();
export const millisecondsSinceEpoch = z.int().nonnegative().describe('Milliseconds since 1970-01-01T00:00Z');
export const durationMs = z.int().nonnegative().describe('Duration in milliseconds');

/**
 * Who asked for a change: `unix:uid=N,pid=N`, `token:NAME`, `policy:restart`, `policy:autostart`, `policy:delete`, `policy:waiting`, `policy:template`, `guest`, `daemon`.
 */
export const actor = z
  .string()
  .min(1)
  .max(128)
  .describe(
    'Who asked: unix:uid=N,pid=N · token:NAME · policy:restart · policy:autostart · policy:delete · policy:waiting · policy:template · policy:host-shutdown · guest · daemon',
  );
export type Actor = string;

/** Who may call a command; each role includes those before it. Members of the socket's group are `admin`. */
export const roles = ['read', 'operate', 'admin'] as const;
export const role = z.enum(roles);
export type Role = z.infer<typeof role>;
export const roleIncludes = (held: Role, needed: Role): boolean =>
  roles.indexOf(held) >= roles.indexOf(needed);

export const idempotencyKey = z
  .string()
  .min(1)
  .max(128)
  .describe(
    'The same key gives the same operation and the same answer, also after a crash, whatever else the request says; for another command or object it is refused',
  );

export const page = {
  limit: z
    .int()
    .min(1)
    .max(100_000)
    .optional()
    .describe('Entries at most; without it a page stays under 64 KiB'),
  after: z.string().max(128).optional().describe('The `next` of the page before'),
};

/** Text that goes into an argument of a process: no character that would end or hide a part of it. */
export const printable = (max: number): z.ZodString =>
  z
    .string()
    .max(max)
    .regex(/^\P{Cc}*$/u, 'must not hold control characters');
