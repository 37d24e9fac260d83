/** `bin/roost` as a process of its own, as users run it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import type { DaemonHome } from './real-daemon.ts';

export const roostProgram = join(import.meta.dirname, '../../bin/roost');

export interface RoostRun {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RoostOptions {
  readonly stdin?: string;
  /** Directory that it is run in. */
  readonly cwd?: string;
  /** Interrupts it, as Ctrl-C does, once its standard output has this. */
  readonly interruptAt?: string;
  /** Called with all of standard error so far. */
  readonly onStderr?: (text: string) => void;
  /** Called with all of standard output so far. */
  readonly onStdout?: (text: string) => void;
}

/** Runs it against a home's daemon; gives how it ended, whatever that is. */
export const runRoost = async (
  home: DaemonHome,
  args: readonly string[],
  { stdin = '', cwd, interruptAt, onStderr, onStdout }: RoostOptions = {},
): Promise<RoostRun> => {
  const child = spawn(process.execPath, [roostProgram, ...args], {
    stdio: ['pipe', 'pipe', 'pipe'],
    ...(cwd === undefined ? {} : { cwd }),
    env: { ...process.env, ROOST_SOCKET: join(home.runDirectory, 'roost.sock') },
  });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk: Buffer) => {
    const before = stdout;
    stdout += chunk.toString('utf8');
    onStdout?.(stdout);
    if (interruptAt !== undefined && !before.includes(interruptAt) && stdout.includes(interruptAt))
      child.kill('SIGINT');
  });
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString('utf8');
    onStderr?.(stderr);
  });
  child.stdin.on('error', () => undefined);
  child.stdin.end(stdin);
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, stdout, stderr };
};
