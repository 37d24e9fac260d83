/**
 * Blocks of a tar archive: one header read, one header written. Names and values are bytes; they are held in strings of
 * one character a byte (latin1), because nothing says that they are UTF-8 and nothing of them may be changed. Pure.
 * Source: POSIX.1-2024, pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar manual, "Basic Tar Format".
 */
import { RoostError } from '../../../protocol/errors.ts';

export const BLOCK_BYTES = 512;

/** What an archive holds, as types of files. */
export type FileType = 'file' | 'directory' | 'symlink' | 'character' | 'block' | 'fifo';

/** One header as it stands there, before extended headers are applied. */
export interface RawHeader {
  readonly typeflag: string;
  readonly name: string;
  readonly linkName: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  /** Seconds since the epoch. */
  readonly mtime: number;
  readonly major: number;
  readonly minor: number;
}

export const damagedArchive = (what: string): RoostError =>
  new RoostError('InvalidArgument', `An archive of the image is damaged: ${what}`, {
    data: { flaw: 'damaged' },
    hint: 'Build the image again, or fetch it anew if it should be sound.',
  });

const text = (block: Buffer, from: number, length: number): string => {
  const field = block.subarray(from, from + length);
  const end = field.indexOf(0);
  return field.toString('latin1', 0, end < 0 ? length : end);
};

/** An octal number in ASCII, or in base 256 where the first bit is set (GNU). Errors: InvalidArgument. */
const numeric = (block: Buffer, from: number, length: number): number => {
  const first = block[from] ?? 0;
  if ((first & 0x80) === 0) {
    const digits = text(block, from, length).trim();
    if (!/^[0-7]*$/.test(digits)) throw damagedArchive('a number in a header is none');
    return digits === '' ? 0 : Number.parseInt(digits, 8);
  }
  const isNegative = (first & 0x40) !== 0;
  let value = BigInt(first & 0x7f);
  for (const byte of block.subarray(from + 1, from + length)) value = value * 256n + BigInt(byte);
  if (isNegative) value -= 1n << BigInt(length * 8 - 1);
  if (value > BigInt(Number.MAX_SAFE_INTEGER) || value < BigInt(Number.MIN_SAFE_INTEGER))
    throw damagedArchive('a number in a header is too large');
  return Number(value);
};

const SUM_AT = 148;
const SUM_BYTES = 8;
const BLANK = 0x20;

/**
 * Of all bytes, with blanks in place of the sum; some writers added up signed ones. By index: this is done for each byte
 * of each header, and iterators take ten times as long.
 */
const checksums = (block: Buffer): readonly [number, number] => {
  let unsigned = SUM_BYTES * BLANK;
  let negative = 0;
  for (let index = 0; index < block.length; index += 1) {
    if (index === SUM_AT) index += SUM_BYTES;
    const byte = block[index] ?? 0;
    unsigned += byte;
    if (byte >= 0x80) negative += 256;
  }
  return [unsigned, unsigned - negative];
};

const ZERO_BLOCK = Buffer.alloc(BLOCK_BYTES);
export const isZeroBlock = (block: Buffer): boolean => block[0] === 0 && block.equals(ZERO_BLOCK);

/** Errors: InvalidArgument when it is none. */
export const readHeader = (block: Buffer): RawHeader => {
  if (!checksums(block).includes(numeric(block, SUM_AT, SUM_BYTES)))
    throw damagedArchive('the sum of a header is wrong');
  const magic = block.toString('latin1', 257, 265);
  const isUstar = magic.startsWith('ustar\0');
  const hasDevice = magic.startsWith('ustar');
  const prefix = isUstar ? text(block, 345, 155) : '';
  const name = text(block, 0, 100);
  return {
    typeflag: block.toString('latin1', 156, 157),
    name: prefix === '' ? name : `${prefix}/${name}`,
    linkName: text(block, 157, 100),
    mode: numeric(block, 100, 8),
    uid: numeric(block, 108, 8),
    gid: numeric(block, 116, 8),
    sizeBytes: numeric(block, 124, 12),
    mtime: numeric(block, 136, 12),
    major: hasDevice ? numeric(block, 329, 8) : 0,
    minor: hasDevice ? numeric(block, 337, 8) : 0,
  };
};

/** Records of a pax extended header, in order; a name may be there more than once. Errors: InvalidArgument. */
export const readPaxRecords = (content: Buffer): readonly (readonly [string, string])[] => {
  const records: (readonly [string, string])[] = [];
  for (let at = 0; at < content.length; ) {
    const blank = content.indexOf(0x20, at);
    const digits = blank < 0 ? '' : content.toString('latin1', at, blank);
    const length = /^[0-9]{1,9}$/.test(digits) ? Number(digits) : 0;
    const end = at + length;
    const equals = content.indexOf(0x3d, blank);
    if (length < 5 || end > content.length || content[end - 1] !== 0x0a || equals < 0 || equals >= end)
      throw damagedArchive('a record of an extended header is malformed');
    records.push([
      content.toString('latin1', blank + 1, equals),
      content.toString('latin1', equals + 1, end - 1),
    ]);
    at = end;
  }
  return records;
};

