/**
 * The small guests out of a directory that several processes share: built once, then reused until the recipe or a
 * Debian package changes. Whoever comes second waits for the first, by flock(1), and finds the work done.
 */
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { withFileLock } from '../file-lock.ts';
import {
  type BuildProgress,
  buildSmallImage,
  type PackageSet,
  recipeDigest,
  resolvePackages,
  type SmallImage,
} from './build-small-image.ts';

export interface EnsureOptions {
  /** Holds one folder for each build, the unpacked packages, the lock; made if missing. */
  readonly directory: string;
  readonly onProgress?: (progress: BuildProgress) => void;
  readonly signal?: AbortSignal;
}

/** What was built last, and out of what. */
interface Stamp {
  readonly recipe: string;
  /** Of apt's package lists: while they are unchanged, nothing newer can be known. */
  readonly lists: string;
  /** The folder below `directory`, named by kernel version and key. */
  readonly folder: string;
  /** With its files named as in the folder, so that the directory may be moved or copied. */
  readonly image: SmallImage;
}

/**
 * The current images, built if need be. Only the newest build is kept, so copy a disk before overlays are based on
 * it. Errors are those of buildSmallImage.
 */
export async function ensureSmallImage(options: EnsureOptions): Promise<SmallImage> {
  const signal = options.signal ?? new AbortController().signal;
  await mkdir(options.directory, { recursive: true });
  return await withFileLock(
    { path: join(options.directory, 'lock'), signal },
    async () => await ensureLocked(options, signal),
  );
}

async function ensureLocked(options: EnsureOptions, signal: AbortSignal): Promise<SmallImage> {
  const { directory } = options;
  const stampPath = join(directory, 'current.json');
  const recipe = await recipeDigest();
  const lists = await aptListsDigest();
  const last = await readStamp(stampPath);
  const lastImage = last && imageIn(join(directory, last.folder), last.image);
  const isWhole = lastImage !== undefined && (await isComplete(lastImage));
  if (isWhole && last?.recipe === recipe && last.lists === lists) return lastImage;

  const packages = await resolvePackages(signal);
  const folder = folderName(recipe, packages);
  const image =
    isWhole && last?.folder === folder
      ? lastImage
      : await buildSmallImage({
          outputDirectory: join(directory, folder),
          cacheDirectory: join(directory, 'packages'),
          packages,
          signal,
          ...(options.onProgress === undefined ? {} : { onProgress: options.onProgress }),
        });
  const stamp: Stamp = { recipe, lists, folder, image: imageIn('', image) };
  await writeFile(`${stampPath}.new`, `${JSON.stringify(stamp, null, 2)}\n`);
  await rename(`${stampPath}.new`, stampPath);
  if (last !== undefined && last.folder !== folder) {
    // Whoever wants a disk to outlive the next build copies it: a pool's import does.
    await rm(join(directory, last.folder), { recursive: true, force: true });
  }
  return image;
}

function folderName(recipe: string, packages: PackageSet): string {
  const key = createHash('sha256').update(recipe).update(JSON.stringify(packages)).digest('hex').slice(0, 12);
  return `${packages.kernel.version}-${key}`;
}

async function readStamp(path: string): Promise<Stamp | undefined> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as Stamp;
  } catch {
    return undefined;
  }
}

/** The same files in another folder; a name alone for `''`. */
function imageIn(folder: string, image: SmallImage): SmallImage {
  const at = (path: string): string => join(folder, basename(path));
  return {
    ...image,
    vmlinuz: at(image.vmlinuz),
    initrd: at(image.initrd),
    tinyInitramfs: at(image.tinyInitramfs),
    smallDisk: at(image.smallDisk),
  };
}

async function isComplete(image: SmallImage): Promise<boolean> {
  const paths = [image.vmlinuz, image.initrd, image.smallDisk, image.tinyInitramfs];
  const found = await Promise.all(paths.map((path) => stat(path).catch(() => undefined)));
  return found.every((item) => item?.isFile() === true && item.size > 0);
}

async function aptListsDigest(): Promise<string> {
  const folder = '/var/lib/apt/lists';
  const names = (await readdir(folder).catch(() => [])).filter((name) => name.includes('_Packages'));
  const facts = names.sort().map(async (name) => {
    const { size, mtimeMs } = await stat(join(folder, name));
    return `${name} ${size} ${mtimeMs}`;
  });
  return createHash('sha256')
    .update((await Promise.all(facts)).join('\n'))
    .digest('hex');
}
