/** The command that shows the transcript of a guest's monitor. */
import { z } from 'zod';
import { defineCommand } from '../command.ts';
import { qmpLogEntry, unansweredCommand } from '../qmp-log.ts';
import { guestReference } from '../types.ts';

export const queryGuestQmpLog = defineCommand({
  name: 'query-guest-qmp-log',
  summary: "Show what the daemon and a guest's monitor said to each other by QMP",
  description:
    "The monitor is QEMU's, or that of the warden which is a container's process. Commands, answers, errors and events, and what waits for an answer. Kept with the guest's logs, at most 1 MiB, over restarts of the daemon; one that is killed loses the last tenth of a second. Secrets are hidden, of a huge message only the beginning is kept. What is said to the guest's agent is not in it.",
  role: 'read',
  nature: 'query',
  since: '0.2.0',
  arguments: z.strictObject({
    guest: guestReference,
    after: z
      .int()
      .nonnegative()
      .optional()
      .describe('Only entries numbered higher; without it the last ones'),
    limit: z.int().min(1).max(1000).optional().describe('Most entries; by default as many as 64 KiB hold'),
  }),
  returns: z.strictObject({
    entries: z.array(qmpLogEntry).describe('The oldest first'),
    lost: z
      .strictObject({ from: z.int(), to: z.int() })
      .optional()
      .describe('Numbers that were asked for and are no longer kept'),
    unanswered: z.array(unansweredCommand).describe('What this daemon has asked and waits for'),
  }),
});