const paxRecord = (key: string, value: string): string => {
  const rest = key.length + value.length + 3;
  let length = rest + String(rest).length;
  if (rest + String(length).length !== length) length = rest + String(length).length;
  return `${length} ${key}=${value}\n`;
};

const typeflags: Readonly<Record<FileType | 'link' | 'extended', string>> = {
  file: '0',
  link: '1',
  symlink: '2',
  character: '3',
  block: '4',
  directory: '5',
  fifo: '6',
  extended: 'x',
};

/** What a header says of a file; a hard link says only its name and that of the file it is. */
export interface HeaderContent {
  readonly type: FileType | 'link';
  readonly name: string;
  readonly linkName: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  readonly mtime: number;
  readonly major: number;
  readonly minor: number;
  /** Name and value of each extended attribute. */
  readonly xattrs: readonly (readonly [string, string])[];
}

const MAX_NAME_BYTES = 100;
/** Largest numbers of 7 and of 11 octal digits. */
const MAX_SHORT = 0o7777777;
const MAX_LONG = 0o77777777777;

const paddedBlocks = (bytes: string): Buffer => {
  const padded = Buffer.alloc(Math.ceil(bytes.length / BLOCK_BYTES) * BLOCK_BYTES);
  padded.write(bytes, 'latin1');
  return padded;
};

const fits = (value: number, max: number): number => (value <= max ? value : 0);

const headerBlock = (typeflag: string, content: Omit<HeaderContent, 'type' | 'xattrs'>): Buffer => {
  const block = Buffer.alloc(BLOCK_BYTES);
  const octal = (value: number, from: number, digits: number): void => {
    block.write(value.toString(8).padStart(digits, '0'), from, 'latin1');
  };
  block.write(content.name.slice(0, MAX_NAME_BYTES), 0, 'latin1');
  octal(content.mode & 0o7777, 100, 7);
  octal(fits(content.uid, MAX_SHORT), 108, 7);
  octal(fits(content.gid, MAX_SHORT), 116, 7);
  octal(fits(content.sizeBytes, MAX_LONG), 124, 11);
  octal(fits(content.mtime, MAX_LONG), 136, 11);
  block.write(typeflag, 156, 'latin1');
  block.write(content.linkName.slice(0, MAX_NAME_BYTES), 157, 'latin1');
  block.write('ustar\u000000', 257, 'latin1');
  octal(fits(content.major, MAX_SHORT), 329, 7);
  octal(fits(content.minor, MAX_SHORT), 337, 7);
  octal(checksums(block)[0], SUM_AT, 6);
  block[SUM_AT + SUM_BYTES - 1] = BLANK;
  return block;
};

/** The blocks ahead of a file's bytes: an extended header where the plain one has no room, and the plain one. */
export const writeHeader = (content: HeaderContent): Buffer => {
  const { type, name, linkName, uid, gid, sizeBytes, xattrs } = content;
  const records = [
    ...(name.length > MAX_NAME_BYTES ? [paxRecord('path', name)] : []),
    ...(linkName.length > MAX_NAME_BYTES ? [paxRecord('linkpath', linkName)] : []),
    ...(uid > MAX_SHORT ? [paxRecord('uid', `${uid}`)] : []),
    ...(gid > MAX_SHORT ? [paxRecord('gid', `${gid}`)] : []),
    ...(sizeBytes > MAX_LONG ? [paxRecord('size', `${sizeBytes}`)] : []),
    ...xattrs.map(([key, value]) => paxRecord(`SCHILY.xattr.${key}`, value)),
  ].join('');
  const plain = headerBlock(typeflags[type], content);
  if (records === '') return plain;
  const extended = headerBlock(typeflags.extended, {
    ...content,
    name: 'pax',
    linkName: '',
    mode: 0o644,
    uid: 0,
    gid: 0,
    sizeBytes: records.length,
    major: 0,
    minor: 0,
  });
  return Buffer.concat([extended, paddedBlocks(records), plain]);
};

/** Bytes of a file with those that fill its last block. */
export const paddedSize = (sizeBytes: number): number => Math.ceil(sizeBytes / BLOCK_BYTES) * BLOCK_BYTES;

/** The two blocks of zeros after the last file. */
export const ARCHIVE_END_BYTES = 2 * BLOCK_BYTES;
