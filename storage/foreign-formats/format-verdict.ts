/** What is found in the head of a disk image of a format that is not ours. */

export const formatFlaws = {
  'not-vmdk': 'it is not a VMDK image',
  'not-vhdx': 'it is not a VHDX image',
  'other-files': 'it keeps its data in other files',
  parent: 'it needs another image, its parent',
  'unknown-version': 'its version is not known here',
  damaged: 'its header is damaged or incomplete',
  empty: 'its virtual size is zero',
  'too-large': 'its virtual size is over 64 TiB',
} as const;
export type FormatFlaw = keyof typeof formatFlaws;

export type FormatVerdict =
  | { readonly ok: true; readonly virtualSizeBytes: bigint }
  | { readonly ok: false; readonly flaw: FormatFlaw };

/** Bytes of the file; fewer at its end, none before its beginning. */
export type ReadAt = (offset: number, length: number) => Promise<Uint8Array>;
