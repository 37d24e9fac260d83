/**
 * Gives the root directory of a squashfs its attributes. sqfstar 4.5 takes no notice of the root in the archive, nor of
 * its own options for owner and time: the root is the tool's own user's, as of now. So its inode is written anew, in a
 * file system whose inodes and ids are not compressed (-noI, -noId). A stranger may have made the tool write anything:
 * what is read is checked. Source: squashfs 4.0, fs/squashfs/squashfs_fs.h of Linux.
 */
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { RoostError } from '../../../protocol/errors.ts';

export interface RootAttributes {
  /** Permissions, set-id and sticky bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Seconds since the epoch. */
  readonly mtime: number;
}

const MAGIC = 0x73717368;
const SUPERBLOCK_BYTES = 96;
const METADATA_BYTES = 8192;
/** Of a metadata block: set where it is stored as it is. */
const UNCOMPRESSED = 0x8000;
const DIRECTORY_TYPES: ReadonlySet<number> = new Set([1, 8]);
const INODE_BYTES = 16;
const MAX_IDS = 65536;

const unexpected = (what: string): RoostError =>
  new RoostError('HostError', `sqfstar wrote no squashfs as we know it: ${what}`, {
    hint: "Try again with Debian's package squashfs-tools.",
  });

const readAt = async (file: FileHandle, position: number, length: number): Promise<Buffer> => {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, position);
  if (bytesRead < length) throw unexpected('it is too short');
  return buffer;
};

/** Where each byte of the file lies that begins so many bytes into a metadata block, over the end of the block too. */
const metadataPositions = async (
  file: FileHandle,
  block: number,
  offset: number,
  length: number,
): Promise<readonly number[]> => {
  const positions: number[] = [];
  for (let at = block, skip = offset; positions.length < length; skip = 0) {
    const header = (await readAt(file, at, 2)).readUInt16LE();
    const size = header & (UNCOMPRESSED - 1);
    if ((header & UNCOMPRESSED) === 0 || size === 0 || size > METADATA_BYTES || skip > size)
      throw unexpected('its inodes are compressed');
    for (let index = skip; index < size && positions.length < length; index += 1)
      positions.push(at + 2 + index);
    at += 2 + size;
  }
  return positions;
};

interface IdTable {
  readonly ids: number[];
  readonly positionOf: (index: number) => number;
}

const readIds = async (file: FileHandle, table: number, count: number): Promise<IdTable> => {
  if (count > MAX_IDS) throw unexpected('it has too many ids');
  const perBlock = METADATA_BYTES / 4;
  const starts: number[] = [];
  const ids: number[] = [];
  for (let first = 0; first < count; first += perBlock) {
    const start = Number((await readAt(file, table + (first / perBlock) * 8, 8)).readBigUInt64LE());
    starts.push(start);
    const wanted = Math.min(count - first, perBlock);
    if ((await readAt(file, start, 2)).readUInt16LE() !== (UNCOMPRESSED | (wanted * 4)))
      throw unexpected('its ids are compressed');
    const block = await readAt(file, start + 2, wanted * 4);
    for (let index = 0; index < wanted; index += 1) ids.push(block.readUInt32LE(index * 4));
  }
  return {
    ids,
    positionOf: (index) => (starts[Math.floor(index / perBlock)] ?? 0) + 2 + (index % perBlock) * 4,
  };
};

/** `usedIds`: owners and groups of all files but the root. */
export const setSquashfsRoot = async (
  path: string,
  root: RootAttributes,
  usedIds: ReadonlySet<number>,
): Promise<void> => {
  await using file = await open(path, constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  if (!(await file.stat()).isFile()) throw unexpected('it is no plain file');
  const superblock = await readAt(file, 0, SUPERBLOCK_BYTES);
  if (superblock.readUInt32LE(0) !== MAGIC) throw unexpected('it begins otherwise');
  const table = await readIds(file, Number(superblock.readBigUInt64LE(48)), superblock.readUInt16LE(26));
  const reference = superblock.readBigUInt64LE(32);
  const block = Number(superblock.readBigUInt64LE(64)) + Number(reference >> 16n);
  const positions = await metadataPositions(file, block, Number(reference & 0xffffn), INODE_BYTES);
  const inode = Buffer.alloc(INODE_BYTES);
  for (const [index, position] of positions.entries()) await file.read(inode, index, 1, position);
  if (!DIRECTORY_TYPES.has(inode.readUInt16LE(0))) throw unexpected('its root is no directory');
  inode.writeUInt16LE(root.mode & 0o7777, 2);
  inode.writeUInt16LE(await idIndex(file, table, root.uid, usedIds), 4);
  inode.writeUInt16LE(await idIndex(file, table, root.gid, new Set([...usedIds, root.uid])), 6);
  inode.writeUInt32LE(root.mtime, 8);
  for (const [index, position] of positions.entries()) await file.write(inode, index, 1, position);
};

/** The place of an id; where the table lacks it, that of the tool's own user, which is nobody else's. */
const idIndex = async (
  file: FileHandle,
  { ids, positionOf }: IdTable,
  id: number,
  usedIds: ReadonlySet<number>,
): Promise<number> => {
  const there = ids.indexOf(id);
  if (there >= 0) return there;
  const free = ids.findIndex((each) => !usedIds.has(each));
  if (free < 0)
    throw new RoostError(
      'Unsupported',
      `The root directory of the image belongs to ${id}, as nothing else in it`,
      {
        hint: 'Give the root directory of the image the owner of what is in it.',
      },
    );
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(id);
  await file.write(bytes, 0, 4, positionOf(free));
  ids[free] = id;
  return free;
};
