/**
 * Files and directories that are there after a power loss once a call has returned: content first, then its name,
 * then the directory that holds the name (fsync(2): syncing a file does not sync its directory entry).
 */
import { constants } from 'node:fs';
import { chmod, mkdir, open, readdir, rename, rm } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';

export const isMissing = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR');

/** Gives `fallback` where a path does not exist. */
export const orIfMissing = async <T, F>(promise: Promise<T>, fallback: F): Promise<T | F> => {
  try {
    return await promise;
  } catch (error) {
    if (isMissing(error)) return fallback;
    throw error;
  }
};

export const syncDirectory = async (path: string): Promise<void> => {
  await using directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  await directory.sync();
};

/**
 * As `mkdir` with `recursive`, which says ENOENT of a file system that can take no more: here only of what is missing above.
 * Resolves with the first that was made.
 */
export const makeDirectories = async (path: string, mode?: number): Promise<string | undefined> => {
  try {
    await mkdir(path, { mode });
    return path;
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code !== 'ENOENT' && code !== 'EEXIST') throw error;
    return await mkdir(path, { recursive: true, mode });
  }
};

/** Makes `path` and its missing parents, each with `mode` whatever the umask; parents that exist stay as they are. */
export const ensureDirectory = async (path: string, mode: number): Promise<void> => {
  const wanted = resolve(path);
  const first = await makeDirectories(wanted);
  await chmod(wanted, mode);
  if (first === undefined) return;
  for (let made = wanted; made !== first; ) {
    made = dirname(made);
    await chmod(made, mode);
  }
  await syncDirectory(dirname(first));
};

/** Gives what was made under `from` its own name, in the same file system. */
export const renameDurably = async (from: string, to: string): Promise<void> => {
  await rename(from, to);
  await syncDirectory(dirname(to));
  if (dirname(from) !== dirname(to)) await syncDirectory(dirname(from));
};

export interface FileAccess {
  readonly mode: number;
  readonly owner?: { readonly uid: number; readonly gid: number } | undefined;
}

/** Writes a whole small file; what was there before stays until the new one is complete. */
export const replaceFile = async (
  path: string,
  text: string,
  access: FileAccess & { readonly partialPath: string },
): Promise<void> => {
  await rm(access.partialPath, { force: true });
  {
    await using file = await open(access.partialPath, 'wx', access.mode);
    await file.writeFile(text);
    if (access.owner) await file.chown(access.owner.uid, access.owner.gid);
    await file.chmod(access.mode);
    await file.sync();
  }
  await renameDurably(access.partialPath, path);
};

/** Removes files that may be absent, and makes that durable. */
export const removeFiles = async (directory: string, names: readonly string[]): Promise<void> => {
  for (const name of names) await rm(join(directory, name), { force: true });
  await orIfMissing(syncDirectory(directory), undefined);
};

/** Removes a directory that may be absent, with all that is in it, and makes that durable. */
export const removeDirectory = async (path: string): Promise<void> => {
  await rm(path, { recursive: true, force: true });
  await orIfMissing(syncDirectory(dirname(path)), undefined);
};

/** Names in a directory, in no order; none when it does not exist. */
export const namesIn = (path: string): Promise<readonly string[]> => orIfMissing(readdir(path), []);
