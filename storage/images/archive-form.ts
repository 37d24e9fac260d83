/** What a file is by its first bytes: a tar archive, plain or packed, or something else. Pure. */
import { BLOCK_BYTES, isZeroBlock, readHeader } from '../oci/tree/tar-header.ts';

export type ArchiveForm = 'tar' | 'gzip' | 'xz' | 'zstd';

/** As many of them as `archiveForm` and `whatElse` look at. */
export const HEAD_BYTES = BLOCK_BYTES;

type Beginning = readonly number[];
const ascii = (text: string): Beginning => [...Buffer.from(text, 'latin1')];

/** RFC 1952; The .xz File Format 1.2, 2.1.1.1; RFC 8878, 3.1.1 (a frame) and 3.1.2 (one that is passed over). */
const packed: readonly (readonly [ArchiveForm, Beginning])[] = [
  ['gzip', [0x1f, 0x8b]],
  ['xz', [0xfd, ...ascii('7zXZ'), 0]],
  ['zstd', [0x28, 0xb5, 0x2f, 0xfd]],
  ['zstd', [0x50, 0x2a, 0x4d, 0x18]],
];

/** What people take for an archive of a root, and what to do with it. */
const others: readonly (readonly [Beginning, string])[] = [
  [[...ascii('QFI'), 0xfb], 'It looks like a qcow2 disk: import it with kind disk.'],
  [
    ascii('hsqs'),
    'It looks like a squashfs: unpack it with unsquashfs, and make an archive of the tree with tar.',
  ],
  [ascii('BZh'), 'It looks like bzip2: unpack it with bunzip2 and import the archive.'],
  [[...ascii('PK'), 3, 4], 'It looks like a zip: unpack it, and make an archive of the tree with tar.'],
  [ascii('07070'), 'It looks like a cpio archive: unpack it, and make an archive of the tree with tar.'],
];

const begins = (head: Buffer, beginning: Beginning): boolean =>
  beginning.every((byte, index) => head[index] === byte);

const isTarHeader = (head: Buffer): boolean => {
  if (head.length < BLOCK_BYTES) return false;
  const block = head.subarray(0, BLOCK_BYTES);
  try {
    // Nothing but zeros ends an archive, and is the sum of no header.
    return !isZeroBlock(block) && readHeader(block).typeflag !== undefined;
  } catch {
    return false;
  }
};

/** Undefined when it is none. */
export const archiveForm = (head: Buffer): ArchiveForm | undefined => {
  const [form] = packed.find(([, beginning]) => begins(head, beginning)) ?? [];
  return form ?? (isTarHeader(head) ? 'tar' : undefined);
};

/** What to do with a file that is no archive. */
export const whatElse = (head: Buffer): string => {
  const [, advice] = others.find(([beginning]) => begins(head, beginning)) ?? [];
  return advice ?? 'Give a tar archive of the whole tree, plain or packed by gzip, xz or zstd.';
};
