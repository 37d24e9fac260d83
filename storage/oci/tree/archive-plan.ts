/**
 * Puts a tree into words of tar without its bytes: the headers of all its files in one piece, and a plan that says which
 * bytes of which archive come between them. `splice/splice.c` reads the plan. Pure.
 */
import type { FileAttributes, TreeEntry } from './layer-tree.ts';
import { ARCHIVE_END_BYTES, type HeaderContent, paddedSize, writeHeader } from './tar-header.ts';

/** Number of the source that has the headers; the archive of layer 0 is the one after it. */
const HEADERS = 0;
const RECORD_BYTES = 24;
/** In place of a source: zeros. */
const ZEROS = 0xffff_ffff_ffff_ffffn;

/** Squashfs keeps times as 32-bit numbers without a sign. */
const MAX_TIME = 2 ** 32 - 1;
export const keptTime = (mtime: number): number => Math.min(Math.max(mtime, 0), MAX_TIME);

/** Squashfs keeps extended attributes of these kinds; access control lists (system.*) it cannot. */
const keptXattrs = ['user.', 'trusted.', 'security.'];

const headerOf = ({ path, file, sameAs }: TreeEntry): HeaderContent => ({
  type: sameAs === undefined ? file.type : 'link',
  name: file.type === 'directory' ? `${path}/` : path,
  linkName: sameAs ?? file.target,
  mode: file.mode,
  uid: file.uid,
  gid: file.gid,
  sizeBytes: sameAs === undefined ? file.sizeBytes : 0,
  mtime: keptTime(file.mtime),
  major: file.major,
  minor: file.minor,
  xattrs: sameAs === undefined ? lastOfEach(file.xattrs) : [],
});

/** A name that is given twice means its last value, as in every reader of pax. */
const lastOfEach = (xattrs: FileAttributes['xattrs']): FileAttributes['xattrs'] =>
  [...new Map(xattrs)].filter(([name]) => keptXattrs.some((kind) => name.startsWith(kind)));

export interface ArchivePiece {
  /** To be added to the headers. */
  readonly headers: Buffer;
  /** To be added to the plan. */
  readonly plan: Buffer;
}

interface Part {
  readonly source: number | 'zeros';
  readonly offset: number;
  length: number;
}

export class ArchivePlan {
  #headerBytes = 0;

  /** Files of the tree but its root, of which sqfstar takes no notice. */
  piece(entries: readonly TreeEntry[]): ArchivePiece {
    const headers: Buffer[] = [];
    const parts: Part[] = [];
    for (const entry of entries) {
      const header = writeHeader(headerOf(entry));
      headers.push(header);
      add(parts, { source: HEADERS, offset: this.#headerBytes, length: header.length });
      this.#headerBytes += header.length;
      if (entry.sameAs !== undefined) continue;
      const { data, sizeBytes } = entry.file;
      for (const { layer, offset, length } of data)
        add(parts, offset === undefined ? zeros(length) : { source: layer + 1, offset, length });
      if (paddedSize(sizeBytes) > sizeBytes) add(parts, zeros(paddedSize(sizeBytes) - sizeBytes));
    }
    return { headers: Buffer.concat(headers), plan: Buffer.concat(parts.map(record)) };
  }

  end(): Buffer {
    return record(zeros(ARCHIVE_END_BYTES));
  }
}

const zeros = (length: number): Part => ({ source: 'zeros', offset: 0, length });

/** One record for parts that follow each other in the same source, as in an untouched layer. */
const add = (parts: Part[], part: Part): void => {
  const last = parts.at(-1);
  const follows = last?.source === part.source && last.offset + last.length === part.offset;
  if (last && (follows || (part.source === 'zeros' && last.source === 'zeros'))) last.length += part.length;
  else parts.push({ ...part });
};

const record = ({ source, offset, length }: Part): Buffer => {
  const bytes = Buffer.alloc(RECORD_BYTES);
  bytes.writeBigUInt64LE(source === 'zeros' ? ZEROS : BigInt(source), 0);
  bytes.writeBigUInt64LE(BigInt(offset), 8);
  bytes.writeBigUInt64LE(BigInt(length), 16);
  return bytes;
};
