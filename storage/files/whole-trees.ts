/**
 * Trees that somebody else has made: of any depth, paths longer than the kernel takes among them. So they are copied and removed
 * by tools, which walk them by descriptors and stay in one file system.
 */
import { chmod, chown, lstat, mkdir } from 'node:fs/promises';
import { runTool } from '../../lib/run-tool.ts';
import { orIfMissing } from './durable-files.ts';

export const isDirectory = async (path: string): Promise<boolean> =>
  (await orIfMissing(lstat(path), undefined))?.isDirectory() === true;

/** Ends with the daemon, so that it is not in the way of the next one. Errors: ExecError. */
export const runDying = async (argv: readonly string[], signal: AbortSignal): Promise<void> => {
  await runTool(['setpriv', '--pdeathsig', 'KILL', '--', ...argv], { signal, timeoutMs: 0 });
};

/** Not cancelled: what is left of a tree would be in the way of whoever tries again. */
export const removeTree = async (path: string): Promise<void> => {
  if ((await orIfMissing(lstat(path), undefined)) === undefined) return;
  const { signal } = new AbortController();
  await runDying(['rm', '--recursive', '--force', '--one-file-system', '--', path], signal);
};

/** All that was written on the file system of a path is on its disk then. */
export const syncAround = (path: string, signal: AbortSignal): Promise<void> =>
  runDying(['sync', '--file-system', '--', path], signal);

/** Whatever the daemon's group and umask, of root where the daemon is. */
export const makeDirectory = async (path: string, mode: number): Promise<void> => {
  await mkdir(path, { mode: 0o700 });
  if (process.geteuid?.() === 0) await chown(path, 0, 0);
  await chmod(path, mode);
};
