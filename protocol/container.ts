/** What only containers have: how they are begun, what they may use, their ids. */
import { z } from 'zod';
import { byteCount, printable } from './types.ts';

/** A capability without its prefix, as liblxc names it (capabilities(7)). */
const capability = z.string().regex(/^[a-z][a-z_]{1,31}$/, 'must be as sys_time, without cap_');

/** Ids 0 to count - 1 of a container are first and so on of the host. */
export const idRange = z.strictObject({ first: z.int().min(1), count: z.int().min(1) });
export type IdRange = Readonly<z.infer<typeof idRange>>;

/** How a container is begun, besides what it is begun with. */
export const containerSettings = {
  init: z
    .array(printable(4096).min(1))
    .min(1)
    .max(256)
    .optional()
    .describe('Command line of its init, in place of /sbin/init'),
  nesting: z
    .boolean()
    .default(false)
    .describe('Whether it can run containers itself: it may mount /proc and /sys again'),
  keepCapabilities: z
    .array(capability)
    .max(64)
    .default([])
    .describe('Capabilities that containers are not left with by default'),
  dropCapabilities: z.array(capability).max(64).default([]).describe('Capabilities to take from it, besides'),
};

/** What a guest may use of the host besides memory and CPUs; no limit where nothing is given. */
export const limitsSpec = z.strictObject({
  processes: z.int().min(1).max(4_194_304).optional().describe('Processes and threads'),
  readBytesPerSecond: byteCount.min(1).optional().describe('Read from its storage, in a second'),
  writeBytesPerSecond: byteCount.min(1).optional().describe('Written to its storage, in a second'),
});
export type LimitsSpec = Readonly<z.infer<typeof limitsSpec>>;

/** Limits that are given, as a change: null takes one away. */
export const limitsChanges = z
  .strictObject({
    processes: limitsSpec.shape.processes.nullable(),
    readBytesPerSecond: limitsSpec.shape.readBytesPerSecond.nullable(),
    writeBytesPerSecond: limitsSpec.shape.writeBytesPerSecond.nullable(),
  })
  .partial();
