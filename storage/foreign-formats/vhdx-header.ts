/**
 * Judges a VHDX file before any tool opens it: one that needs a parent is refused, and its size is known.
 * Source: Microsoft, [MS-VHDX], sections 2.2 and 2.6. Reads by what it is given; decides alone.
 */
import type { FormatVerdict, ReadAt } from './format-verdict.ts';

const KIBIBYTE = 1024;
const REGION_TABLE_OFFSETS = [192 * KIBIBYTE, 256 * KIBIBYTE];
const TABLE_BYTES = 64 * KIBIBYTE;
const MAX_ENTRIES = 2047;
const ENTRY_BYTES = 32;
const HAS_PARENT = 0b10;

/** A GUID as its bytes in hexadecimal: the first three groups are little-endian. */
const guid = (text: string): string => {
  const [a = '', b = '', c = '', d = '', e = ''] = text.toLowerCase().split('-');
  const swapped = [a, b, c].map((group) => (group.match(/../g) ?? []).reverse().join(''));
  return [...swapped, d, e].join('');
};
const METADATA_REGION = guid('8B7CA206-4790-4B9A-B8FE-575F050F886E');
const FILE_PARAMETERS = guid('CAA16737-FA36-4D43-B3B6-33F0AA44E76B');
const VIRTUAL_DISK_SIZE = guid('2FA54224-CD1B-4876-B211-5DBED83BF4B8');

const viewOf = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const textOf = (bytes: Uint8Array, length: number): string =>
  Buffer.from(bytes.subarray(0, length)).toString('latin1');

/** Offsets of the entries of a table whose ids are this. */
const entriesOf = (table: Uint8Array, first: number, count: number, id: string): readonly number[] => {
  const offsets = Array.from(
    { length: Math.min(count, MAX_ENTRIES) },
    (_, index) => first + index * ENTRY_BYTES,
  );
  return offsets.filter(
    (at) =>
      at + ENTRY_BYTES <= table.byteLength && Buffer.from(table.subarray(at, at + 16)).toString('hex') === id,
  );
};

/** Where the metadata is; undefined unless both region tables that are there say the same. */
const metadataOffset = async (readAt: ReadAt): Promise<number | undefined> => {
  const found = new Set<number>();
  for (const offset of REGION_TABLE_OFFSETS) {
    const table = await readAt(offset, TABLE_BYTES);
    if (table.byteLength < TABLE_BYTES || textOf(table, 4) !== 'regi') continue;
    const view = viewOf(table);
    for (const at of entriesOf(table, 16, view.getUint32(8, true), METADATA_REGION))
      found.add(Number(view.getBigUint64(at + 16, true)));
  }
  const [offset] = found;
  return found.size === 1 && offset !== undefined && Number.isSafeInteger(offset) ? offset : undefined;
};

export const judgeVhdx = async (_fileBytes: number, readAt: ReadAt): Promise<FormatVerdict> => {
  if (textOf(await readAt(0, 8), 8) !== 'vhdxfile') return { ok: false, flaw: 'not-vhdx' };
  const offset = await metadataOffset(readAt);
  const table = offset === undefined ? new Uint8Array() : await readAt(offset, TABLE_BYTES);
  if (offset === undefined || table.byteLength < TABLE_BYTES || textOf(table, 8) !== 'metadata')
    return { ok: false, flaw: 'damaged' };
  const view = viewOf(table);
  const item = async (id: string): Promise<DataView | undefined> => {
    const entries = entriesOf(table, 32, view.getUint16(10, true), id);
    const [at] = entries;
    if (entries.length !== 1 || at === undefined) return undefined;
    const bytes = await readAt(offset + view.getUint32(at + 16, true), 8);
    return bytes.byteLength === 8 ? viewOf(bytes) : undefined;
  };
  const parameters = await item(FILE_PARAMETERS);
  const size = await item(VIRTUAL_DISK_SIZE);
  if (!parameters || !size) return { ok: false, flaw: 'damaged' };
  if ((parameters.getUint32(4, true) & HAS_PARENT) !== 0) return { ok: false, flaw: 'parent' };
  const virtualSizeBytes = size.getBigUint64(0, true);
  return virtualSizeBytes === 0n ? { ok: false, flaw: 'empty' } : { ok: true, virtualSizeBytes };
};
