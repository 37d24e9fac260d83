/** A kernel package of Debian that is newer than the image's own, for guests to upgrade to. They have no way out, so it is brought to them. */
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { exec } from '../../lib/exec.ts';
import { withFileLock } from '../../tools/file-lock.ts';
import { resolveNewest } from '../../tools/small-image/debian-packages.ts';

/** Depends on the newest kernel of the next release that Debian 12 has been given. */
const META_PACKAGE = 'linux-image-6.12-cloud-amd64';

export interface KernelPackage {
  /** Absolute path of the .deb file. */
  readonly path: string;
  /** What `uname -r` says under it. */
  readonly release: string;
}

/** Fetched once into `.cache/guest-images/kernels`. Throws RoostError with the line to run if it can't be had. */
export const newerKernel = async (): Promise<KernelPackage> => {
  const { signal } = new AbortController();
  const directory = resolve(import.meta.dirname, '../../.cache/guest-images/kernels');
  await mkdir(directory, { recursive: true });
  return await withFileLock({ path: join(directory, 'lock'), signal }, async () => {
    const { kernel } = await resolveNewest(META_PACKAGE, [], signal);
    const path = join(directory, `${kernel.name}_${kernel.version.replaceAll(':', '_')}.deb`);
    const release = kernel.name.slice('linux-image-'.length);
    if ((await readdir(directory)).includes(path.slice(directory.length + 1))) return { path, release };
    const work = join(directory, 'partial');
    await rm(work, { recursive: true, force: true });
    await mkdir(work);
    const asRoot = process.getuid?.() === 0 ? ['-o', 'APT::Sandbox::User=root'] : [];
    const argv = ['apt-get', '-q', ...asRoot, 'download', `${kernel.name}=${kernel.version}`] as const;
    await exec(argv, { cwd: work, signal, timeoutMs: 600_000 });
    const fetched = (await readdir(work)).find((name) => name.endsWith('.deb'));
    if (fetched === undefined) throw new Error('apt-get download left no .deb file');
    await rename(join(work, fetched), path);
    return { path, release };
  });
};
