/**
 * Judges a VMDK file before any tool opens it: only one that has all of its data in itself (monolithicSparse,
 * streamOptimized) is taken. A descriptor names other files, as extents or as a parent, and QEMU opens them.
 *
 * Source: VMware, "Virtual Disk Format 5.0", chapters 3 and 4; QEMU's block/vmdk.c. Reads by what it is given; decides
 * alone.
 */
import type { FormatVerdict, ReadAt } from './format-verdict.ts';

const SECTOR_BYTES = 512;
/** "KDMV" */
const MAGIC = 0x4b444d56;
/** The grain directory's offset when it stands in a footer. */
const AT_END = 0xffff_ffff_ffff_ffffn;
const MAX_DESCRIPTOR_SECTORS = 2048n;

interface SparseHeader {
  readonly version: number;
  readonly capacitySectors: bigint;
  readonly descriptorSector: bigint;
  readonly descriptorSectors: bigint;
  readonly directorySector: bigint;
}

const readHeader = (bytes: Uint8Array): SparseHeader | undefined => {
  if (bytes.byteLength < SECTOR_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0) !== MAGIC) return undefined;
  return {
    version: view.getUint32(4, true),
    capacitySectors: view.getBigUint64(12, true),
    descriptorSector: view.getBigUint64(28, true),
    descriptorSectors: view.getBigUint64(36, true),
    directorySector: view.getBigUint64(56, true),
  };
};

/** The last three sectors of a stream are the footer's marker, the footer, and the end of the stream. */
const footerAgrees = async (header: SparseHeader, fileBytes: number, readAt: ReadAt): Promise<boolean> => {
  if (header.directorySector !== AT_END) return true;
  const footer = readHeader(await readAt(fileBytes - 2 * SECTOR_BYTES, SECTOR_BYTES));
  return (
    footer !== undefined &&
    footer.capacitySectors === header.capacitySectors &&
    footer.descriptorSector === header.descriptorSector &&
    footer.descriptorSectors === header.descriptorSectors
  );
};

const flawOfDescriptor = (text: string): 'parent' | 'other-files' | undefined => {
  const parent = /^\s*parentCID\s*=\s*([0-9a-f]+)/im.exec(text)?.[1];
  if (/parentFileNameHint/i.test(text) || (parent !== undefined && !/^f{8}$/i.test(parent))) return 'parent';
  const type = /^\s*createType\s*=\s*"([^"]*)"/im.exec(text)?.[1];
  const extents = text.match(/^\s*(RW|RDONLY|NOACCESS)\s.*$/gim) ?? [];
  const isAlone = extents.length === 1 && /^\s*RW\s+\d+\s+SPARSE\s/i.test(extents[0]);
  const isKnown = type === 'monolithicSparse' || type === 'streamOptimized';
  return isAlone && isKnown ? undefined : 'other-files';
};

export const judgeVmdk = async (fileBytes: number, readAt: ReadAt): Promise<FormatVerdict> => {
  const first = await readAt(0, SECTOR_BYTES);
  if (/^\s*# *Disk DescriptorFile/i.test(Buffer.from(first).toString('latin1')))
    return { ok: false, flaw: 'other-files' };
  const header = readHeader(first);
  if (!header) return { ok: false, flaw: 'not-vmdk' };
  if (header.version < 1 || header.version > 3) return { ok: false, flaw: 'unknown-version' };
  // Without a capacity QEMU takes the descriptor for that of other files.
  if (header.capacitySectors === 0n) return { ok: false, flaw: 'empty' };
  const { descriptorSector, descriptorSectors } = header;
  const descriptorEnd = (descriptorSector + descriptorSectors) * BigInt(SECTOR_BYTES);
  if (descriptorSector === 0n || descriptorSectors > MAX_DESCRIPTOR_SECTORS || descriptorEnd > fileBytes)
    return { ok: false, flaw: 'damaged' };
  if (!(await footerAgrees(header, fileBytes, readAt))) return { ok: false, flaw: 'damaged' };
  const bytes = await readAt(
    Number(descriptorSector) * SECTOR_BYTES,
    Number(descriptorSectors) * SECTOR_BYTES,
  );
  const flaw = flawOfDescriptor(Buffer.from(bytes).toString('latin1'));
  return flaw === undefined
    ? { ok: true, virtualSizeBytes: header.capacitySectors * BigInt(SECTOR_BYTES) }
    : { ok: false, flaw };
};
