/** What a rebuilding of the inventory found and made, what it left out, and what nothing could tell any more. */
import { z } from 'zod';
import { guestId, imageId, instanceId, networkId } from './types.ts';

export const recoveryReport = z.strictObject({
  dryRun: z.boolean().describe('Nothing was made: this is what would be'),
  database: z.strictObject({
    path: z.string(),
    was: z.enum(['lost', 'damaged']),
    why: z.string().describe('What was found in its place'),
    movedTo: z.array(z.string()).describe('Where the files lie that were there; empty in a dry run'),
  }),
  history: z.string().optional().describe('The backup that earlier operations were taken from'),
  instance: instanceId,
  networks: z.array(z.strictObject({ id: networkId, name: z.string() })),
  images: z.array(z.strictObject({ id: imageId, name: z.string(), version: z.string() })),
  guests: z.array(
    z.strictObject({
      id: guestId,
      name: z.string(),
      pid: z.int().optional().describe('Of its process, where one lives'),
    }),
  ),
  changed: z.array(z.string()).describe('What was taken over otherwise than its record says, and why'),
  leftOut: z
    .array(
      z.strictObject({
        what: z.string(),
        path: z.string().optional(),
        why: z.string(),
      }),
    )
    .describe('What was not taken over; its files and its process are untouched'),
  unknown: z.array(z.string()).describe('What no record tells, and what stands in its place'),
});
export type RecoveryReport = Readonly<z.infer<typeof recoveryReport>>;
