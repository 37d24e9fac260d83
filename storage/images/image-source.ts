/**
 * The distrusted file of an import: opened once, known to be a regular file, copied by its descriptor so that the
 * path cannot become another file meanwhile, and measured only in the copy, which nobody else writes.
 */
import { constants, type Stats } from 'node:fs';
import { chmod, type FileHandle, open, stat } from 'node:fs/promises';
import { isAbsolute } from 'node:path';
import { runTool } from '../../lib/run-tool.ts';
import type { Work } from '../../lib/work.ts';
import { RoostError } from '../../protocol/errors.ts';
import { isMissing } from '../files/durable-files.ts';

const refuseNonFile = (path: string, found: Stats): void => {
  if (found.isFile()) return;
  const what = found.isDirectory()
    ? 'a directory'
    : found.isFIFO()
      ? 'a FIFO'
      : found.isSocket()
        ? 'a socket'
        : 'a device';
  throw new RoostError('InvalidArgument', `${path} is ${what}, not a regular file`, {
    data: { path },
    hint: 'Copy its content to a file and import that.',
  });
};

const unopened = (path: string, error: unknown): unknown => {
  if (isMissing(error)) {
    return new RoostError('NotFound', `There is no file ${path}`, {
      data: { path },
      hint: "Give the path as it is on the daemon's host.",
      cause: error,
    });
  }
  if (error instanceof Error && 'code' in error && (error.code === 'EACCES' || error.code === 'ELOOP')) {
    return new RoostError('InvalidArgument', `${path} cannot be opened: ${error.message}`, {
      data: { path, errno: error.code },
      hint: "Make the file readable for the daemon's user.",
      cause: error,
    });
  }
  return error;
};

/** Symbolic links are followed. Looked at before it is opened, because opening a device may already do something. */
const openRegularFile = async (path: string): Promise<FileHandle> => {
  if (!isAbsolute(path)) {
    throw new RoostError('InvalidArgument', `${path} is not an absolute path`, { data: { path } });
  }
  try {
    refuseNonFile(path, await stat(path));
    return await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    throw unopened(path, error);
  }
};

const refuseSize = (path: string, sizeBytes: number, maxBytes: number): void => {
  if (sizeBytes > 0 && sizeBytes <= maxBytes) return;
  const message = sizeBytes === 0 ? `${path} is empty` : `${path} is larger than ${maxBytes} bytes`;
  throw new RoostError('InvalidArgument', message, { data: { path, sizeBytes, maxBytes } });
};

/**
 * Copies the file at `path` to `copy`; gives its length. Holes stay holes, and a file system that can shares blocks.
 * Errors speak of it as `shownAs`.
 */
export const copySource = async (
  { path, shownAs }: { readonly path: string; readonly shownAs: string },
  copy: string,
  maxBytes: number,
  work: Work,
): Promise<number> => {
  await using source = await openRegularFile(path);
  const found = await source.stat();
  refuseNonFile(shownAs, found);
  refuseSize(shownAs, found.size, maxBytes);
  work.progress({ done: 0, total: found.size, unit: 'bytes', message: 'Copying' });
  const opened = `/proc/${process.pid}/fd/${source.fd}`;
  await runTool(['cp', '--reflink=auto', '--sparse=always', '--', opened, copy], {
    signal: work.signal,
    timeoutMs: 0,
  });
  await chmod(copy, 0o400);
  const { size } = await stat(copy);
  refuseSize(shownAs, size, maxBytes);
  work.progress({ done: size, total: size, unit: 'bytes', message: 'Copying' });
  return size;
};

/** Digest of a file, in lower-case hexadecimal; computed beside this process. */
export const digestOf = async (
  path: string,
  algorithm: 'sha256' | 'sha512',
  signal: AbortSignal,
): Promise<string> => {
  const { stdout } = await runTool([`${algorithm}sum`, '--binary', '--', path], { signal, timeoutMs: 0 });
  const digest = /^\\?([0-9a-f]{64,128}) /.exec(stdout)?.[1];
  if (digest === undefined) throw new Error(`${algorithm}sum said ${JSON.stringify(stdout)}`);
  return digest;
};
