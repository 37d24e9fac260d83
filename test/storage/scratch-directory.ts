/** A directory of a test's own, passable for other uids, and gone with the test. */
import { createHash } from 'node:crypto';
import { chmod, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { exec } from '../../lib/exec.ts';

export interface ScratchDirectory extends AsyncDisposable {
  readonly path: string;
}

export const scratchDirectory = async (): Promise<ScratchDirectory> => {
  const path = await mkdtemp(join(tmpdir(), 'roost-storage-'));
  await chmod(path, 0o711);
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
};

export const isRoot = process.geteuid?.() === 0;

export const sha256OfFile = async (path: string): Promise<string> =>
  createHash('sha256')
    .update(await readFile(path))
    .digest('hex');

export const run = async (...argv: [string, ...string[]]): Promise<string> =>
  (await exec(argv, { signal: AbortSignal.timeout(60_000) })).stdout;
