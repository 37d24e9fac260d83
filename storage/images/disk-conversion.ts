/**
 * Makes our own fresh qcow2 file out of a distrusted disk image. The header is judged first, in this process; then
 * qemu-img reads the copy as an identity that owns nothing but the directory it writes to; then the header of the
 * result is judged like that of a stranger, since whatever subverted qemu-img would have written it.
 */
import { constants } from 'node:fs';
import { chown, mkdir, open, rename, statfs } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { ExecError } from '../../lib/exec-result.ts';
import type { Work } from '../../lib/work.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { ImageSourceFormat } from '../../protocol/image.ts';
import type { Confinement } from '../files/confined-tool.ts';
import { removeDirectory } from '../files/durable-files.ts';
import { failureFacts, saysFull } from '../files/storage-errors.ts';
import { type FormatFlaw, formatFlaws } from '../foreign-formats/format-verdict.ts';
import { judgeVhdx } from '../foreign-formats/vhdx-header.ts';
import { judgeVmdk } from '../foreign-formats/vmdk-header.ts';
import {
  judgeQcow2Header,
  MAX_VIRTUAL_SIZE_BYTES,
  QCOW2_HEADER_BYTES,
  qcow2Flaws,
} from '../qcow2/qcow2-header.ts';
import { checkImage, convertToQcow2 } from '../qcow2/qemu-img.ts';

const SECTOR_BYTES = 512;
/** From this exit code on the launcher or env(1) speaks, not qemu-img. */
const LAUNCH_FAILED = 125;
/** Of the free space, at most this part for one image: an image must not fill the host. */
const MAX_PART_OF_FREE_SPACE = 0.9;
/** Tables of a qcow2 file come on top of its data: under 1/1024 of it, and a few clusters. */
const tablesFor = (dataBytes: number): number => Math.ceil(dataBytes / 1024) + 16 * 1024 ** 2;

const hints = {
  'backing-file': 'Flatten it where it was made, with qemu-img convert, and import the result.',
  'data-file': 'Flatten it where it was made, with qemu-img convert, and import the result.',
  encrypted: 'Decrypt it where it was made, with qemu-img convert, and import the result.',
  'not-qcow2': 'Name the right format: a plain disk image is raw.',
  corrupt: 'Repair it where it was made, with qemu-img check, or fetch it again.',
  'unknown-version': 'Convert it with qemu-img convert, and import the result.',
  'unknown-feature': 'Convert it with qemu-img convert, and import the result.',
  'too-large': 'Shrink it, or fetch it again if it should be smaller.',
  empty: 'Fetch it again, or leave the image out to get an empty disk.',
} as const;

const foreignHints: Readonly<Record<FormatFlaw, string>> = {
  'not-vmdk': 'Name the right format: a plain disk image is raw.',
  'not-vhdx': 'Name the right format: a plain disk image is raw.',
  'other-files': 'Make one file of it where it was made, with qemu-img convert, and import the result.',
  parent: 'Flatten it where it was made, with qemu-img convert, and import the result.',
  'unknown-version': 'Convert it with qemu-img convert, and import the result.',
  damaged: 'Fetch it again and give its SHA-256 digest with the import.',
  empty: hints.empty,
  'too-large': hints['too-large'],
};

/** Follows no link and waits for no writer: the identity that wrote the result chose what stands under the name. */
const readHeader = async (path: string): Promise<Uint8Array> => {
  await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  const { buffer, bytesRead } = await file.read(Buffer.alloc(QCOW2_HEADER_BYTES), 0, QCOW2_HEADER_BYTES, 0);
  return buffer.subarray(0, bytesRead);
};

const virtualSizeOfQcow2 = async (path: string, shownAs: string): Promise<number> => {
  const verdict = judgeQcow2Header(await readHeader(path));
  if (verdict.ok) return verdict.virtualSizeBytes;
  throw new RoostError('InvalidArgument', `${shownAs} cannot be imported: ${qcow2Flaws[verdict.flaw]}`, {
    data: { path: shownAs, flaw: verdict.flaw },
    hint: hints[verdict.flaw],
  });
};

/** qemu-img ran and stumbled over the image; whatever else went wrong is the host's matter. */
const blamesImage = (error: unknown): error is ExecError => {
  if (!(error instanceof ExecError) || saysFull(error)) return false;
  if (error.exitCode !== undefined) return error.exitCode < LAUNCH_FAILED;
  return error.terminatedBy !== undefined && error.terminatedBy !== 'SIGKILL';
};

const damaged = (shownAs: string, cause: unknown): RoostError =>
  new RoostError('InvalidArgument', `${shownAs} is damaged or incomplete`, {
    data: { ...failureFacts(cause), path: shownAs, flaw: 'damaged' },
    hint: 'Fetch it again and give its SHA-256 digest with the import.',
    cause,
  });

