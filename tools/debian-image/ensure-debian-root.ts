/**
 * The root file system of a Debian as an archive, out of a directory that several processes share: built by the product's
 * own builder, and unpacked to the form in which such images come from outside. Needs root.
 */
import { createHash } from 'node:crypto';
import { chmod, mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { exec } from '../../lib/exec.ts';
import type { Work } from '../../lib/work.ts';
import { debianBuilder } from '../../storage/debian/build.ts';
import { rootRecipe } from '../../storage/debian/root-recipe.ts';
import { ensureFile } from './ensure-file.ts';

export interface EnsureRootOptions {
  /** Made if missing. */
  readonly directory: string;
  readonly signal?: AbortSignal;
}

const SUITE = 'bookworm';

const digest = createHash('sha256')
  .update(JSON.stringify(rootRecipe({ suite: SUITE, sources: [], aptOptions: [] })))
  .digest('hex')
  .slice(0, 12);

const build = async (path: string, work: Work): Promise<void> => {
  const builder = debianBuilder();
  const directory = `${path}.building`;
  await rm(directory, { recursive: true, force: true });
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const run = async (...argv: [string, ...string[]]): Promise<void> => {
    await exec(argv, { signal: work.signal, timeoutMs: 0 });
  };
  try {
    const built = await builder.build({ recipe: 'debian-root', suite: SUITE, directory }, work);
    const [tree, partial] = [join(directory, 'tree'), join(directory, 'root.tar.zst')];
    await run('unsquashfs', '-quiet', '-no-progress', '-dest', tree, built.path);
    const attributes = ['--xattrs', '--xattrs-include=*', '--numeric-owner', '--sort=name'];
    await run('tar', '--create', '--zstd', ...attributes, `--file=${partial}`, `--directory=${tree}`, '.');
    await chmod(partial, 0o444);
    await rename(partial, path);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
};

/** Absolute path of the current archive, .tar.zst. Errors are those of the builder. */
export const ensureDebianRoot = async (options: EnsureRootOptions): Promise<string> => {
  const signal = options.signal ?? new AbortController().signal;
  return await ensureFile({
    directory: options.directory,
    prefix: `debian-root-${SUITE}`,
    digest,
    extension: '.tar.zst',
    make: (path) => build(path, { signal, progress: () => undefined }),
    signal,
  });
};
