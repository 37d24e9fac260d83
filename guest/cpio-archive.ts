/**
 * Writes a cpio archive in the `newc` format, the one the Linux kernel unpacks as an initramfs
 * (Documentation/driver-api/early-userspace/buffer-format.rst). Pure: the same tree gives the same bytes.
 *
 * Written here, not by cpio(1), so that device nodes and root's ownership need no privilege.
 */
import { completeTree, type TreeEntry } from './file-tree.ts';

const typeBits = {
  directory: 0o040000,
  file: 0o100000,
  symlink: 0o120000,
  characterDevice: 0o020000,
} as const;

/** The archive of a tree; missing parent directories are added. */
export function cpioArchive(entries: readonly TreeEntry[]): Buffer {
  const parts: Buffer[] = [];
  let inode = 1;
  for (const entry of completeTree(entries)) {
    parts.push(...member(entry, inode));
    inode += 1;
  }
  parts.push(header({ name: 'TRAILER!!!', inode: 0, mode: 0, links: 1, size: 0, major: 0, minor: 0 }));
  const archive = Buffer.concat(parts);
  return Buffer.concat([archive, Buffer.alloc(-archive.length & 511)]);
}

function member(entry: TreeEntry, inode: number): readonly Buffer[] {
  const content = contentOf(entry);
  const [major, minor] = entry.kind === 'characterDevice' ? [entry.major, entry.minor] : [0, 0];
  const mode = typeBits[entry.kind] | (entry.kind === 'symlink' ? 0o777 : entry.mode);
  const links = entry.kind === 'directory' ? 2 : 1;
  return [
    header({ name: entry.path, inode, mode, links, size: content.length, major, minor }),
    content,
    Buffer.alloc(-content.length & 3),
  ];
}

function contentOf(entry: TreeEntry): Buffer {
  if (entry.kind === 'file') return entry.content;
  return Buffer.from(entry.kind === 'symlink' ? entry.target : '');
}

interface Header {
  readonly name: string;
  readonly inode: number;
  readonly mode: number;
  readonly links: number;
  readonly size: number;
  readonly major: number;
  readonly minor: number;
}

/** Thirteen numbers of eight hex digits after the magic, then the name, padded to four bytes. */
function header({ name, inode, mode, links, size, major, minor }: Header): Buffer {
  const nameBytes = Buffer.from(`${name}\0`);
  // inode mode uid gid links mtime size devMajor devMinor rdevMajor rdevMinor nameSize check
  const numbers = [inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, nameBytes.length, 0];
  const fields = numbers.map((value) => value.toString(16).padStart(8, '0')).join('');
  const head = Buffer.concat([Buffer.from(`070701${fields}`), nameBytes]);
  return Buffer.concat([head, Buffer.alloc(-head.length & 3)]);
}
