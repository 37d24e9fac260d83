/**
 * Fetches Debian packages and unpacks them into a cache, without installing anything and without root.
 * A package is named by its version in the cache, so a newer one never mixes with an older one.
 */
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { exec } from '../../lib/exec.ts';
import { RoostError } from '../../protocol/errors.ts';

export interface DebianPackage {
  readonly name: string;
  readonly version: string;
}

/** Where a package's files lie after unpacking: `folder/usr/bin/…`. */
export interface UnpackedPackage extends DebianPackage {
  readonly folder: string;
}

type Fields = ReadonlyMap<string, string>;

/** The paragraphs of `apt-cache show` (deb822(5)), keys in lower case, continuation lines left out. */
export function parseControl(text: string): readonly Fields[] {
  return text
    .split(/\n\n+/)
    .map((paragraph) => {
      const fields = paragraph.split('\n').flatMap((line): readonly (readonly [string, string])[] => {
        const match = /^([A-Za-z0-9-]+):\s*(.*)$/.exec(line);
        return match?.[1] !== undefined && match[2] !== undefined ? [[match[1].toLowerCase(), match[2]]] : [];
      });
      return new Map(fields);
    })
    .filter((fields) => fields.size > 0);
}

/** One call for many packages: where apt keeps no index file each call reads all its lists anew, about 1 s. */
async function showPackages(
  names: readonly string[],
  signal: AbortSignal,
): Promise<ReadonlyMap<string, Fields>> {
  const argv = ['apt-cache', 'show', '--no-all-versions', ...names] as const;
  const { stdout } = await exec(argv, { signal, env: { LC_ALL: 'C' } }).catch((cause: unknown) => {
    signal.throwIfAborted();
    throw noPackage(names.join(', '), cause);
  });
  return new Map(parseControl(stdout).map((fields) => [fields.get('package') ?? '', fields]));
}

function noPackage(name: string, cause?: unknown): RoostError {
  return new RoostError('HostError', `apt knows no package ${name}`, {
    hint: 'On Debian 12, run this once as root, then try again: apt-get update',
    data: { package: name },
    cause,
  });
}

function field(shown: ReadonlyMap<string, Fields>, name: string, key: string): string {
  const value = shown.get(name)?.get(key);
  if (value === undefined) throw noPackage(name);
  return value;
}

/** The real kernel package behind the meta package, and the others, each in the version that apt would fetch now. */
export async function resolveNewest(
  kernelMetaPackage: string,
  others: readonly string[],
  signal: AbortSignal,
): Promise<{ readonly kernel: DebianPackage; readonly others: readonly DebianPackage[] }> {
  const shown = await showPackages([kernelMetaPackage, ...others], signal);
  const depends = field(shown, kernelMetaPackage, 'depends');
  const name = /\blinux-image-[0-9][a-z0-9.+-]*/.exec(depends)?.[0];
  if (name === undefined) {
    throw new RoostError('HostError', `${kernelMetaPackage} depends on no kernel package: "${depends}"`, {
      hint: 'Only Debian has this package; check /etc/apt/sources.list.',
    });
  }
  const kernel = { name, version: field(await showPackages([name], signal), name, 'version') };
  return {
    kernel,
    others: others.map((other) => ({ name: other, version: field(shown, other, 'version') })),
  };
}

/** A slow line: 30 MB at 64 KB/s. */
const downloadTimeoutMs = 10 * 60_000;

/** Downloads and unpacks a package into `cacheDirectory`; does nothing if that was done before. */
export async function unpackPackage(
  wanted: DebianPackage,
  cacheDirectory: string,
  signal: AbortSignal,
): Promise<UnpackedPackage> {
  const folder = join(
    cacheDirectory,
    `${wanted.name}_${wanted.version.replaceAll(/[^A-Za-z0-9.+~-]/g, '_')}`,
  );
  const existing = await readdir(folder).catch(() => undefined);
  if (existing !== undefined) return { ...wanted, folder };

  const work = `${folder}.partial-${process.pid}`;
  await rm(work, { recursive: true, force: true });
  await mkdir(join(work, 'unpacked'), { recursive: true });
  try {
    // apt drops to the user _apt for downloads, who can't write here; as root it is told not to.
    const asRoot = process.getuid?.() === 0 ? ['-o', 'APT::Sandbox::User=root'] : [];
    const download = ['apt-get', '-q', ...asRoot, 'download', `${wanted.name}=${wanted.version}`] as const;
    await exec(download, { cwd: work, signal, timeoutMs: downloadTimeoutMs });
    const archive = (await readdir(work)).find((name) => name.endsWith('.deb'));
    if (archive === undefined) throw new Error('apt-get download left no .deb file');
    await exec(['dpkg-deb', '-x', join(work, archive), join(work, 'unpacked')], { signal });
    await rename(join(work, 'unpacked'), folder);
  } catch (cause) {
    signal.throwIfAborted();
    throw new RoostError('HostError', `Could not fetch the Debian package ${wanted.name} ${wanted.version}`, {
      hint: 'Check the network, then run once as root: apt-get update',
      data: {
        package: wanted.name,
        version: wanted.version,
        said: cause instanceof Error ? cause.message : '',
      },
      cause,
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return { ...wanted, folder };
}
