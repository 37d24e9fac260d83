/**
 * What a guest is told by cloud-init at its first boot, through a NoCloud seed (docs.cloud-init.io, "NoCloud"). Simple
 * settings make a cloud-config; whoever needs more gives texts of his own, which go to the guest as they are.
 */
import { z } from 'zod';
import { sshKeyPattern } from './ssh-key-pattern.ts';

/** Name of the seed's device and label of its file system. No disk may be called so. */
export const SEED_DEVICE = 'cidata';

const KIBIBYTE = 1024;
const MAX_USER_DATA = 256 * KIBIBYTE;
const MAX_OTHER_DATA = 64 * KIBIBYTE;

const text = (max: number): z.ZodString => z.string().min(1).max(max);

const sshKey = z
  .string()
  .max(16 * KIBIBYTE)
  .regex(sshKeyPattern, 'must be one public key as in a .pub file, as "ssh-ed25519 AAAA… me@home"');

/** A name as useradd(8) takes it. */
const userName = z
  .string()
  .regex(/^[a-z_][a-z0-9_-]{0,31}$/, 'must be 1 to 32 of a-z, 0-9, underscore and hyphen')
  .refine(
    (name) => name !== 'root',
    'must not be root: write a userData with `disable_root: false` for that',
  );

/** A host name, with its domain if it has one (RFC 1123 section 2.1). */
const hostName = z
  .string()
  .max(253)
  .regex(
    /^[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$/,
    'must be a host name, as web1 or web1.example.org',
  );

/** crypt(5): MD5, bcrypt, SHA-256, SHA-512, scrypt, yescrypt, gost-yescrypt. */
const passwordHash = z
  .string()
  .max(384)
  .regex(/^\$(?:1|2[aby]|5|6|7|y|gy)\$[^\s:!*]+$/, 'must be a hash of crypt(5), as mkpasswd(1) prints it');

const settings = {
  hostname: hostName.optional().describe("Host name in the guest; the guest's own name unless given"),
  user: userName
    .optional()
    .describe("Name for the image's default user, who may become root by sudo; the image's own unless given"),
  sshKeys: z.array(sshKey).max(64).optional().describe('Public keys with which that user may log in by SSH'),
  passwordHash: passwordHash
    .optional()
    .describe("Hash, as crypt(5) makes it, of that user's password on the console; never shown again"),
  userData: text(MAX_USER_DATA)
    .optional()
    .describe('User-data of your own: a cloud-config, a script or another format of cloud-init, as it is'),
  metaData: text(MAX_OTHER_DATA)
    .optional()
    .describe('Meta-data of your own, YAML; instance-id and local-hostname are added where they are missing'),
  networkConfig: text(MAX_OTHER_DATA)
    .optional()
    .describe('Network configuration of your own, version 1 or 2; each NIC by DHCP unless given'),
};

export const cloudInitSpec = z.strictObject(settings);
export type CloudInitSpec = Readonly<z.output<typeof cloudInitSpec>>;

/** Members that are not given stay as they are; null takes one away. */
export const cloudInitChanges = z.strictObject({
  hostname: settings.hostname.nullable(),
  user: settings.user.nullable(),
  sshKeys: settings.sshKeys.nullable(),
  passwordHash: settings.passwordHash.nullable(),
  userData: settings.userData.nullable(),
  metaData: settings.metaData.nullable(),
  networkConfig: settings.networkConfig.nullable(),
  newInstance: z
    .boolean()
    .optional()
    .describe('Give it a new instance-id: cloud-init then does all of a first boot again'),
});
export type CloudInitChanges = Readonly<z.output<typeof cloudInitChanges>>;

/** What everybody may see of it: no text that could hold a secret. */
export const cloudInitView = z.strictObject({
  instanceId: z.string().describe('By a new one cloud-init knows that it is to do all of a first boot again'),
  hostname: z.string(),
  user: z.string().optional(),
  sshKeys: z.array(z.string()),
  hasPassword: z.boolean(),
  userDataBytes: z.int().optional().describe('Size of the user-data that was given'),
  metaDataBytes: z.int().optional(),
  networkConfigBytes: z.int().optional(),
});
export type CloudInitView = Readonly<z.infer<typeof cloudInitView>>;

/** The files of a seed. */
export const seedFiles = z.strictObject({
  'meta-data': z.string(),
  'user-data': z.string(),
  'vendor-data': z.string().optional().describe('What the settings say, where user-data is your own'),
  'network-config': z.string(),
});
export type SeedFiles = Readonly<Record<'meta-data' | 'user-data' | 'network-config', string>> & {
  readonly 'vendor-data'?: string;
};

/** What cloud-init would take, but hardly as it was meant. */
export const warnings = z.array(z.string());
