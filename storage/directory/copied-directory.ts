/**
 * A directory of the host as a disk of a guest: packed by mksquashfs, whose bytes nobody else sees, and made a qcow2 file
 * like every other volume. The tool is the guest's user. Under a daemon with privileges the launcher shows it the directory,
 * whoever owns what is in it, in a place of its own where no symbolic link is followed: who may write in the directory
 * leads nobody out of it.
 *
 * `.d` behind the result's name, for the guest's user: `tree`, the squashfs, and `disk`, the qcow2 file.
 */
import { constants } from 'node:fs';
import { chown, mkdir, open, realpath, rename, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { ExecError } from '../../lib/exec-result.ts';
import type { Work } from '../../lib/work.ts';
import { RoostError } from '../../protocol/errors.ts';
import { type Confinement, confined } from '../files/confined-tool.ts';
import { orIfMissing, removeDirectory } from '../files/durable-files.ts';
import { failureFacts, saysFull } from '../files/storage-errors.ts';
import { convertToQcow2 } from '../qcow2/qemu-img.ts';
import { mksquashfs, packTree, requireMksquashfs, roomIn } from './pack-tree.ts';

export interface DirectoryCopy {
  /** Absolute. */
  readonly directory: string;
  /** Of the qcow2 file: absolute, and not there yet. */
  readonly path: string;
  /** Of the disk, whatever it holds. */
  readonly sizeBytes: number;
  /** Without it the tools run as the daemon, which has no privileges then. */
  readonly confinement?: Confinement | undefined;
}

/** Where the launcher shows a directory. */
const SHOWN_AT = '/mnt';
/** Made by the kernel: to read all that is in there never ends well. */
const KERNEL_PLACES = ['/proc', '/sys', '/dev'] as const;
/** From this exit code on the launcher or env(1) speaks, not the tool. */
const LAUNCH_FAILED = 125;

const isBelow = (path: string, above: string): boolean =>
  path === above || path.startsWith(above === '/' ? above : `${above}/`);

const notCopied = (directory: string, why: string): RoostError =>
  new RoostError('InvalidArgument', `${directory} of the host cannot be copied to a disk: ${why}`, {
    data: { directory },
    hint: 'Give a directory with the files that the guest is to have.',
  });

const requireDirectory = async (directory: string): Promise<void> => {
  const found = await orIfMissing(stat(directory), undefined);
  if (found?.isDirectory() === true) return;
  const isMissing = found === undefined;
  throw new RoostError(
    'FailedPrecondition',
    isMissing ? `There is no directory ${directory} on the host` : `${directory} of the host is no directory`,
    {
      data: { directory },
      hint: isMissing ? 'Make it first.' : 'Give the directory that it is in.',
    },
  );
};

/** Errors: those of `Pool.requireCopyable`. */
export const requireCopyable = async (directory: string, poolPath: string): Promise<void> => {
  await requireDirectory(directory);
  const real = await realpath(directory);
  if (KERNEL_PLACES.some((place) => isBelow(real, place) || isBelow(place, real)))
    throw notCopied(directory, `the kernel's own ${KERNEL_PLACES.join(', ')} cannot be`);
  const pool = await orIfMissing(realpath(poolPath), poolPath);
  if (isBelow(pool, real)) throw notCopied(directory, `the disks of guests lie in it, at ${poolPath}`);
  await requireMksquashfs('Directories cannot be copied to disks');
};

/** The command line that packs a directory to `tree` below the current one. Pure. */
export const packArgs = (
  directory: string,
  confinement: Confinement | undefined,
  maxFileBytes: number,
): [string, ...string[]] => {
  const isShown = confinement?.identity !== undefined;
  const tool = mksquashfs(isShown ? SHOWN_AT : directory);
  if (!confinement) return tool;
  return confined(tool, confinement, maxFileBytes, { options: isShown ? ['--view', directory] : [] });
};

const pack = async (
  { directory, confinement }: DirectoryCopy,
  { cwd, maxFileBytes, work }: { readonly cwd: string; readonly maxFileBytes: number; readonly work: Work },
): Promise<void> => {
  try {
    const argv = packArgs(directory, confinement, maxFileBytes);
    await packTree(argv, { message: `Packing ${directory}`, cwd, work });
  } catch (error) {
    throw toPackError(directory, error);
  }
};

/** The tool ran and stumbled over what it was to read; whatever else went wrong is the host's matter. */
const toPackError = (directory: string, error: unknown): unknown => {
  if (!(error instanceof ExecError) || saysFull(error)) return error;
  if (error.exitCode === undefined || error.exitCode >= LAUNCH_FAILED) return error;
  const said =
    error.stderr
      .trim()
      .split('\n')
      .find((line) => line !== '') ?? error.message;
  return new RoostError('FailedPrecondition', `${directory} of the host cannot be copied: ${said}`, {
    data: { ...failureFacts(error), directory },
    hint: 'All that is in it must be there to be read until it is packed.',
    cause: error,
  });
};

/** What is behind the end of the squashfs are holes. */
const lengthen = async (path: string, sizeBytes: number): Promise<void> => {
  await using file = await open(path, constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  if ((await file.stat()).isFile()) await file.truncate(sizeBytes);
};

/** Removes what an earlier call left half done at that path. */
export const clearCopy = (path: string): Promise<void> => removeDirectory(workplaceOf(path));

const workplaceOf = (path: string): string => `${path}.d`;

/** Errors: those of `createVolume` for a copy, but for what storage says of tools. Leaves nothing but the result. */
export const copyDirectory = async (copy: DirectoryCopy, work: Work): Promise<void> => {
  const { path, sizeBytes, confinement } = copy;
  await requireDirectory(copy.directory);
  const cwd = workplaceOf(path);
  await clearCopy(path);
  await mkdir(cwd, { mode: 0o700 });
  const { identity } = confinement ?? {};
  if (identity) await chown(cwd, identity.uid, identity.gid);
  await pack(copy, { cwd, maxFileBytes: await roomIn(cwd, sizeBytes), work });
  await lengthen(join(cwd, 'tree'), sizeBytes);
  const run = { signal: work.signal, confinement, cwd, maxFileBytes: await roomIn(cwd, sizeBytes) };
  await convertToQcow2(
    { from: { format: 'raw', path: 'tree' }, to: 'disk', onFraction: () => undefined },
    run,
  );
  await rename(join(cwd, 'disk'), path);
  await removeDirectory(cwd);
};
