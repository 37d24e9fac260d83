/**
 * Reads the header of a qcow2 file, so that one which points elsewhere is refused before any tool opens it:
 * qemu-img follows an external data file even where it is told to follow no backing file.
 *
 * Source: QEMU's docs/interop/qcow2.txt, "Header". Pure: bytes in, facts out.
 */

/** Bytes to read from the start of a file: the header's fixed part of version 3. */
export const QCOW2_HEADER_BYTES = 104;

const VERSION_2_BYTES = 72;
const MAGIC = 0x514649fb;
const CORRUPT = 1n << 1n;
const EXTERNAL_DATA_FILE = 1n << 2n;
/** dirty, corrupt, external data file, compression type, extended L2 entries. */
const KNOWN_INCOMPATIBLE_FEATURES = 0b11111n;

/** 64 TiB: more than a disk of ours may have, and small enough for exact numbers. */
export const MAX_VIRTUAL_SIZE_BYTES = 64 * 1024 ** 4;

export type Qcow2Verdict =
  | { readonly ok: true; readonly virtualSizeBytes: number }
  | { readonly ok: false; readonly flaw: Qcow2Flaw };

/** Why a header is refused. */
export const qcow2Flaws = {
  'not-qcow2': 'it is not a qcow2 image',
  'unknown-version': 'its qcow2 version is neither 2 nor 3',
  'unknown-feature': 'it needs a qcow2 feature that is not known here',
  'backing-file': 'its header names a backing file',
  'data-file': 'its header names an external data file',
  encrypted: 'it is encrypted',
  corrupt: 'it is marked as corrupt',
  'too-large': 'its virtual size is over 64 TiB',
  empty: 'its virtual size is zero',
} as const;

export type Qcow2Flaw = keyof typeof qcow2Flaws;

const flawOf = (header: DataView): Qcow2Flaw | undefined => {
  if (header.byteLength < VERSION_2_BYTES || header.getUint32(0) !== MAGIC) return 'not-qcow2';
  const version = header.getUint32(4);
  if (version !== 2 && version !== 3) return 'unknown-version';
  if (header.getBigUint64(8) !== 0n || header.getUint32(16) !== 0) return 'backing-file';
  if (header.getUint32(32) !== 0) return 'encrypted';
  const virtualSize = header.getBigUint64(24);
  if (virtualSize > BigInt(MAX_VIRTUAL_SIZE_BYTES)) return 'too-large';
  if (virtualSize === 0n) return 'empty';
  if (version === 2) return undefined;
  if (header.byteLength < QCOW2_HEADER_BYTES) return 'not-qcow2';
  const features = header.getBigUint64(72);
  if ((features & EXTERNAL_DATA_FILE) !== 0n) return 'data-file';
  if ((features & CORRUPT) !== 0n) return 'corrupt';
  if ((features & ~KNOWN_INCOMPATIBLE_FEATURES) !== 0n) return 'unknown-feature';
  return undefined;
};

/** Judges the first `QCOW2_HEADER_BYTES` of a file, or all of a shorter one. */
export const judgeQcow2Header = (bytes: Uint8Array): Qcow2Verdict => {
  const header = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const flaw = flawOf(header);
  return flaw === undefined
    ? { ok: true, virtualSizeBytes: Number(header.getBigUint64(24)) }
    : { ok: false, flaw };
};
