/**
 * Runs a tool of the host to its end: argv only, never a shell; bounded in time and output. A guest is never run
 * through this: its process must outlive the operation that starts it. The event loop does not stand still for it, as it
 * does for Node's own spawn, for milliseconds where the machine is idle and for tens of them where it is not.
 */
import { closeSync } from 'node:fs';
import { Socket } from 'node:net';
import { openPipe } from '../native/index.ts';
import { deferred } from './abort.ts';
import { enter, tookMs } from './account.ts';
import type { Child, ExitStatus } from './child.ts';
import { ExecError, type ExecOptions, type ExecResult } from './exec-result.ts';
import { emptyInput, spawnProgram } from './spawn-program.ts';

const DEFAULT_TIMEOUT_MS = 60_000;
const DEFAULT_MAX_OUTPUT_BYTES = 8 * 1024 * 1024;
/** Between the signal that asks a tool to end and the one that ends it. */
const GRACE_MS = 2_000;

/** Why a tool was ended by us. */
type Stopped = 'aborted' | 'late' | 'talkative';

/** One of its outputs, as it comes and as a whole. */
class Output {
  readonly closed: Promise<void>;
  readonly #chunks: Buffer[] = [];
  readonly #socket: Socket;

  constructor(fd: number, onChunk: (chunk: Buffer) => void) {
    const over = deferred<void>();
    this.closed = over.promise;
    this.#socket = new Socket({ fd, readable: true, writable: false });
    this.#socket.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk);
      onChunk(chunk);
    });
    this.#socket.on('error', () => this.#socket.destroy());
    this.#socket.on('close', () => over.resolve());
  }

  text(): string {
    return Buffer.concat(this.#chunks).toString();
  }

  /** Nothing more is read; what came stays. */
  close(): void {
    this.#socket.destroy();
  }
}

interface Pipes {
  readonly stdin: ReturnType<typeof openPipe> | undefined;
  readonly stdout: ReturnType<typeof openPipe>;
  readonly stderr: ReturnType<typeof openPipe>;
}

const openPipes = (hasInput: boolean): Pipes => ({
  stdin: hasInput ? openPipe() : undefined,
  stdout: openPipe(),
  stderr: openPipe(),
});

const spawn = async (
  argv: readonly [string, ...string[]],
  options: ExecOptions,
  pipes: Pipes,
): Promise<Child> => {
  const { stdin, stdout, stderr } = pipes;
  try {
    const descriptors = [stdin?.readEnd ?? emptyInput(), stdout.writeEnd, stderr.writeEnd];
    return await spawnProgram(argv, descriptors, options);
  } catch (error) {
    for (const fd of [stdin?.writeEnd, stdout.readEnd, stderr.readEnd]) if (fd !== undefined) closeSync(fd);
    throw error;
  } finally {
    for (const fd of [stdin?.readEnd, stdout.writeEnd, stderr.writeEnd]) if (fd !== undefined) closeSync(fd);
  }
};

/** Gives a tool its input; one that does not want all of it has closed its end. */
const feed = (fd: number, input: string | Uint8Array): void => {
  const socket = new Socket({ fd, readable: false, writable: true });
  socket.on('error', () => socket.destroy());
  socket.end(input);
};

/** Ends a tool for a reason: it is asked, and after a while not asked any more. */
class Stopper {
  reason: Stopped | undefined;
  readonly #child: Child;
  readonly #timers: NodeJS.Timeout[] = [];

  constructor(child: Child) {
    this.#child = child;
  }

  stop(reason: Stopped): void {
    if (this.reason !== undefined) return;
    this.reason = reason;
    this.#child.kill('SIGTERM');
    this.#timers.push(setTimeout(() => this.#child.kill(), GRACE_MS));
  }

  thenAfterGrace(then: () => void): void {
    this.#timers.push(setTimeout(then, GRACE_MS));
  }

  stopAfter(ms: number): void {
    if (ms > 0) this.#timers.push(setTimeout(() => this.stop('late'), ms));
  }

  [Symbol.dispose](): void {
    for (const timer of this.#timers) clearTimeout(timer);
  }
}

interface Outcome extends ExecResult {
  readonly exit: ExitStatus;
  readonly stopped: Stopped | undefined;
}

const run = async (argv: readonly [string, ...string[]], options: ExecOptions): Promise<Outcome> => {
  const { signal, input, onStdout, onStderr, maxOutputBytes = DEFAULT_MAX_OUTPUT_BYTES } = options;
  const pipes = openPipes(input !== undefined);
  const child = await spawn(argv, options, pipes);
  using stopper = new Stopper(child);
  stopper.stopAfter(options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
  const collect = (fd: number, tell: ((text: string) => void) | undefined): Output => {
    let size = 0;
    return new Output(fd, (chunk) => {
      size += chunk.length;
      if (size > maxOutputBytes) stopper.stop('talkative');
      else tell?.(chunk.toString());
    });
  };
  const stdout = collect(pipes.stdout.readEnd, onStdout);
  const stderr = collect(pipes.stderr.readEnd, onStderr);
  const outputs = [stdout, stderr];
  if (pipes.stdin && input !== undefined) feed(pipes.stdin.writeEnd, input);
  const onAbort = (): void => stopper.stop('aborted');
  signal.addEventListener('abort', onAbort, { once: true });
  if (signal.aborted) onAbort();
  try {
    const exit = await child.exit;
    // Its outputs close with the last of what it has started, so that nothing of it runs any more; of a tool that was
    // ended that is not waited for without end.
    if (stopper.reason !== undefined)
      stopper.thenAfterGrace(() => outputs.forEach((output) => output.close()));
    await Promise.all(outputs.map((output) => output.closed));
    return { exit, stopped: stopper.reason, stdout: stdout.text(), stderr: stderr.text() };
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
};

/** Runs `argv`. Throws ExecError when it fails, the signal's reason when it was aborted. */
export const runTool = async (
  argv: readonly [string, ...string[]],
  options: ExecOptions,
): Promise<ExecResult> => {
  options.signal.throwIfAborted();
  const startedAt = performance.now();
  let failure: ExecError;
  try {
    const { exit, stopped, stdout, stderr } = await run(argv, options);
    if (exit.code === 0 && stopped === undefined) {
      enter({ kind: 'tool', argv, ms: tookMs(startedAt) });
      return { stdout, stderr };
    }
    failure = new ExecError(argv, {
      exitCode: exit.code ?? undefined,
      terminatedBy: exit.signal ?? undefined,
      timedOut: stopped === 'late',
      stdout,
      stderr,
      cause: stopped === 'talkative' ? new Error('it said more than it may') : undefined,
    });
  } catch (cause) {
    failure = new ExecError(argv, {
      exitCode: undefined,
      terminatedBy: undefined,
      timedOut: false,
      stdout: '',
      stderr: '',
      cause,
    });
  }
  enter({ kind: 'tool', argv, ms: tookMs(startedAt), error: failure.message });
  options.signal.throwIfAborted();
  throw failure;
};
