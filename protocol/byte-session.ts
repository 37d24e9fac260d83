/**
 * A program in a guest over a connection: after the reply the connection carries frames of channels both ways, each a
 * byte with the channel's number, four with the length of the payload, the most significant first, and the payload. The
 * numbers are those of the channels of Kubernetes' remote commands (k8s.io/apimachinery, remotecommand), as far as it
 * has them. The daemon ends the connection after the frame `end`.
 */
import { z } from 'zod';

export const sessionChannels = {
  /** To the program's standard input; an empty payload is its end. */
  stdin: 0,
  stdout: 1,
  stderr: 2,
  /** From the daemon, once and last: JSON of `sessionEnd`. */
  end: 3,
  /** To the daemon: JSON of `terminalSize`. */
  resize: 4,
  /** To the daemon: JSON of `sessionSignal`. */
  signal: 5,
} as const;

export const MAX_SESSION_PAYLOAD_BYTES = 65_536;

export const terminalSize = z.strictObject({
  rows: z.int().min(1).max(65_535),
  columns: z.int().min(1).max(65_535),
});
export type TerminalSize = Readonly<z.infer<typeof terminalSize>>;

export const sessionSignal = z.strictObject({ signal: z.int().min(1).max(64).describe('As of signal(7)') });

export const sessionEnd = z.union([
  z.strictObject({ exitCode: z.int().min(0).max(255) }),
  z.strictObject({ signal: z.int().min(1).max(127).describe('Number of the signal that ended it') }),
  z.strictObject({
    error: z.looseObject({
      class: z.string(),
      desc: z.string(),
      hint: z.string().optional(),
    }),
  }),
]);
export type SessionEnd = z.infer<typeof sessionEnd>;
