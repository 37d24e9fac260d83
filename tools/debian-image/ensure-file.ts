/**
 * A file in a directory that several processes share: made once, then used until what it is made of changes. Whoever comes
 * second waits for the first, by flock(1), and finds the work done.
 */
import { mkdir, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { withFileLock } from '../file-lock.ts';

export interface SharedFile {
  /** Made if missing. */
  readonly directory: string;
  readonly prefix: string;
  /** Of all that it is made of: with another one it is another file, and the old one goes. */
  readonly digest: string;
  /** With its dot. */
  readonly extension: string;
  /** Makes the file under its path, whole or not at all. */
  readonly make: (path: string) => Promise<void>;
  readonly signal: AbortSignal;
}

/** Absolute path of the file. */
export const ensureFile = async (file: SharedFile): Promise<string> => {
  const { directory, prefix, digest, extension, make, signal } = file;
  const name = `${prefix}-${digest}${extension}`;
  const path = join(directory, name);
  await mkdir(directory, { recursive: true });
  return await withFileLock({ path: join(directory, `${prefix}.lock`), signal }, async () => {
    const found = await stat(path).catch(() => undefined);
    if (found?.isFile()) return path;
    await make(path);
    const old = (await readdir(directory)).filter(
      (each) => each.startsWith(`${prefix}-`) && each.endsWith(extension) && each !== name,
    );
    for (const each of old) await rm(join(directory, each), { force: true });
    return path;
  });
};
