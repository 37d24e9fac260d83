/**
 * Lists what a tar archive holds: reads its headers and passes over the bytes of its files. The archive is a stranger's.
 * Extended headers of pax and of GNU tar are applied, sparse files too; whatever is not understood is refused, because
 * a file left out or misread would be a wrong image that looks well.
 */
import type { FileHandle } from 'node:fs/promises';
import { RoostError } from '../../../protocol/errors.ts';
import { SparseMap } from './sparse-map.ts';
import {
  BLOCK_BYTES,
  damagedArchive,
  type FileType,
  isZeroBlock,
  paddedSize,
  type RawHeader,
  readHeader,
  readPaxRecords,
} from './tar-header.ts';

/** A part of a file: bytes of the archive, or as many zeros. */
export interface DataRange {
  /** Offset in the archive; undefined for zeros. */
  readonly offset: number | undefined;
  readonly length: number;
}

export interface TarEntry {
  readonly type: FileType | 'link';
  /** As it stands there: it may be absolute, or lead out of the root. */
  readonly name: string;
  /** Target of a symbolic link, or name of the file that a hard link is. */
  readonly linkName: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Seconds since the epoch, rounded down; may be negative. */
  readonly mtime: number;
  readonly sizeBytes: number;
  readonly data: readonly DataRange[];
  readonly major: number;
  readonly minor: number;
  readonly xattrs: readonly (readonly [string, string])[];
}

/** PATH_MAX of Linux, without the final zero. */
const MAX_PATH_BYTES = 4095;
/** As Go's archive/tar has it, with which most images are written and read. */
const MAX_EXTENDED_BYTES = 1024 ** 2;
/** Headers of small files lie close together: one read gets several. */
const WINDOW_BYTES = 16 * 1024;
const MAX_ID = 2 ** 32 - 2;

/** POSIX's types of files, and those that stand for a plain file: NUL (old), 7 (contiguous), S (sparse, GNU). */
const types: ReadonlyMap<string, TarEntry['type']> = new Map([
  ['0', 'file'],
  ['\0', 'file'],
  ['7', 'file'],
  ['S', 'file'],
  ['1', 'link'],
  ['2', 'symlink'],
  ['3', 'character'],
  ['4', 'block'],
  ['5', 'directory'],
  ['6', 'fifo'],
]);

const XATTR = 'SCHILY.xattr.';

/** What extended headers say of the next file. */
class Extension {
  readonly records = new Map<string, string>();
  readonly xattrs: (readonly [string, string])[] = [];
  readonly sparse = new SparseMap();
  name: string | undefined;
  linkName: string | undefined;

  add([key, value]: readonly [string, string]): void {
    if (key.startsWith(XATTR)) this.xattrs.push([key.slice(XATTR.length), value]);
    else if (key.startsWith('GNU.sparse.')) this.sparse.record(key, value);
    else this.records.set(key, value);
  }

  number(key: string, otherwise: number): number {
    const value = this.records.get(key);
    if (value === undefined) return otherwise;
    if (!/^-?\d{1,15}(\.\d*)?$/.test(value)) throw damagedArchive(`a record ${key} is no number`);
    return Math.floor(Number(value));
  }

  path(key: 'path' | 'linkpath', otherwise: string): string {
    const long = key === 'path' ? this.name : this.linkName;
    const value = this.records.get(key) ?? long ?? otherwise;
    if (value.length > MAX_PATH_BYTES) throw damagedArchive(`a name has ${value.length} bytes`);
    if (value.includes('\0')) throw damagedArchive('a name holds a zero byte');
    return value;
  }
}

class TarReader {
  readonly #file: FileHandle;
  readonly #sizeBytes: number;
  #window: Buffer = Buffer.alloc(0);
  #windowAt = 0;

  constructor(file: FileHandle, sizeBytes: number) {
    this.#file = file;
    this.#sizeBytes = sizeBytes;
  }

