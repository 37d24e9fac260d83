/** Runs `roost` in this process, with its world in memory. */
import { PassThrough, Readable, Writable } from 'node:stream';
import type { Io } from '../../cli/io.ts';
import { run } from '../../cli/run.ts';
import { NOW } from './fake-daemon.ts';

export interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly stdin?: string;
  /** Standard input as a terminal, instead of a text. */
  readonly terminal?: Io['stdin'];
  readonly env?: Readonly<Record<string, string>>;
  readonly uid?: number;
  readonly signal?: AbortSignal;
  readonly isTTY?: boolean;
  readonly patienceMs?: number;
  readonly greetingTimeoutMs?: number;
  /** Called with all of standard error so far. */
  readonly onStderr?: (text: string) => void;
  readonly onStdout?: (text: string) => void;
  readonly runProgram?: Io['runProgram'];
}

const sink = (onWrite: ((text: string) => void) | undefined): { stream: Writable; text: () => string } => {
  let all = '';
  const stream = new Writable({
    write: (chunk: Buffer, _encoding, callback) => {
      all += chunk.toString();
      onWrite?.(all);
      callback();
    },
  });
  return { stream, text: () => all };
};

export const runCli = async (argv: readonly string[], options: RunOptions = {}): Promise<Ran> => {
  const stdout = sink(options.onStdout);
  const stderr = sink(options.onStderr);
  const io: Io = {
    stdin:
      options.terminal ?? (options.stdin === undefined ? new PassThrough() : Readable.from([options.stdin])),
    stdout: stdout.stream,
    stderr: Object.assign(stderr.stream, { isTTY: options.isTTY ?? false, columns: 80 }),
    env: options.env ?? {},
    uid: options.uid ?? 0,
    now: () => NOW,
    signal: options.signal ?? new AbortController().signal,
    patienceMs: options.patienceMs ?? 0,
    greetingTimeoutMs: options.greetingTimeoutMs ?? 10_000,
    runProgram: options.runProgram ?? (() => Promise.reject(new Error('no program is to be run'))),
  };
  const code = await run(argv, io);
  return { code, stdout: stdout.text(), stderr: stderr.text() };
};
