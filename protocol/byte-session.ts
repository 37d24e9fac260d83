/**
 * A program in a guest, or its serial console, over a connection: after the reply the connection carries frames of
 * channels both ways, each a byte with the channel's number, four with the length of the payload, the most significant
 * first, and the payload. The numbers are those of the channels of Kubernetes' remote commands (k8s.io/apimachinery,
 * remotecommand), as far as it has them. The daemon ends the connection after the frame `end`. Without schemas: who only
 * talks need not load them.
 */
import type { WireError } from './errors.ts';

export const sessionChannels = {
  /** To the program's standard input, or what is typed at a console; an empty payload is its end. */
  stdin: 0,
  stdout: 1,
  stderr: 2,
  /** From the daemon, once and last: JSON of `SessionEnd`. */
  end: 3,
  /** To the daemon: JSON of `TerminalSize`. A serial line has none: there it changes nothing. */
  resize: 4,
  /** To the daemon: JSON of `SessionSignal`. A serial line takes none: there it changes nothing. */
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

/** What was there besides a program is over: a console ends with its guest. */
export interface SessionClosed {
  readonly closed: 'guest-ended';
}

/**
 * How a session ended: by the program's exit, by the signal that ended it, with the guest, or for whoever was connected
 * alone: they were too far behind, or what was at the other end is out of reach.
 */
export type SessionEnd =
  | { readonly exitCode: number }
  | SessionSignal
  | SessionClosed
  | { readonly error: WireError };
