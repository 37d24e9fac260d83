/** What a run of `roost` has of the world: its streams, its environment, the clock and the signal that ends it. */
import type { ReadStream, WriteStream } from 'node:tty';
import type { Client } from './client.ts';

export interface Io {
  readonly stdin: NodeJS.ReadableStream & Partial<Pick<ReadStream, 'isTTY' | 'setRawMode' | 'unref'>>;
  readonly stdout: NodeJS.WritableStream & Partial<Pick<WriteStream, 'isTTY' | 'rows' | 'columns'>>;
  readonly stderr: NodeJS.WritableStream & { readonly isTTY?: boolean; readonly columns?: number };
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly uid: number;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  /** Aborts with Interrupted. */
  readonly signal: AbortSignal;
  /** How long a daemon is waited for that goes away while something is waited for, in milliseconds. */
  readonly patienceMs: number;
  /** How long a daemon may take to greet. */
  readonly greetingTimeoutMs: number;
  /** Runs a program on this terminal; resolves with its exit code. */
  readonly runProgram: (argv: readonly [string, ...string[]], signal: AbortSignal) => Promise<number>;
}

/** One run of one verb. */
export interface Context {
  readonly io: Io;
  readonly json: boolean;
  /** Whether a changing command waits for its operation. */
  readonly wait: boolean;
  readonly socketPath: string;
  readonly signal: AbortSignal;
  /** The connection of this run, made at its first use. */
  readonly client: () => Promise<Client>;
  /** A connection of one's own, to be closed, for what takes a connection over. */
  readonly anotherClient: () => Promise<Client>;
  /** The connection after one was lost with a failure, once the daemon is back. Throws the failure if it does not come. */
  readonly again: (lost: Client | undefined, failure: unknown) => Promise<Client>;
  /** Lines on standard output. */
  readonly print: (lines: readonly string[] | string) => void;
  /** Lines on standard error. */
  readonly note: (lines: readonly string[] | string) => void;
  readonly printJson: (value: unknown) => void;
}

const asText = (lines: readonly string[] | string): string =>
  (typeof lines === 'string' ? [lines] : lines).map((line) => `${line}\n`).join('');

export const createContext = (
  options: Pick<Context, 'io' | 'json' | 'wait' | 'socketPath' | 'client' | 'anotherClient' | 'again'>,
): Context => ({
  ...options,
  signal: options.io.signal,
  print: (lines) => void options.io.stdout.write(asText(lines)),
  note: (lines) => void options.io.stderr.write(asText(lines)),
  printJson: (value) => void options.io.stdout.write(`${JSON.stringify(value, undefined, 2)}\n`),
});
