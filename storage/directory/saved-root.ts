/**
 * The root of a container, what it wrote and the image under it, as one squashfs, of which an image can be made. The
 * warden mounts both in a place of its own, read-only and with the ids that are on disk, and the launcher lets an identity that
 * owns nothing read it all: mksquashfs sees owners, modes and file capabilities as they are, no attribute `trusted.`, which are
 * overlayfs' own words, and can write in one directory alone.
 *
 * `.d` behind the result's name: `run`, over which the warden mounts, and `made`, for that identity, with `tree` in it.
 */
import { chown, mkdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Work } from '../../lib/work.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { RootSource } from '../../protocol/root-source.ts';
import { confined, type Identity } from '../files/confined-tool.ts';
import { orIfMissing, removeDirectory, renameDurably, settleFile } from '../files/durable-files.ts';
import { mksquashfs, packTree, requireMksquashfs, roomIn, uncompressedInodes } from './pack-tree.ts';
import { requireRoot } from './root-directory.ts';

export interface RootPacking {
  /** Paths of roost-warden and roost-launcher. */
  readonly wardenPath: string;
  readonly launcherPath: string;
  readonly packer: Identity;
}

/** Where the launcher shows what the warden has mounted. */
const SHOWN_AT = '/mnt';

/** Errors: Unsupported with what is missing. */
export const requirePacking = async (packing: RootPacking | undefined): Promise<RootPacking> => {
  if (!packing)
    throw new RoostError('Unsupported', 'This daemon may not mount what a container has written', {
      hint: 'Run it as root.',
    });
  await requireMksquashfs('Containers cannot be saved as images');
  return packing;
};

/** The command line that packs a root to `tree` in `made` below the directory. Pure. */
export const savingArgs = (
  { directory, image }: RootSource,
  place: string,
  { wardenPath, launcherPath, packer }: RootPacking,
  maxFileBytes: number,
): [string, ...string[]] => {
  const run = join(place, 'run');
  return [
    wardenPath,
    '--mounted',
    '--run',
    run,
    '--image',
    image.path,
    '--upper',
    directory,
    '--',
    // Back from what is mounted, and before anything of the host is covered.
    '/usr/bin/env',
    `--chdir=${join(place, 'made')}`,
    ...confined(mksquashfs(SHOWN_AT, uncompressedInodes), { launcherPath, identity: packer }, maxFileBytes, {
      options: ['--view', join(run, 'merged')],
    }),
  ];
};

const prepare = async (place: string, { uid, gid }: Identity): Promise<void> => {
  await removeDirectory(place);
  await mkdir(place, { mode: 0o700 });
  await mkdir(join(place, 'run'), { mode: 0o700 });
  await mkdir(join(place, 'made'), { mode: 0o700 });
  await chown(join(place, 'made'), uid, gid);
};

/**
 * Makes the file `path`, or leaves the one that is there: only a whole one is ever under that name. Beside it nothing is left but
 * where the daemon ends before. Errors: FailedPrecondition where a part of the root is missing.
 */
export const saveRoot = async (
  root: RootSource,
  path: string,
  packing: RootPacking,
  work: Work,
): Promise<void> => {
  const place = `${path}.d`;
  const isMade = (await orIfMissing(stat(path), undefined)) !== undefined;
  if (isMade) return await removeDirectory(place);
  await requireRoot(root.directory, work.signal);
  await prepare(place, packing.packer);
  try {
    const argv = savingArgs(root, place, packing, await roomIn(place));
    await packTree(argv, { message: 'Packing the root', work });
    const tree = join(place, 'made', 'tree');
    await settleFile(tree, { mode: 0o400, owner: { uid: 0, gid: 0 } });
    work.signal.throwIfAborted();
    await renameDurably(tree, path);
  } finally {
    await removeDirectory(place);
  }
};
