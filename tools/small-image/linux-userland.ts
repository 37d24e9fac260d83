/**
 * What lies in the small guests: busybox with its applets, the checked-in files of `userland/`, and the kernel
 * modules a virtual machine needs. Gives file trees; makes no archive and no disk of them.
 */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { directory, file, readTree, symlink, type TreeEntry } from '../../guest/file-tree.ts';
import { type KernelModule, loadOrder, modulesDep } from '../../guest/kernel-modules.ts';
import { readModules } from '../../guest/module-folder.ts';
import { exec } from '../../lib/exec.ts';

const userland = join(import.meta.dirname, 'userland');

/** What must be there before a root file system can be mounted. */
const rootDiskModules = ['virtio_pci', 'virtio_mmio', 'virtio_blk'];

/** Loaded while the system comes up; the order is worked out, not written down. */
const deviceModules = ['button', 'evdev', 'virtio_net', 'virtio_rng', 'virtio_console', 'virtio_balloon'];

/** On the disk for whoever wants them, not loaded. */
const extraModules = [
  'overlay',
  'virtiofs',
  'vmw_vsock_virtio_transport',
  'qemu_fw_cfg',
  'pvpanic_pci',
  'tun',
];

/** An unpacked kernel package, read. */
export interface Kernel {
  /** As `uname -r` says it. */
  readonly release: string;
  readonly image: Buffer;
  readonly moduleFolder: string;
  /** Only the modules named above and what they need. */
  readonly modules: readonly KernelModule[];
}

/** Reads a kernel package's image and the modules that the guests need. */
export async function readKernel(packageFolder: string): Promise<Kernel> {
  const releases = await readdir(join(packageFolder, 'lib/modules'));
  const release = releases[0];
  if (release === undefined || releases.length > 1) {
    throw new Error(`expected one kernel in ${packageFolder}, found ${releases.length}`);
  }
  const moduleFolder = join(packageFolder, 'lib/modules', release);
  const image = await readFile(join(packageFolder, 'boot', `vmlinuz-${release}`));
  const modules = await readModules(moduleFolder, [...rootDiskModules, ...deviceModules, ...extraModules]);
  return { release, image, moduleFolder, modules };
}

/** `busybox` and one link for each of its applets, where Debian puts them. */
async function busyboxTree(
  busybox: Buffer,
  path: string,
  signal: AbortSignal,
): Promise<readonly TreeEntry[]> {
  const { stdout } = await exec([path, '--list-full'], { signal });
  const applets = stdout.split('\n').filter((applet) => applet !== '' && applet !== 'bin/busybox');
  return [
    file('bin/busybox', busybox, 0o755),
    ...applets.map((applet) => symlink(applet, '/bin/busybox')),
    ...['dev', 'proc', 'sys', 'run'].map((path) => directory(path)),
  ];
}

async function moduleFiles(kernel: Kernel, modules: readonly KernelModule[]): Promise<readonly TreeEntry[]> {
  return await Promise.all(
    modules.map(async (module) =>
      file(
        `lib/modules/${kernel.release}/${module.path}`,
        await readFile(join(kernel.moduleFolder, module.path)),
      ),
    ),
  );
}

/** The modules' paths below /lib/modules, in the order in which `insmod` may take them. */
function loadOrderFile(kernel: Kernel, modules: readonly KernelModule[]): TreeEntry {
  const lines = modules.map((module) => `${kernel.release}/${module.path}\n`);
  return file('lib/modules/load-order', lines.join(''));
}

/** What the trees are made of. */
export interface Ingredients {
  readonly kernel: Kernel;
  /** Path of a static busybox that runs on this host. */
  readonly busyboxPath: string;
  readonly signal: AbortSignal;
}

/** The initrd: finds the root disk and hands over. */
export async function initrdTree({ kernel, busyboxPath }: Ingredients): Promise<readonly TreeEntry[]> {
  const modules = loadOrder(kernel.modules, rootDiskModules);
  const applets = [
    'sh',
    'mount',
    'umount',
    'insmod',
    'cat',
    'usleep',
    'switch_root',
    'setsid',
    'cttyhack',
    'ls',
  ];
  return [
    ...(await readTree(join(userland, 'initrd'))),
    file('bin/busybox', await readFile(busyboxPath), 0o755),
    ...applets.map((applet) => symlink(`bin/${applet}`, '/bin/busybox')),
    ...['dev', 'proc', 'sys', 'newroot'].map((path) => directory(path)),
    ...(await moduleFiles(kernel, modules)),
    loadOrderFile(kernel, modules),
  ];
}

/** The initramfs guest: a whole system without a disk. */
export async function tinyTree({ kernel, busyboxPath, signal }: Ingredients): Promise<readonly TreeEntry[]> {
  const modules = loadOrder(kernel.modules, [...rootDiskModules, ...deviceModules]);
  return [
    ...(await readTree(join(userland, 'tiny'))),
    ...(await busyboxTree(await readFile(busyboxPath), busyboxPath, signal)),
    ...(await moduleFiles(kernel, modules)),
    loadOrderFile(kernel, modules),
  ];
}

/** The root file system of the small image, with kernel and initrd in /boot. */
export async function rootTree(ingredients: Ingredients, initrd: Buffer): Promise<readonly TreeEntry[]> {
  const { kernel, busyboxPath, signal } = ingredients;
  const files = await readTree(join(userland, 'small'));
  return [
    ...files.map((entry) => (entry.path === 'etc/shadow' ? { ...entry, mode: 0o600 } : entry)),
    ...(await busyboxTree(await readFile(busyboxPath), busyboxPath, signal)),
    file('boot/vmlinuz', kernel.image),
    file('boot/initrd.img', initrd),
    file('etc/modules', deviceModules.map((name) => `${name}\n`).join('')),
    ...(await moduleFiles(kernel, kernel.modules)),
    file(`lib/modules/${kernel.release}/modules.dep`, modulesDep(kernel.modules)),
    symlink('etc/resolv.conf', '/run/resolv.conf'),
    symlink('etc/mtab', '/proc/mounts'),
    directory('root', 0o700),
    directory('tmp', 0o1777),
    directory('mnt'),
    directory('var'),
    symlink('var/run', '/run'),
    symlink('var/log', '/run'),
  ];
}