  async *entries(): AsyncGenerator<TarEntry> {
    let extension = new Extension();
    for (let at = 0; at < this.#sizeBytes; ) {
      const block = await this.#read(at, BLOCK_BYTES);
      if (isZeroBlock(block)) return;
      const header = readHeader(block);
      at += BLOCK_BYTES;
      switch (header.typeflag) {
        case 'x':
          for (const record of readPaxRecords(await this.#extended(at, header))) extension.add(record);
          break;
        case 'L':
          extension.name = await this.#longName(at, header);
          break;
        case 'K':
          extension.linkName = await this.#longName(at, header);
          break;
        case 'g':
          // Says nothing of any one file; what writes layers has no use for it, and what reads them passes over it.
          await this.#extended(at, header);
          break;
        default: {
          const { entry, next } = await this.#entry(at, block, header, extension);
          extension = new Extension();
          yield entry;
          at = next;
          continue;
        }
      }
      at += paddedSize(header.sizeBytes);
    }
  }

  async #read(offset: number, length: number): Promise<Buffer> {
    if (offset + length > this.#sizeBytes) throw damagedArchive('it ends in the middle of a file');
    const start = offset - this.#windowAt;
    if (start >= 0 && start + length <= this.#window.length)
      return this.#window.subarray(start, start + length);
    const wanted = Buffer.alloc(Math.max(length, WINDOW_BYTES));
    const { bytesRead } = await this.#file.read(wanted, 0, wanted.length, offset);
    if (bytesRead < length) throw damagedArchive('it ends in the middle of a file');
    this.#window = wanted.subarray(0, bytesRead);
    this.#windowAt = offset;
    return this.#window.subarray(0, length);
  }

  async #extended(at: number, { sizeBytes }: RawHeader): Promise<Buffer> {
    if (sizeBytes < 0 || sizeBytes > MAX_EXTENDED_BYTES)
      throw damagedArchive(`an extended header has ${sizeBytes} bytes`);
    return await this.#read(at, sizeBytes);
  }

  async #longName(at: number, header: RawHeader): Promise<string> {
    const content = (await this.#extended(at, header)).toString('latin1');
    return content.replace(/\0.*$/s, '');
  }

  async #entry(
    at: number,
    block: Buffer,
    header: RawHeader,
    extension: Extension,
  ): Promise<{ readonly entry: TarEntry; readonly next: number }> {
    const type = typeOf(header, extension);
    const storedBytes = type === 'file' ? extension.number('size', header.sizeBytes) : 0;
    if (storedBytes < 0) throw damagedArchive('a file has a negative size');
    const read = (offset: number): Promise<Buffer> => this.#read(offset, BLOCK_BYTES);
    const { data, sizeBytes, next } =
      type === 'file'
        ? await extension.sparse.ranges({ at, storedBytes, typeflag: header.typeflag, block, read })
        : { data: [], sizeBytes: 0, next: at + paddedSize(header.typeflag === '5' ? 0 : header.sizeBytes) };
    if (
      next > paddedSize(this.#sizeBytes) ||
      data.some(({ offset = 0, length }) => offset + length > this.#sizeBytes)
    )
      throw damagedArchive('it ends in the middle of a file');
    const entry = { type, ...detailsOf(header, extension), sizeBytes, data };
    return { entry, next };
  }
}

const typeOf = (header: RawHeader, extension: Extension): TarEntry['type'] => {
  const type = types.get(header.typeflag);
  if (type === undefined) {
    throw new RoostError(
      'Unsupported',
      `The image holds an entry of type ${JSON.stringify(header.typeflag)}`,
      { hint: 'Build the image with a tool that writes POSIX archives.' },
    );
  }
  // Before there was a type for them, directories were files whose name ends in a slash.
  return type === 'file' && extension.path('path', header.name).endsWith('/') ? 'directory' : type;
};

const detailsOf = (
  header: RawHeader,
  extension: Extension,
): Omit<TarEntry, 'type' | 'data' | 'sizeBytes'> => {
  const uid = extension.number('uid', header.uid);
  const gid = extension.number('gid', header.gid);
  if (uid < 0 || gid < 0 || uid > MAX_ID || gid > MAX_ID) throw damagedArchive('an owner is out of range');
  const { mode, major, minor } = header;
  return {
    name: extension.sparse.name ?? extension.path('path', header.name),
    linkName: extension.path('linkpath', header.linkName),
    mode: mode & 0o7777,
    uid,
    gid,
    mtime: extension.number('mtime', header.mtime),
    major,
    minor,
    xattrs: extension.xattrs,
  };
};

/** What the archive holds, in its order. Errors: InvalidArgument where it is damaged, Unsupported. */
export const tarEntries = (file: FileHandle, sizeBytes: number): AsyncGenerator<TarEntry> =>
  new TarReader(file, sizeBytes).entries();
