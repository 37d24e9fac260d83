/**
 * The replies of the QEMU guest agent that the driver reads (QEMU's qga/qapi-schema.json). Whoever controls the guest
 * chooses every byte of them, so each has bounds; unknown members are dropped.
 */
import { isIP } from 'node:net';
import { z } from 'zod';
import type { AgentInterface } from '../../../protocol/agent.ts';

const MEBIBYTE = 1024 * 1024;
/** Longest reply of most commands; the longest usual one, guest-info, has about 5 KiB. */
export const MAX_REPLY_BYTES = MEBIBYTE;
/** Longest reply with the output of a program; the agent keeps up to 16 MiB of each stream. */
export const MAX_EXEC_REPLY_BYTES = 16 * MEBIBYTE;

/** Text of the guest's that people may see: no control character reaches a terminal. */
export const guestText = (text: string, max: number): string => text.replace(/\p{Cc}+/gu, ' ').slice(0, max);

const nothing = z.object({});
const base64 = z.base64();

export const agentErrorSchema = z.object({ class: z.string().max(64), desc: z.string() });

const interfaceSchema = z.object({
  name: z.string().max(256),
  'hardware-address': z.string().max(64).optional(),
  'ip-addresses': z
    .array(
      z.object({
        'ip-address': z.string().max(64),
        'ip-address-type': z.enum(['ipv4', 'ipv6']),
        prefix: z.int().min(0).max(128),
      }),
    )
    .max(256)
    .optional(),
});

export const agentReturns = {
  'guest-ping': nothing,
  'guest-info': z.object({
    version: z.string().max(256),
    supported_commands: z.array(z.object({ name: z.string().max(128), enabled: z.boolean() })).max(512),
  }),
  'guest-network-get-interfaces': z.array(interfaceSchema).max(256),
  'guest-exec': z.object({ pid: z.int().nonnegative() }),
  'guest-exec-status': z.object({
    exited: z.boolean(),
    exitcode: z.int().optional(),
    signal: z.int().optional(),
    'out-data': base64.optional(),
    'err-data': base64.optional(),
    'out-truncated': z.boolean().optional(),
    'err-truncated': z.boolean().optional(),
  }),
  'guest-file-open': z.int(),
  'guest-file-read': z.object({ count: z.int().nonnegative(), 'buf-b64': base64, eof: z.boolean() }),
  'guest-file-write': z.object({ count: z.int().nonnegative() }),
  'guest-file-seek': z.object({ position: z.int().nonnegative() }),
  'guest-file-flush': nothing,
  'guest-file-close': nothing,
  'guest-fsfreeze-freeze': z.int().nonnegative(),
  'guest-fsfreeze-thaw': z.int().nonnegative(),
  'guest-fsfreeze-status': z.enum(['thawed', 'frozen']),
  'guest-shutdown': nothing,
  'guest-set-time': nothing,
  /** Nanoseconds since the epoch, rounded by what reads them. */
  'guest-get-time': z.number(),
} as const satisfies Readonly<Record<string, z.ZodType>>;

export type AgentCommandName = keyof typeof agentReturns;
export type AgentReturn<C extends AgentCommandName> = z.infer<(typeof agentReturns)[C]>;

const HARDWARE_ADDRESS = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/;

/** Interfaces as the contract writes them; an address that is none is left out. */
export const interfacesOf = (reply: AgentReturn<'guest-network-get-interfaces'>): readonly AgentInterface[] =>
  reply.map((found) => {
    const mac = found['hardware-address']?.toLowerCase();
    return {
      name: guestText(found.name, 64),
      ...(mac !== undefined && HARDWARE_ADDRESS.test(mac) ? { hardwareAddress: mac } : {}),
      ipAddresses: (found['ip-addresses'] ?? [])
        .filter((one) => isIP(one['ip-address']) === (one['ip-address-type'] === 'ipv4' ? 4 : 6))
        .filter((one) => one['ip-address-type'] === 'ipv6' || one.prefix <= 32)
        .map((one) => ({
          ipAddress: one['ip-address'],
          ipAddressType: one['ip-address-type'],
          prefix: one.prefix,
        })),
    };
  });
