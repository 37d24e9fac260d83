/**
 * The initramfs of a microVM: the init, which is agent as well, and the modules of one kernel that it needs to find its
 * disks, its channels and its network, on virtio-mmio and on PCI. Not compressed: unpacking costs a guest more than
 * reading costs the host.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { cpioArchive } from './cpio-archive.ts';
import { directory, file, type TreeEntry } from './file-tree.ts';
import { type KernelModule, loadOrder, moduleName } from './kernel-modules.ts';
import { builtinModules, readModules } from './module-folder.ts';

/** Loaded at once in every guest. */
const ALWAYS = [
  'virtio_pci',
  'virtio_mmio',
  'virtio_blk',
  'virtio_console',
  'overlay',
  'virtio_net',
  'virtio_rng',
] as const;

/** Loaded by the init when the word is wanted: the type of a file system, or of the channels. */
const ON_DEMAND: Readonly<Record<string, readonly string[]>> = {
  squashfs: ['squashfs'],
  erofs: ['erofs'],
  ext4: ['ext4'],
  virtiofs: ['virtiofs'],
  vsock: ['vmw_vsock_virtio_transport'],
};

export interface InitramfsIngredients {
  /** Path of the static `roost-init`. */
  readonly init: string;
  /** `/lib/modules/VERSION` of the kernel's package. */
  readonly moduleFolder: string;
}

/** The archive's bytes; the same ingredients give the same. Throws an Error for a kernel that lacks a module. */
export async function buildInitramfs({ init, moduleFolder }: InitramfsIngredients): Promise<Buffer> {
  const builtin = await builtinModules(moduleFolder);
  const isFile = (name: string): boolean => !builtin.has(moduleName(name));
  const groups = [['always', ALWAYS] as const, ...Object.entries(ON_DEMAND)].map(
    ([word, names]) => [word, names.filter(isFile)] as const,
  );
  const modules = await readModules(
    moduleFolder,
    groups.flatMap(([, names]) => names),
  );
  return cpioArchive([
    file('init', await readFile(init), 0o755),
    file('lib/roost/modules', moduleList(modules, groups)),
    ...(await Promise.all(modules.map((module) => moduleFile(module, moduleFolder)))),
    ...['dev', 'proc', 'sys', 'root', 'lower', 'upper'].map((path) => directory(path)),
    // Before its init has mounted anything the kernel opens it for that init.
    { kind: 'characterDevice', path: 'dev/console', mode: 0o600, major: 5, minor: 1 },
  ]);
}

/** A line a module: the word that wants it, and its file beside the list; each after everything that it needs. */
export function moduleList(
  modules: readonly KernelModule[],
  groups: readonly (readonly [string, readonly string[]])[],
): string {
  return groups
    .flatMap(([word, names]) => loadOrder(modules, names).map((module) => `${word} ${fileName(module)}\n`))
    .join('');
}

const fileName = (module: KernelModule): string => `${module.name}.ko`;

async function moduleFile(module: KernelModule, folder: string): Promise<TreeEntry> {
  return file(`lib/roost/${fileName(module)}`, await readFile(join(folder, module.path)));
}
