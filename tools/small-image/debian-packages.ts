/**
 * Fetches Debian packages and unpacks them into a cache, without installing anything and without root.
 * A package is named by its version in the cache, so a newer one never mixes with an older one.
 */
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { RoostError } from '../../protocol/errors.ts';

export interface DebianPackage {
  readonly name: string;
  readonly version: string;
}

/** Where a package's files lie after unpacking: `folder/usr/bin/…`. */
export interface UnpackedPackage extends DebianPackage {
  readonly folder: string;
}

/** The fields of the first paragraph of `apt-cache show` (deb822(5)), continuation lines left out. */
export function parseControl(text: string): ReadonlyMap<string, string> {
  const fields = new Map<string, string>();
  for (const line of text.split('\n')) {
    if (line === '') {
      if (fields.size > 0) break;
      continue;
    }
    const match = /^([A-Za-z0-9-]+):\s*(.*)$/.exec(line);
    if (match?.[1] !== undefined && match[2] !== undefined) fields.set(match[1].toLowerCase(), match[2]);
  }
  return fields;
}

async function showPackage(name: string, signal: AbortSignal): Promise<ReadonlyMap<string, string>> {
  const { stdout, failed } = await execa('apt-cache', ['show', '--no-all-versions', name], {
    reject: false,
    cancelSignal: signal,
    env: { LC_ALL: 'C' },
  });
  signal.throwIfAborted();
  const fields = parseControl(stdout ?? '');
  if (failed || !fields.has('version')) {
    throw new RoostError('HostError', `apt knows no package ${name}`, {
      hint: 'Run this once as root, then try again: apt-get update',
      data: { package: name },
    });
  }
  return fields;
}

/** The version of a package that apt would fetch now. */
export async function candidate(name: string, signal: AbortSignal): Promise<DebianPackage> {
  const version = (await showPackage(name, signal)).get('version') ?? '';
  return { name, version };
}

/** The kernel package behind the meta package `linux-image-cloud-amd64`. */
export async function kernelPackage(signal: AbortSignal): Promise<DebianPackage> {
  const depends = (await showPackage('linux-image-cloud-amd64', signal)).get('depends') ?? '';
  const name = /\blinux-image-[0-9][a-z0-9.+-]*/.exec(depends)?.[0];
  if (name === undefined) {
    throw new RoostError('HostError', `linux-image-cloud-amd64 depends on no kernel package: "${depends}"`, {
      hint: 'Only Debian has this package; check /etc/apt/sources.list.',
    });
  }
  return await candidate(name, signal);
}

/** Downloads and unpacks a package into `cacheDirectory`; does nothing if that was done before. */
export async function unpackPackage(
  wanted: DebianPackage,
  cacheDirectory: string,
  signal: AbortSignal,
): Promise<UnpackedPackage> {
  const folder = join(cacheDirectory, `${wanted.name}_${wanted.version.replaceAll(/[^A-Za-z0-9.+~-]/g, '_')}`);
  const existing = await readdir(folder).catch(() => undefined);
  if (existing !== undefined) return { ...wanted, folder };

  const work = `${folder}.partial-${process.pid}`;
  await rm(work, { recursive: true, force: true });
  await mkdir(join(work, 'unpacked'), { recursive: true });
  try {
    // apt drops to the user _apt for downloads, who can't write here; as root it is told not to.
    const asRoot = process.getuid?.() === 0 ? ['-o', 'APT::Sandbox::User=root'] : [];
    const download = ['-q', ...asRoot, 'download', `${wanted.name}=${wanted.version}`];
    await execa('apt-get', download, { cwd: work, cancelSignal: signal });
    const archive = (await readdir(work)).find((name) => name.endsWith('.deb'));
    if (archive === undefined) throw new Error('apt-get download left no .deb file');
    await execa('dpkg-deb', ['-x', join(work, archive), join(work, 'unpacked')], { cancelSignal: signal });
    await rename(join(work, 'unpacked'), folder);
  } catch (cause) {
    signal.throwIfAborted();
    throw new RoostError('HostError', `Could not fetch the Debian package ${wanted.name} ${wanted.version}`, {
      hint: 'Check the network, then run once as root: apt-get update',
      data: { package: wanted.name, version: wanted.version, said: cause instanceof Error ? cause.message : '' },
      cause,
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return { ...wanted, folder };
}
