/**
 * Runs a tool of the host to its end: argv only, never a shell; bounded in time and output. For programs that have no
 * event loop to keep: the command line, tools, tests. The daemon's rooms have lib/run-tool.ts.
 */
import { execa } from 'execa';
import { enter, tookMs } from './account.ts';
import { ExecError, type ExecOptions, type ExecResult } from './exec-result.ts';

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
