/**
 * Where the bytes of a file lie in its archive: in one piece, or in several with zeros between them. Pure but for the
 * blocks that it asks for. Source: GNU tar manual, "Storing Sparse Files": the old format and PAX 0.0, 0.1 and 1.0.
 */
import type { DataRange } from './tar-entries.ts';
import { BLOCK_BYTES, damagedArchive, paddedSize } from './tar-header.ts';

/** Pieces of one file; a map takes memory, and nobody's file has more. */
const MAX_PIECES = 100_000;

interface Piece {
  readonly offset: number;
  readonly length: number;
}

export interface StoredFile {
  /** Offset of the block after the header. */
  readonly at: number;
  /** Bytes that the header speaks of. */
  readonly storedBytes: number;
  readonly typeflag: string;
  readonly block: Buffer;
  /** Gives the block at an offset of the archive. */
  readonly read: (offset: number) => Promise<Buffer>;
}

export interface FileRanges {
  readonly data: readonly DataRange[];
  /** Bytes of the file. */
  readonly sizeBytes: number;
  /** Where the next header is. */
  readonly next: number;
}

const whole = (text: string | undefined): number => {
  if (text === undefined || !/^\d{1,15}$/.test(text))
    throw damagedArchive('the map of a sparse file is malformed');
  return Number(text);
};

const octal = (block: Buffer, from: number): number => {
  const text = block.toString('latin1', from, from + 12).replace(/[\0 ]/g, '');
  if (/^[0-7]{1,12}$/.test(text)) return Number.parseInt(text, 8);
  // Base 256 of GNU; a file beyond 8 GiB.
  if (((block[from] ?? 0) & 0xc0) === 0x80) return Number(block.readBigUInt64BE(from + 4));
  throw damagedArchive('the map of a sparse file is malformed');
};

const pieces = (numbers: readonly number[]): readonly Piece[] => {
  const found: Piece[] = [];
  for (let at = 0; at < numbers.length; at += 2)
    found.push({ offset: numbers[at] ?? 0, length: numbers[at + 1] ?? 0 });
  if (found.length > MAX_PIECES) throw damagedArchive('a sparse file has too many pieces');
  return found;
};

export class SparseMap {
  readonly #records = new Map<string, string>();
  /** Of PAX 0.0, where each piece has records of its own. */
  readonly #numbers: number[] = [];

  record(key: string, value: string): void {
    if (key === 'GNU.sparse.offset' || key === 'GNU.sparse.numbytes') this.#numbers.push(whole(value));
    else this.#records.set(key, value);
  }

  /** The file's own name, where the header has another one. */
  get name(): string | undefined {
    return this.#records.get('GNU.sparse.name');
  }

  async ranges(file: StoredFile): Promise<FileRanges> {
    const { at, storedBytes, typeflag } = file;
    const next = at + paddedSize(storedBytes);
    if (typeflag === 'S') return await this.#old(file);
    const real = this.#records.get('GNU.sparse.realsize') ?? this.#records.get('GNU.sparse.size');
    if (real === undefined) {
      const data = storedBytes === 0 ? [] : [{ offset: at, length: storedBytes }];
      return { data, sizeBytes: storedBytes, next };
    }
    const sizeBytes = whole(real);
    if (this.#records.get('GNU.sparse.major') === '1') {
      const { map, mapBytes } = await mapAhead(file);
      return { data: spread(map, at + mapBytes, storedBytes - mapBytes, sizeBytes), sizeBytes, next };
    }
    const listed = this.#records.get('GNU.sparse.map')?.split(',').map(whole) ?? this.#numbers;
    return { data: spread(pieces(listed), at, storedBytes, sizeBytes), sizeBytes, next };
  }

  /** Four pieces in the header, 21 in each further block. */
  async #old({ at, storedBytes, block, read }: StoredFile): Promise<FileRanges> {
    const numbers: number[] = [];
    const collect = (from: Buffer, start: number, count: number): void => {
      for (let index = 0; index < count; index += 1) {
        const place = start + 24 * index;
        if (from[place] === 0) return;
        numbers.push(octal(from, place), octal(from, place + 12));
      }
    };
    collect(block, 386, 4);
    let more = block[482] === 1;
    let dataAt = at;
    while (more) {
      const further = await read(dataAt);
      collect(further, 0, 21);
      if (numbers.length > 2 * MAX_PIECES) throw damagedArchive('a sparse file has too many pieces');
      more = further[504] === 1;
      dataAt += BLOCK_BYTES;
    }
    const sizeBytes = octal(block, 483);
    const data = spread(pieces(numbers), dataAt, storedBytes, sizeBytes);
    return { data, sizeBytes, next: dataAt + paddedSize(storedBytes) };
  }
}

/** PAX 1.0: decimal numbers, a line each, ahead of the bytes: how many pieces, then offset and length of each. */
const mapAhead = async ({
  at,
  storedBytes,
  read,
}: StoredFile): Promise<{ readonly map: readonly Piece[]; readonly mapBytes: number }> => {
  const lines: string[] = [''];
  let mapBytes = 0;
  const isComplete = (): boolean => lines.length > 1 && lines.length > 1 + 2 * whole(lines[0]);
  while (!isComplete()) {
    if (mapBytes + BLOCK_BYTES > storedBytes || lines.length > 2 * MAX_PIECES)
      throw damagedArchive('the map of a sparse file is malformed');
    const [first = '', ...further] = (await read(at + mapBytes)).toString('latin1').split('\n');
    lines.push(`${lines.pop() ?? ''}${first}`, ...further);
    mapBytes += BLOCK_BYTES;
  }
  return { map: pieces(lines.slice(1, 1 + 2 * whole(lines[0])).map(whole)), mapBytes };
};

/** The pieces in their places, zeros between them and after the last. */
const spread = (
  map: readonly Piece[],
  dataAt: number,
  dataBytes: number,
  sizeBytes: number,
): readonly DataRange[] => {
  const data: DataRange[] = [];
  let done = 0;
  let from = dataAt;
  for (const { offset, length } of map) {
    if (offset < done || offset + length > sizeBytes || from + length > dataAt + dataBytes)
      throw damagedArchive('the map of a sparse file is malformed');
    if (offset > done) data.push({ offset: undefined, length: offset - done });
    if (length > 0) data.push({ offset: from, length });
    done = offset + length;
    from += length;
  }
  if (done < sizeBytes) data.push({ offset: undefined, length: sizeBytes - done });
  return data;
};
