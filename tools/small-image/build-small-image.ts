/**
 * Makes the small Linux guests out of Debian packages, without installing any of them and without root:
 * - `vmlinuz`, `initrd.img`: Debian's cloud kernel, and an initrd that mounts the disk;
 * - `small.qcow2`: a disk that boots by itself, with a busybox userland (root's password is `roost`);
 * - `tiny.cpio`: an initramfs that is a whole guest, without a disk.
 */
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { cpioArchive } from '../../guest/cpio-archive.ts';
import { makeBootableDisk } from './bootable-disk.ts';
import { type DebianPackage, resolveNewest, type UnpackedPackage, unpackPackage } from './debian-packages.ts';
import { type Ingredients, initrdTree, readKernel, rootTree, tinyTree } from './linux-userland.ts';

export interface BuildProgress {
  /** Stable, for programs. */
  readonly step: 'resolve' | 'packages' | 'initramfs' | 'disk' | 'finish';
  readonly done: number;
  readonly total: number;
  /** For people. */
  readonly message: string;
}

export interface BuildOptions {
  /** Where the finished files go; made if missing. */
  readonly outputDirectory: string;
  /** Keeps unpacked packages between builds; about 150 MB a kernel. */
  readonly cacheDirectory: string;
  /** What {@link resolvePackages} gave, if the caller has it already. */
  readonly packages?: PackageSet;
  readonly onProgress?: (progress: BuildProgress) => void;
  readonly signal?: AbortSignal;
}

/** Paths of the finished files, and what they were made of. */
export interface SmallImage {
  readonly vmlinuz: string;
  readonly initrd: string;
  readonly smallDisk: string;
  readonly tinyInitramfs: string;
  readonly kernelVersion: string;
}

const diskSizeBytes = 256 * 1024 * 1024;

const kernelMetaPackage = 'linux-image-cloud-amd64';

/** What we take from each; libdevmapper because grub-mkimage is linked with it and a container often lacks it. */
const otherPackages = {
  busybox: 'busybox-static',
  grubTools: 'grub-common',
  grubModules: 'grub-pc-bin',
  deviceMapper: 'libdevmapper1.02.1',
} as const;

type Ingredient = 'kernel' | keyof typeof otherPackages;

/** The packages that a build would use now; with {@link recipeDigest} they say if an earlier result still holds. */
export type PackageSet = Readonly<Record<Ingredient, DebianPackage>>;

/** Asks apt's lists on this machine; no network. Throws RoostError HostError if there are none. */
export async function resolvePackages(signal: AbortSignal): Promise<PackageSet> {
  const { kernel, others } = await resolveNewest(kernelMetaPackage, Object.values(otherPackages), signal);
  const entries = Object.keys(otherPackages).map((key, index) => [key, others[index]]);
  return { kernel, ...Object.fromEntries(entries) } as PackageSet;
}

/** What this recipe shares with the initramfs of microVMs. */
const sharedFiles = ['cpio-archive.ts', 'file-tree.ts', 'kernel-modules.ts', 'module-folder.ts'];

/** A hash of every file of this recipe: another recipe, another image. */
export async function recipeDigest(): Promise<string> {
  const hash = createHash('sha256');
  const root = dirname(dirname(import.meta.dirname));
  const files = await readdir(import.meta.dirname, { recursive: true, withFileTypes: true });
  const paths = files
    .filter((entry) => entry.isFile() && !entry.name.endsWith('.md'))
    .map((entry) => join(entry.parentPath, entry.name))
    .concat(sharedFiles.map((name) => join(root, 'guest', name)));
  for (const path of paths.sort()) {
    const content = await readFile(path);
    hash.update(`${path.slice(root.length)}\0${content.length}\0`).update(content);
  }
  return hash.digest('hex');
}

/** Builds everything. Finished files replace earlier ones one by one, each whole; nothing else is left behind. */
export async function buildSmallImage(options: BuildOptions): Promise<SmallImage> {
  const { outputDirectory, cacheDirectory } = options;
  const signal = options.signal ?? new AbortController().signal;
  const report = progressReporter(options.onProgress);
  report('resolve', 'Looking up the Debian packages');
  const packages = options.packages ?? (await resolvePackages(signal));
  await mkdir(outputDirectory, { recursive: true });
  await mkdir(cacheDirectory, { recursive: true });
  const work = await mkdtemp(join(outputDirectory, '.building-'));
  try {
    const fetched = await fetchPackages(packages, cacheDirectory, report, signal);
    report('initramfs', `Packing the initramfs with kernel ${packages.kernel.version}`);
    const kernel = await readKernel(fetched.kernel.folder);
    const ingredients = { kernel, busyboxPath: join(fetched.busybox.folder, 'bin/busybox'), signal };
    const initrd = cpioArchive(await initrdTree(ingredients));
    await writeFile(join(work, 'vmlinuz'), kernel.image);
    await writeFile(join(work, 'initrd.img'), initrd);
    await writeFile(join(work, 'tiny.cpio'), cpioArchive(await tinyTree(ingredients)));
    report('disk', `Making the disk (${diskSizeBytes / 1024 / 1024} MiB, ext4, GRUB)`);
    await makeDisk(work, ingredients, initrd, fetched);
    const result = await publish(work, outputDirectory, packages.kernel.version);
    const { size } = await stat(result.smallDisk);
    report(
      'finish',
      `The small image is ready: ${result.smallDisk} (${(size / 1024 / 1024).toFixed(1)} MiB)`,
    );
    return result;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

type Report = (step: BuildProgress['step'], message: string) => void;

/** Counts: resolve, five packages, initramfs, disk, finish. */
function progressReporter(onProgress: BuildOptions['onProgress']): Report {
  let done = 0;
  return (step, message) => {
    onProgress?.({ step, done, total: 8, message });
    done += 1;
  };
}

type Fetched = Readonly<Record<Ingredient, UnpackedPackage>>;

async function fetchPackages(
  set: PackageSet,
  cache: string,
  report: Report,
  signal: AbortSignal,
): Promise<Fetched> {
  const fetched: [string, UnpackedPackage][] = [];
  for (const [ingredient, wanted] of Object.entries(set)) {
    report('packages', `Fetching ${wanted.name} ${wanted.version}`);
    fetched.push([ingredient, await unpackPackage(wanted, cache, signal)]);
  }
  return Object.fromEntries(fetched) as Fetched;
}

async function makeDisk(
  work: string,
  ingredients: Ingredients,
  initrd: Buffer,
  fetched: Fetched,
): Promise<void> {
  const workDirectory = join(work, 'disk');
  await mkdir(workDirectory);
  await makeBootableDisk({
    entries: await rootTree(ingredients, initrd),
    label: 'roost-small',
    sizeBytes: diskSizeBytes,
    workDirectory,
    outputPath: join(work, 'small.qcow2'),
    grub: {
      mkimage: join(fetched.grubTools.folder, 'usr/bin/grub-mkimage'),
      moduleFolder: join(fetched.grubModules.folder, 'usr/lib/grub/i386-pc'),
      libraryFolder: join(fetched.deviceMapper.folder, 'lib/x86_64-linux-gnu'),
    },
    signal: ingredients.signal,
  });
}

async function publish(work: string, outputDirectory: string, kernelVersion: string): Promise<SmallImage> {
  const move = async (name: string) => {
    const path = join(outputDirectory, name);
    await rename(join(work, name), path);
    return path;
  };
  return {
    vmlinuz: await move('vmlinuz'),
    initrd: await move('initrd.img'),
    tinyInitramfs: await move('tiny.cpio'),
    smallDisk: await move('small.qcow2'),
    kernelVersion,
  };
}
