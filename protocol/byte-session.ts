/**
 * A program in a guest over a connection: after the reply the connection carries frames of channels both ways, each a
 * byte with the channel's number, four with the length of the payload, the most significant first, and the payload. The
 * numbers are those of the channels of Kubernetes' remote commands (k8s.io/apimachinery, remotecommand), as far as it
 * has them. The daemon ends the connection after the frame `end`. Without schemas: who only talks need not load them.
 */
import type { WireError } from './errors.ts';

export const sessionChannels = {
  /** To the program's standard input; an empty payload is its end. */
  stdin: 0,
  stdout: 1,
  stderr: 2,
  /** From the daemon, once and last: JSON of `SessionEnd`. */
  end: 3,
  /** To the daemon: JSON of `TerminalSize`. */
  resize: 4,
  /** To the daemon: JSON of `SessionSignal`. */
  signal: 5,
} as const;

export const MAX_SESSION_PAYLOAD_BYTES = 65_536;

export interface TerminalSize {
  readonly rows: number;
  readonly columns: number;
}

export interface SessionSignal {
  /** By number (signal(7)). */
  readonly signal: number;
}

/** How a session ended: by the program's exit, by the signal that ended it, or because nobody can tell. */
export type SessionEnd = { readonly exitCode: number } | SessionSignal | { readonly error: WireError };
