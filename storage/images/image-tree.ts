/**
 * An image as a directory, for kernels that cannot map the ids of a squashfs: `tree/root` in the image's own directory, with
 * owners, modes, devices and attributes as the image has them. `tree` is for root alone, so that no set-uid file in it
 * can be run by anybody of the host.
 *
 * The warden mounts the squashfs, so that it is the kernel who reads what strangers wrote, as it is everywhere else, and cp
 * copies what is mounted. Made as `.partial-tree` and renamed when all of it is on disk.
 */
import { lstat, mkdir, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Work } from '../../lib/work.ts';
import { RoostError } from '../../protocol/errors.ts';
import { orIfMissing, renameDurably, syncDirectory } from '../files/durable-files.ts';
import { isDirectory, makeDirectory, removeTree, runDying, syncAround } from '../files/whole-trees.ts';

const TREE = 'tree';
const HALF_MADE = '.partial-tree';
const ROOT = 'root';

/** Where the tree of the image in that directory is. Pure. */
export const treePath = (imageDirectory: string): string => join(imageDirectory, TREE, ROOT);

export const isUnpacked = (imageDirectory: string): Promise<boolean> => isDirectory(treePath(imageDirectory));

/** The command line that copies an image to `root` in a directory. Pure. */
export const unpackingArgs = (
  imagePath: string,
  directory: string,
  wardenPath: string,
): readonly string[] => [
  wardenPath,
  '--mounted',
  '--run',
  join(directory, 'run'),
  '--image',
  imagePath,
  '--',
  '/usr/bin/cp',
  '--recursive',
  '--no-dereference',
  // Named one by one: what of these cannot be kept is a failure then.
  '--preserve=mode,ownership,timestamps,links,xattr',
  '--no-target-directory',
  '--',
  '.',
  join(directory, ROOT),
];

const requireImage = async (path: string): Promise<void> => {
  if ((await orIfMissing(lstat(path), undefined))?.isFile()) return;
  throw new RoostError('FailedPrecondition', `${path}, which is the image, is missing`, {
    data: { path },
    hint: 'Put the file back from a backup; nothing was changed.',
  });
};

const fill = async (
  imagePath: string,
  directory: string,
  wardenPath: string,
  signal: AbortSignal,
): Promise<void> => {
  await makeDirectory(directory, 0o700);
  const run = join(directory, 'run');
  await mkdir(run, { mode: 0o700 });
  await runDying(unpackingArgs(imagePath, directory, wardenPath), signal);
  await rmdir(run);
  await syncAround(directory, signal);
};

/** Done already where the tree is. Not for two calls for one image at once. Errors: ExecError, FailedPrecondition. */
export const unpackImage = async (
  imageDirectory: string,
  imagePath: string,
  wardenPath: string,
  { signal, progress }: Work,
): Promise<void> => {
  signal.throwIfAborted();
  const partial = join(imageDirectory, HALF_MADE);
  if (await isUnpacked(imageDirectory)) return;
  await requireImage(imagePath);
  progress({ done: 0, total: 1, unit: 'steps', message: 'Unpacking the image' });
  await removeTree(partial);
  try {
    await fill(imagePath, partial, wardenPath, signal);
    signal.throwIfAborted();
    await renameDurably(partial, join(imageDirectory, TREE));
  } catch (error) {
    await removeTree(partial);
    throw error;
  }
  progress({ done: 1, total: 1, unit: 'steps', message: 'Unpacking the image' });
};

/** What is made of an image and is in its directory. May be done again. */
export const removeImageTree = async (imageDirectory: string): Promise<void> => {
  for (const name of [HALF_MADE, TREE]) await removeTree(join(imageDirectory, name));
  await orIfMissing(syncDirectory(imageDirectory), undefined);
};