/** Clusters that leak are harmless (exit code 3); they do not survive the conversion. */
const LEAKS_ONLY = 3;

const checkSource = async (source: DiskSource, run: Parameters<typeof checkImage>[2]): Promise<void> => {
  try {
    await checkImage(source.format, relative(run.cwd ?? '/', source.path), run);
  } catch (error) {
    if (error instanceof ExecError && error.exitCode === LEAKS_ONLY) return;
    throw blamesImage(error) ? damaged(source.shownAs, error) : error;
  }
};

export interface DiskSource {
  /** The copy, which only the daemon can write. */
  readonly path: string;
  readonly sizeBytes: number;
  readonly format: ImageSourceFormat;
  /** Path that whoever imports knows it by. */
  readonly shownAs: string;
}

/** The copy is ours: nobody puts another file under its name. */
const judgeForeign = async (source: DiskSource, judge: typeof judgeVmdk): Promise<number> => {
  await using file = await open(source.path, constants.O_RDONLY | constants.O_NOFOLLOW);
  const verdict = await judge(source.sizeBytes, async (offset, length) => {
    if (offset < 0 || offset >= source.sizeBytes) return new Uint8Array();
    const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, offset);
    return buffer.subarray(0, bytesRead);
  });
  const flaw = !verdict.ok
    ? verdict.flaw
    : verdict.virtualSizeBytes > BigInt(MAX_VIRTUAL_SIZE_BYTES)
      ? 'too-large'
      : undefined;
  if (verdict.ok && flaw === undefined) return Number(verdict.virtualSizeBytes);
  const named = flaw ?? 'damaged';
  throw new RoostError('InvalidArgument', `${source.shownAs} cannot be imported: ${formatFlaws[named]}`, {
    data: { path: source.shownAs, flaw: named },
    hint: foreignHints[named],
  });
};

const virtualSizeOf = async (source: DiskSource): Promise<number> => {
  switch (source.format) {
    case 'qcow2':
      return await virtualSizeOfQcow2(source.path, source.shownAs);
    case 'raw':
      return Math.ceil(source.sizeBytes / SECTOR_BYTES) * SECTOR_BYTES;
    case 'vmdk':
      return await judgeForeign(source, judgeVmdk);
    case 'vhdx':
      return await judgeForeign(source, judgeVhdx);
  }
};

const longestResult = async (directory: string, virtualSizeBytes: number): Promise<number> => {
  const { bavail, bsize } = await statfs(directory);
  return Math.floor(
    Math.min(virtualSizeBytes + tablesFor(virtualSizeBytes), bavail * bsize * MAX_PART_OF_FREE_SPACE),
  );
};

/** The longest disk image that is looked at; a sparse raw file may well be longer than the space it takes. */
export const MAX_DISK_FILE_BYTES = MAX_VIRTUAL_SIZE_BYTES + tablesFor(MAX_VIRTUAL_SIZE_BYTES);

/**
 * Converts `source` to a new qcow2 file `result`. Beside it, `result` + `.d` is made for the identity and removed.
 * Returns the virtual size. Errors: InvalidArgument for an image that is damaged or points elsewhere,
 * ResourceExhausted.
 */
export const convertDisk = async (
  source: DiskSource,
  result: string,
  confinement: Confinement,
  work: Work,
): Promise<number> => {
  const virtualSizeBytes = await virtualSizeOf(source);
  const cwd = dirname(result);
  const { identity } = confinement;
  const run = { signal: work.signal, confinement, cwd };
  if (source.format !== 'raw') {
    work.progress({ done: 0, total: virtualSizeBytes, unit: 'bytes', message: 'Checking' });
    await checkSource(source, run);
  }
  const workplace = `${result}.d`;
  await mkdir(workplace, { mode: 0o700 });
  if (identity) await chown(workplace, identity.uid, identity.gid);
  const written = join(workplace, 'disk');
  const tell = (fraction: number): void => {
    const done = Math.round(virtualSizeBytes * fraction);
    work.progress({ done, total: virtualSizeBytes, unit: 'bytes', message: 'Converting' });
  };
  tell(0);
  const maxFileBytes = await longestResult(workplace, virtualSizeBytes);
  try {
    const from = { format: source.format, path: relative(cwd, source.path) };
    await convertToQcow2({ from, to: relative(cwd, written), onFraction: tell }, { ...run, maxFileBytes });
  } catch (error) {
    if (!blamesImage(error) || !error.stderr.includes('error while reading')) throw error;
    throw damaged(source.shownAs, error);
  }
  await rename(written, result);
  await removeDirectory(workplace);
  if ((await virtualSizeOfQcow2(result, source.shownAs)) !== virtualSizeBytes) {
    throw damaged(source.shownAs, undefined);
  }
  return virtualSizeBytes;
};
