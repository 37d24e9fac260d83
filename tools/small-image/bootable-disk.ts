/**
 * Makes a qcow2 disk that boots by itself under a BIOS: an MBR with one ext4 partition, GRUB's core image in the
 * gap before it. Needs no root, no loop device and no mount: mke2fs fills the file system from a folder.
 *
 * GRUB's places: boot.img is the first 440 bytes of the disk, the sector number of core.img stands at 0x5c in it;
 * core.img's own list of blocks says at 0x1f4 where the rest of it lies (grub-core/boot/i386/pc/boot.S and
 * diskboot.S).
 */
import { chmod, mkdir, open, readFile, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { completeTree, type TreeEntry } from '../../guest/file-tree.ts';
import { exec } from '../../lib/exec.ts';

const sectorBytes = 512;
const partitionStartSector = 2048;

export interface BootableDisk {
  /** The root file system, with /boot/grub/grub.cfg. */
  readonly entries: readonly TreeEntry[];
  readonly label: string;
  /** A multiple of 1 MiB. */
  readonly sizeBytes: number;
  /** An empty folder for the pieces; the caller removes it. */
  readonly workDirectory: string;
  readonly outputPath: string;
  readonly grub: GrubTools;
  readonly signal: AbortSignal;
}

/** Unpacked `grub-common`, `grub-pc-bin` and the library the first needs. */
export interface GrubTools {
  readonly mkimage: string;
  readonly moduleFolder: string;
  readonly libraryFolder: string;
}

export async function makeBootableDisk(disk: BootableDisk): Promise<void> {
  const raw = join(disk.workDirectory, 'disk.raw');
  await writeFile(raw, '');
  await truncate(raw, disk.sizeBytes);
  await makeFileSystem(disk, raw);
  await writeBootCode(disk, raw);
  const options = ['-f', 'raw', '-O', 'qcow2', '-c', '-o', 'compression_type=zstd'];
  await exec(['qemu-img', 'convert', ...options, raw, disk.outputPath], { signal: disk.signal });
}

async function makeFileSystem(disk: BootableDisk, raw: string): Promise<void> {
  const folder = join(disk.workDirectory, 'root');
  const entries = completeTree(disk.entries);
  await layOut(entries, folder);
  const offsetBytes = partitionStartSector * sectorBytes;
  const sizeKiB = (disk.sizeBytes - offsetBytes) / 1024;
  const sizes = ['-b', '4096', '-m', '0', '-L', disk.label];
  // Neither is of use here, and every boot without KVM would compute the sums.
  const features = ['-O', '^64bit,^metadata_csum'];
  const extended = ['-E', `offset=${offsetBytes},root_owner=0:0,lazy_itable_init=1,nodiscard`];
  await exec(
    [
      'mke2fs',
      '-q',
      '-F',
      '-t',
      'ext4',
      ...sizes,
      ...features,
      ...extended,
      '-d',
      folder,
      raw,
      `${sizeKiB}k`,
    ],
    { signal: disk.signal, env: sbinPath() },
  );
  if (process.getuid?.() !== 0) await giveToRoot(entries, `${raw}?offset=${offsetBytes}`, disk.signal);
}

/** mke2fs and debugfs live in /usr/sbin, which is not in an ordinary user's PATH. */
function sbinPath(): { PATH: string } {
  return { PATH: `${process.env['PATH'] ?? '/usr/bin:/bin'}:/usr/sbin:/sbin` };
}

async function layOut(entries: readonly TreeEntry[], folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  for (const entry of entries) {
    const path = join(folder, entry.path);
    switch (entry.kind) {
      case 'directory':
        await mkdir(path);
        await chmod(path, entry.mode);
        break;
      case 'file':
        await writeFile(path, entry.content);
        await chmod(path, entry.mode);
        break;
      case 'symlink':
        await symlink(entry.target, path);
        break;
      case 'characterDevice':
        throw new Error(`a disk gets its devices from devtmpfs; ${entry.path} has no place on it`);
    }
  }
}

/** Without root the laid-out files belong to the builder and mke2fs copies that; debugfs corrects the inodes. */
async function giveToRoot(entries: readonly TreeEntry[], device: string, signal: AbortSignal): Promise<void> {
  const commands = entries.flatMap(({ path }) => [
    `set_inode_field "/${path}" uid 0`,
    `set_inode_field "/${path}" gid 0`,
  ]);
  const input = `${commands.join('\n')}\n`;
  const argv = ['debugfs', '-w', '-f', '-', device] as const;
  const { stderr } = await exec(argv, { input, signal, env: sbinPath() });
  // debugfs exits 0 whatever happens; after its banner it says nothing when all went well.
  const complaint = stderr.split('\n').find((line) => line !== '' && !line.startsWith('debugfs '));
  if (complaint !== undefined) throw new Error(`debugfs could not set an owner: ${complaint}`);
}

async function writeBootCode(disk: BootableDisk, raw: string): Promise<void> {
  const core = await coreImage(disk);
  if (core.length > (partitionStartSector - 1) * sectorBytes) {
    throw new Error(`GRUB's core image of ${core.length} bytes does not fit before the partition`);
  }
  const boot = await readFile(join(disk.grub.moduleFolder, 'boot.img'));
  const mbr = masterBootRecord(boot, disk.sizeBytes / sectorBytes);
  core.writeBigUInt64LE(2n, 0x1f4);
  const handle = await open(raw, 'r+');
  try {
    await handle.write(mbr, 0, mbr.length, 0);
    await handle.write(core, 0, core.length, sectorBytes);
  } finally {
    await handle.close();
  }
}

async function coreImage(disk: BootableDisk): Promise<Buffer> {
  const { mkimage, moduleFolder, libraryFolder } = disk.grub;
  const path = join(disk.workDirectory, 'core.img');
  // "(,msdos1)": the first partition of whatever disk the BIOS booted from.
  const modules = [
    'biosdisk',
    'part_msdos',
    'ext2',
    'normal',
    'linux',
    'serial',
    'terminal',
    'configfile',
    'echo',
  ];
  const options = ['-O', 'i386-pc', '-d', moduleFolder, '-p', '(,msdos1)/boot/grub', '-o', path];
  await exec([mkimage, ...options, ...modules], {
    env: { LD_LIBRARY_PATH: libraryFolder },
    signal: disk.signal,
  });
  return await readFile(path);
}

/**
 * Boot code and a partition table with one active Linux partition from 1 MiB to the end. The partition's
 * cylinder, head and sector numbers are the "too big" ones: everybody has used the LBA fields for decades.
 */
export function masterBootRecord(bootCode: Buffer, diskSectors: number): Buffer {
  const mbr = Buffer.alloc(sectorBytes);
  bootCode.copy(mbr, 0, 0, 440);
  mbr.writeBigUInt64LE(1n, 0x5c);
  mbr.set([0x80, 0xfe, 0xff, 0xff, 0x83, 0xfe, 0xff, 0xff], 0x1be);
  mbr.writeUInt32LE(partitionStartSector, 0x1be + 8);
  mbr.writeUInt32LE(diskSectors - partitionStartSector, 0x1be + 12);
  mbr.writeUInt16LE(0xaa55, 510);
  return mbr;
}
