/** The record of what the daemon and the monitor of a guest said to each other. */
import { z } from 'zod';
import { millisecondsSinceEpoch } from './types.ts';

/** Kinds of entries, with what they mean. */
export const qmpLogKinds = {
  session: 'The line to the monitor came up or went down',
  command: 'The daemon asked',
  reply: 'The monitor answered',
  error: 'The monitor refused',
  event: 'The monitor told by itself',
  skipped: 'So much came at once that entries are missing',
} as const;
export type QmpLogKind = keyof typeof qmpLogKinds;

export const qmpLogEntry = z.strictObject({
  number: z
    .int()
    .positive()
    .describe('Counts up by one; of the guest, over restarts of it and of the daemon'),
  at: millisecondsSinceEpoch,
  kind: z.enum(Object.keys(qmpLogKinds) as [QmpLogKind, ...QmpLogKind[]]),
  name: z.string().optional().describe('Of the command or event'),
  id: z.int().optional().describe('By which command and answer of one session belong together'),
  ms: z.number().optional().describe('Of an answer: milliseconds since it was asked for'),
  text: z
    .string()
    .optional()
    .describe('Arguments, answer or data as JSON without secrets; of a session or an error words'),
  bytes: z.int().optional().describe('Size of the whole message where text is only its beginning'),
});
export type QmpLogEntry = Readonly<z.infer<typeof qmpLogEntry>>;

export const unansweredCommand = z.strictObject({
  name: z.string().describe('Of the command; greeting where the monitor has not even greeted'),
  at: millisecondsSinceEpoch.describe('When it was asked'),
  ageMs: z.int().nonnegative(),
});
export type UnansweredCommand = Readonly<z.infer<typeof unansweredCommand>>;
