/**
 * Runs a tool of the host to its end: argv only, never a shell; bounded in time and output. A guest is never run
 * through this: its process must outlive the operation that starts it.
 */
import { execa } from 'execa';
import { enter, tookMs } from './account.ts';

export interface ExecOptions {
  readonly signal: AbortSignal;
  readonly input?: string | Uint8Array;
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Milliseconds; the tool is ended afterwards. 0: only the signal ends it. */
  readonly timeoutMs?: number;
  readonly maxOutputBytes?: number;
  /** Gets standard output as it comes, in pieces of any size. Must not throw. */
  readonly onStdout?: (text: string) => void;
  /** The same for standard error. */
  readonly onStderr?: (text: string) => void;
}

export interface ExecResult {
  readonly stdout: string;
  readonly stderr: string;
}

/** A tool ended badly: how, and what it said. */
export class ExecError extends Error {
  readonly argv: readonly string[];
  readonly exitCode: number | undefined;
  readonly terminatedBy: string | undefined;
  readonly timedOut: boolean;
  readonly stdout: string;
  readonly stderr: string;

  constructor(argv: readonly string[], detail: Omit<ExecError, keyof Error | 'argv'> & { cause: unknown }) {
    const how = detail.timedOut
      ? 'did not end in time'
      : detail.terminatedBy
        ? `was ended by ${detail.terminatedBy}`
        : detail.exitCode === undefined
          ? 'could not be run'
          : `exited with ${detail.exitCode}`;
    const said = detail.stderr.trim().split('\n').slice(-3).join(' · ');
    super(`${argv[0] ?? ''} ${how}${said ? `: ${said}` : ''}`, { cause: detail.cause });
    this.name = 'ExecError';
    this.argv = argv;
    this.exitCode = detail.exitCode;
    this.terminatedBy = detail.terminatedBy;
    this.timedOut = detail.timedOut;
    this.stdout = detail.stdout;
    this.stderr = detail.stderr;
  }
}

/** Runs `argv`. Throws ExecError when it fails, the signal's reason when it was aborted. */
export const exec = async (
  argv: readonly [string, ...string[]],
  options: ExecOptions,
): Promise<ExecResult> => {
  options.signal.throwIfAborted();
  const startedAt = performance.now();
  const [file, ...args] = argv;
  const { onStdout, onStderr } = options;
  const running = execa(file, args, {
    cancelSignal: options.signal,
    reject: false,
    timeout: options.timeoutMs ?? 60_000,
    maxBuffer: options.maxOutputBytes ?? 8 * 1024 * 1024,
    forceKillAfterDelay: 2_000,
    stripFinalNewline: false,
    ...(options.input === undefined ? { stdin: 'ignore' as const } : { input: options.input }),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...(options.env === undefined ? {} : { env: options.env }),
  });
  if (onStdout) running.stdout.on('data', (chunk: Buffer) => onStdout(chunk.toString()));
  if (onStderr) running.stderr.on('data', (chunk: Buffer) => onStderr(chunk.toString()));
  const result = await running;
  if (!result.failed) {
    enter({ kind: 'tool', argv, ms: tookMs(startedAt) });
    return { stdout: result.stdout, stderr: result.stderr };
  }
  const failure = new ExecError(argv, {
    exitCode: result.exitCode,
    terminatedBy: result.signal,
    timedOut: result.timedOut,
    stdout: result.stdout ?? '',
    stderr: result.stderr ?? '',
    cause: result.cause ?? result,
  });
  enter({ kind: 'tool', argv, ms: tookMs(startedAt), error: failure.message });
  options.signal.throwIfAborted();
  throw failure;
};
