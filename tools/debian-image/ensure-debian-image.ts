/**
 * A Debian image out of a directory that several processes share: built by the product's own builder once, then used
 * until the recipe changes.
 */
import { createHash } from 'node:crypto';
import { chmod, mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { exec } from '../../lib/exec.ts';
import type { Work } from '../../lib/work.ts';
import { debianBuilder } from '../../storage/debian/build.ts';
import { recipe } from '../../storage/debian/recipe.ts';
import { ensureFile } from './ensure-file.ts';

export interface EnsureDebianOptions {
  /** Made if missing. */
  readonly directory: string;
  /** What the image has besides the ordinary one; such an image has a name of its own. */
  readonly variant?: { readonly name: string; readonly furtherPackages: readonly string[] };
  /** Called when it is to be built, which takes a minute or more. */
  readonly onBuild?: () => void;
  readonly onProgress?: Work['progress'];
  readonly signal?: AbortSignal;
}

const SUITE = 'bookworm';
const PREFIX = 'debian-';

/** Of the recipe alone: packages get newer without a new build, and mirrors give the same ones. */
const digestOf = (suite: string, furtherPackages: readonly string[]): string =>
  createHash('sha256')
    .update(JSON.stringify(recipe({ suite, sources: [], aptOptions: [], furtherPackages })))
    .digest('hex')
    .slice(0, 12);

const build = async (
  path: string,
  suite: string,
  furtherPackages: readonly string[],
  work: Work,
): Promise<void> => {
  const builder = debianBuilder({ furtherPackages });
  const directory = `${path}.building`;
  await builder.clear(directory);
  await mkdir(directory, { recursive: true });
  try {
    const built = await builder.build({ recipe: 'debian', suite, directory }, work);
    const partial = join(directory, 'disk.qcow2');
    const convert = ['qemu-img', 'convert', '-f', built.format, '-O', 'qcow2', built.path, partial] as const;
    await exec(convert, { signal: work.signal, timeoutMs: 0 });
    // Whoever writes to it would change the disks of all who use it.
    await chmod(partial, 0o444);
    await rename(partial, path);
  } finally {
    await builder.clear(directory);
    await rm(directory, { recursive: true, force: true });
  }
};

/** Absolute path of the current image, a qcow2 file. Errors are those of the builder. */
export const ensureDebianImage = async (options: EnsureDebianOptions): Promise<string> => {
  const { directory, variant } = options;
  const signal = options.signal ?? new AbortController().signal;
  const furtherPackages = variant?.furtherPackages ?? [];
  const prefix = variant === undefined ? `${PREFIX}${SUITE}` : `${variant.name}-${PREFIX}${SUITE}`;
  const work = { signal, progress: options.onProgress ?? (() => undefined) };
  return await ensureFile({
    directory,
    prefix,
    digest: digestOf(SUITE, furtherPackages),
    extension: '.qcow2',
    make: async (path) => {
      options.onBuild?.();
      await build(path, SUITE, furtherPackages, work);
    },
    signal,
  });
};
