/**
 * Looks at ledger and host from outside the daemon, again and again, in one process that lives as long as the test: a
 * judge who shares nothing with the daemon but the code that asks the host.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readlink, realpath } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { onTestFinished } from 'vitest';
import type { DaemonHome } from '../harness/real-daemon.ts';

const program = join(import.meta.dirname, '../../dist/test/inspect-host.js');

export interface Comparison {
  readonly ledger: readonly string[];
  readonly host: readonly string[];
}

export interface Inspector {
  /** Only while no operation is under way. */
  compare(): Promise<Comparison>;
}

/** An inspector for a home that a daemon has lived in already; it ends with the test. */
export const openInspector = (home: DaemonHome): Inspector => {
  const argv = [process.execPath, program, home.stateDirectory, home.runDirectory, '--serve'];
  const [file = '', ...args] = [...home.entry, ...argv];
  const child = spawn(file, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const exited = once(child, 'exit');
  onTestFinished(async () => {
    child.stdin.end();
    await exited;
  });
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  return {
    compare: async () => {
      child.stdin.write('\n');
      const { value, done } = await lines.next();
      if (done === true) throw new Error('the inspector ended');
      return JSON.parse(value) as Comparison;
    },
  };
};

/**
 * Pids of the processes that run as guests of a home, asked of the kernel: each works in its guest's directory. A zombie
 * works nowhere.
 */
export const guestPids = async (home: DaemonHome): Promise<readonly number[]> => {
  const guests = join(home.stateDirectory, 'guests/');
  const pids = (await readdir('/proc')).map(Number).filter(Number.isInteger);
  const found = await Promise.all(
    pids.map(async (pid) => ((await workingDirectory(pid)).startsWith(guests) ? [pid] : [])),
  );
  return found.flat();
};

/**
 * Those of them that run a program of their own. A child that does not yet shares its daemon's memory, and one thread of that
 * stands still until it does (vfork(2)): to stop it is to stop the daemon.
 */
export const launchedPids = async (home: DaemonHome): Promise<readonly number[]> => {
  const pids = await guestPids(home);
  const programs = await Promise.all(pids.map((pid) => readlink(`/proc/${pid}/exe`).catch(() => '')));
  const node = await realpath(process.execPath);
  return pids.filter((_pid, index) => programs[index] !== node);
};

const workingDirectory = (pid: number): Promise<string> => readlink(`/proc/${pid}/cwd`).catch(() => '');
