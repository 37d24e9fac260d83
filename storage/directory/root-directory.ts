/**
 * The root of a container, in its guest's directory: `root/upper`, what it wrote, and `root/work`, overlayfs' own. The
 * directory `root` is for root alone, so that no set-uid file that a guest makes can be run by anybody of the host.
 */
import { rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { waitOrAbort } from '../../lib/abort.ts';
import { RoostError } from '../../protocol/errors.ts';
import { orIfMissing, renameDurably, syncDirectory } from '../files/durable-files.ts';
import { isDirectory, makeDirectory, removeTree, runDying, syncAround } from '../files/whole-trees.ts';
import { PARTIAL } from './seed-file.ts';

export const ROOT = 'root';
const UPPER = 'upper';
const WORK = 'work';
const HALF_MADE = `${PARTIAL}${ROOT}`;
const HALF_GONE = `${PARTIAL}${ROOT}-removed`;

/** Makes a root under another name, fills it, and gives it its own; done already where one is. */
const make = async (
  guestDirectory: string,
  signal: AbortSignal,
  fill: (directory: string) => Promise<void>,
): Promise<void> => {
  signal.throwIfAborted();
  const partial = join(guestDirectory, HALF_MADE);
  const root = join(guestDirectory, ROOT);
  await removeTree(partial);
  if (await isDirectory(root)) return;
  await makeDirectory(partial, 0o700);
  try {
    await fill(partial);
    await makeDirectory(join(partial, WORK), 0o700);
    await syncDirectory(partial);
    signal.throwIfAborted();
    await renameDurably(partial, root);
  } catch (error) {
    await removeTree(partial);
    throw error;
  }
};

/** A guest sees `upper` as the owner and mode of its own root. */
export const prepareRoot = (guestDirectory: string, signal: AbortSignal): Promise<void> =>
  make(guestDirectory, signal, (directory) => makeDirectory(join(directory, UPPER), 0o755));

/** Errors: FailedPrecondition when there is none to copy. */
export const cloneRoot = (
  fromDirectory: string,
  guestDirectory: string,
  signal: AbortSignal,
): Promise<void> =>
  make(guestDirectory, signal, async (directory) => {
    const from = join(fromDirectory, ROOT);
    await requireRoot(from, signal);
    const options = ['--archive', '--reflink=auto', '--one-file-system', '--no-target-directory'];
    await runDying(['cp', ...options, '--', join(from, UPPER), join(directory, UPPER)], signal);
    await syncAround(directory, signal);
  });

/** Under another name first, so that a root that is half gone is never leased. */
export const removeRoot = async (guestDirectory: string): Promise<void> => {
  const root = join(guestDirectory, ROOT);
  const gone = join(guestDirectory, HALF_GONE);
  await removeTree(gone);
  await removeTree(join(guestDirectory, HALF_MADE));
  await orIfMissing(rename(root, gone), undefined);
  await removeTree(gone);
  await orIfMissing(syncDirectory(guestDirectory), undefined);
};

/** Errors: FailedPrecondition naming what is missing. */
export const requireRoot = async (root: string, signal: AbortSignal): Promise<void> => {
  for (const path of [root, join(root, UPPER), join(root, WORK)]) {
    if (await waitOrAbort(isDirectory(path), signal)) continue;
    throw new RoostError('FailedPrecondition', `${path}, which a root needs, is missing`, {
      data: { path },
      hint: `Put ${dirname(path)} back from a backup, or mount what it was on; nothing was changed.`,
    });
  }
};
