/**
 * Takes the ELF kernel out of a bzImage, once, on the host: with it QEMU enters the kernel directly (PVH), and no guest
 * spends a third of a second on unpacking itself. Pure, but for its last part.
 */
import { open, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { runTool } from '../lib/run-tool.ts';
import { RoostError } from '../protocol/errors.ts';

/** Linux/x86 boot protocol (Documentation/arch/x86/boot.rst), offsets in the file. */
const boot = {
  setupSectors: 0x1f1,
  magic: 0x202,
  version: 0x206,
  payloadOffset: 0x248,
  payloadLength: 0x24c,
};
const BOOT_MAGIC = 'HdrS';
/** The first version that says where the payload is. */
const MIN_VERSION = 0x0208;
const SECTOR_BYTES = 512;

const PT_NOTE = 4;
/** The entry for PVH: a note of the name `Xen` (Xen's public/elfnote.h, XEN_ELFNOTE_PHYS32_ENTRY). */
const PVH_NOTE_TYPE = 18;
const PVH_NOTE_NAME = 'Xen\0';
const MAX_NOTES_BYTES = 1024 * 1024;

interface Compression {
  readonly magic: readonly number[];
  /** Of a file's name, by which two of the tools know what to make of it. */
  readonly suffix: string;
  /** Debian's package of the tool. */
  readonly package: string;
  /** After the stream stands the unpacked size, except where the format has it itself. */
  readonly trailerBytes: number;
  /** Unpacks `FILE.suffix` to `FILE`. */
  readonly argv: (packed: string, unpacked: string) => readonly [string, ...string[]];
}

const compressions: readonly Compression[] = [
  {
    magic: [0x02, 0x21, 0x4c, 0x18],
    suffix: '.lz4',
    package: 'lz4',
    trailerBytes: 4,
    argv: (packed, unpacked) => ['lz4', '-d', '-q', '-f', packed, unpacked],
  },
  {
    magic: [0x28, 0xb5, 0x2f, 0xfd],
    suffix: '.zst',
    package: 'zstd',
    trailerBytes: 4,
    argv: (packed, unpacked) => ['zstd', '-d', '-q', '-f', packed, '-o', unpacked],
  },
  {
    magic: [0xfd, 0x37, 0x7a, 0x58, 0x5a],
    suffix: '.xz',
    package: 'xz-utils',
    trailerBytes: 4,
    argv: (packed) => ['xz', '-d', '-k', '-f', packed],
  },
  {
    magic: [0x1f, 0x8b, 0x08],
    suffix: '.gz',
    package: 'gzip',
    trailerBytes: 0,
    argv: (packed) => ['gzip', '-d', '-k', '-f', packed],
  },
];

export interface KernelPayload {
  readonly compressed: Buffer;
  readonly compression: Compression;
}

const refuse = (message: string, hint: string): RoostError =>
  new RoostError('InvalidArgument', `The kernel cannot be used for microVMs: ${message}`, { hint });

/** The compressed ELF file in a bzImage, and what unpacks it. Throws RoostError InvalidArgument. */
export function kernelPayload(image: Buffer): KernelPayload {
  const headerEnd = boot.payloadLength + 4;
  const isBzImage =
    image.length > headerEnd && image.toString('latin1', boot.magic, boot.magic + 4) === BOOT_MAGIC;
  if (!isBzImage || image.readUInt16LE(boot.version) < MIN_VERSION) {
    throw refuse('it is no bzImage', "Take the vmlinuz of a distribution's kernel for x86-64.");
  }
  const sectors = image.readUInt8(boot.setupSectors) || 4;
  const start = (sectors + 1) * SECTOR_BYTES + image.readUInt32LE(boot.payloadOffset);
  const length = image.readUInt32LE(boot.payloadLength);
  const found = compressions.find(({ magic }) => magic.every((byte, index) => image[start + index] === byte));
  if (!found || start + length > image.length || length <= found.trailerBytes) {
    throw refuse('what it is compressed with is not known', 'Known are LZ4, zstd, xz and gzip.');
  }
  const compressed = image.subarray(start, start + length - found.trailerBytes);
  return { compressed, compression: found };
}

/** Gives a part of a file; a shorter one where the file ends. */
export type ReadPart = (offset: number, length: number) => Promise<Buffer>;

/** Whether an ELF file (64-bit, little-endian) has the entry that QEMU needs. */
export async function hasPvhEntry(read: ReadPart): Promise<boolean> {
  const header = await read(0, 64);
  if (header.length < 64 || header.toString('latin1', 0, 6) !== '\x7fELF\x02\x01') return false;
  const entryBytes = header.readUInt16LE(0x36);
  const count = header.readUInt16LE(0x38);
  const table = await read(Number(header.readBigUInt64LE(0x20)), entryBytes * count);
  if (entryBytes < 56 || table.length < entryBytes * count) return false;
  for (let index = 0; index < count; index += 1) {
    const entry = table.subarray(index * entryBytes);
    if (entry.readUInt32LE(0) !== PT_NOTE) continue;
    const size = Number(entry.readBigUInt64LE(0x20));
    if (size <= MAX_NOTES_BYTES && holdsPvhNote(await read(Number(entry.readBigUInt64LE(8)), size)))
      return true;
  }
  return false;
}

function holdsPvhNote(notes: Buffer): boolean {
  for (let at = 0; at + 12 <= notes.length; ) {
    const nameBytes = notes.readUInt32LE(at);
    const valueBytes = notes.readUInt32LE(at + 4);
    const name = notes.toString('latin1', at + 12, at + 12 + nameBytes);
    if (notes.readUInt32LE(at + 8) === PVH_NOTE_TYPE && name === PVH_NOTE_NAME) return true;
    at += 12 + roundUp(nameBytes) + roundUp(valueBytes);
  }
  return false;
}

const roundUp = (bytes: number): number => Math.ceil(bytes / 4) * 4;

/**
 * Writes the ELF kernel of the bzImage at `imagePath` to `outputPath`, whole or not at all; about 50 MB. Throws
 * RoostError InvalidArgument for a kernel that is none or has no PVH entry, HostError if the tool is missing.
 */
export async function extractPvhKernel(
  imagePath: string,
  outputPath: string,
  signal: AbortSignal,
): Promise<void> {
  const { compressed, compression } = kernelPayload(await readFile(imagePath, { signal }));
  const unpacked = `${outputPath}.new-${process.pid}`;
  const packed = `${unpacked}${compression.suffix}`;
  try {
    await writeFile(packed, compressed, { signal });
    await unpack(compression, packed, unpacked, signal);
    if (!(await fileHasPvhEntry(unpacked))) {
      throw refuse('it has no PVH entry', 'It has to be built with CONFIG_PVH, as distributions do.');
    }
    await rename(unpacked, outputPath);
  } finally {
    await Promise.all([packed, unpacked].map((path) => rm(path, { force: true })));
  }
}

async function unpack(
  compression: Compression,
  packed: string,
  unpacked: string,
  signal: AbortSignal,
): Promise<void> {
  try {
    await runTool(compression.argv(packed, unpacked), { signal });
  } catch (cause) {
    signal.throwIfAborted();
    throw new RoostError('HostError', 'The kernel could not be unpacked', {
      cause,
      data: { said: cause instanceof Error ? cause.message : '' },
      hint: `Install the tool if it is missing: apt-get install ${compression.package}`,
    });
  }
}

async function fileHasPvhEntry(path: string): Promise<boolean> {
  const handle = await open(path, 'r');
  try {
    return await hasPvhEntry(async (offset, length) => {
      const part = Buffer.alloc(length);
      const { bytesRead } = await handle.read(part, 0, length, offset);
      return part.subarray(0, bytesRead);
    });
  } finally {
    await handle.close();
  }
}
