/** Runs a program in the place of this one: on the same terminal, with its exit code as ours. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { constants } from 'node:os';
import { CliFailure, Interrupted } from './failure.ts';

/** Debian packages of programs, for hints. */
const PACKAGES: Readonly<Record<string, string>> = { ssh: 'openssh-client' };

/**
 * Resolves with the exit code, 128 and its number after a signal. Ctrl-C is the program's own affair: the terminal tells
 * it as well as us. Any other end of ours ends the program too.
 */
export const runProgram = async (
  argv: readonly [string, ...string[]],
  signal: AbortSignal,
): Promise<number> => {
  const [file, ...args] = argv;
  const child = spawn(file, args, { stdio: 'inherit' });
  const end = (): void => {
    const interrupt = signal.reason instanceof Interrupted && signal.reason.exitCode === 130;
    if (!interrupt) child.kill('SIGTERM');
  };
  signal.addEventListener('abort', end, { once: true });
  try {
    const [code, name] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null];
    return code ?? 128 + (name === null ? 0 : constants.signals[name]);
  } catch (error) {
    const missing = error instanceof Error && 'code' in error && error.code === 'ENOENT';
    throw new CliFailure(
      {
        class: 'Unsupported',
        desc: `The program ${file} could not be run: ${error instanceof Error ? error.message : String(error)}`,
        ...(missing ? { hint: `Install the package ${PACKAGES[file] ?? file}.` } : {}),
      },
      'failed',
      error,
    );
  } finally {
    signal.removeEventListener('abort', end);
  }
};
