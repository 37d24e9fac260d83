/** Files of a microVM, in and out as streams with their modes. */
import type { Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { firstOf } from '../../lib/abort.ts';
import { nonsense } from './agent-errors.ts';
import type { AgentSession } from './agent-session.ts';
import { OUTPUT_WINDOW_BYTES } from './byte-streams.ts';
import { FieldError, type FieldReader, FieldWriter, required } from './fields.ts';

/** lstat(2); `mode` with the type's bits. */
export interface FileStatus {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  readonly mtimeNs: bigint;
  /** Where a symbolic link leads. */
  readonly target: string | undefined;
}

export interface FileAttributes {
  /** Permission bits; 0644 for files, 0755 for directories unless given. */
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly mtimeNs?: bigint;
}

export interface WriteFileOptions extends FileAttributes {
  /** If given, a file that comes out shorter or longer is not kept. */
  readonly sizeBytes?: number;
  /** Writes into the file that is there (a device, a file of /proc) instead of replacing it as a whole. */
  readonly inPlace?: boolean;
}

const MAX_NAMES_BYTES = 16 * 1024 * 1024;
/** The request lasts as long as its stream. */
const unlimited = { timeoutMs: Infinity } as const;

/** Resolves once the file is open; what goes wrong later is the stream's error. */
export const readGuestFile = async (
  session: AgentSession,
  path: string,
  signal: AbortSignal,
): Promise<{ readonly status: FileStatus; readonly content: Readable }> => {
  const { id, output } = session.openOutput();
  try {
    const fields = new FieldWriter().text('path', path).u32('stream', id).u32('window', OUTPUT_WINDOW_BYTES);
    return { status: fileStatus(await session.call('readFile', fields, signal)), content: output };
  } catch (error) {
    session.forgetStreams([id]);
    throw error instanceof FieldError ? nonsense('readFile', error) : error;
  }
};

/** Resolves when the file is whole and has its name. Given up, nothing is left under the name that was not there before. */
export const writeGuestFile = async (
  session: AgentSession,
  path: string,
  content: Readable,
  options: WriteFileOptions,
  signal: AbortSignal,
): Promise<void> => {
  const { id, input } = session.openInput();
  const failure = new AbortController();
  using both = firstOf(signal, failure.signal);
  const fields = attributeFields(options)
    .text('path', path)
    .u32('stream', id)
    .u64('size', options.sizeBytes === undefined ? undefined : BigInt(options.sizeBytes))
    .flag('inPlace', options.inPlace);
  const answer = session.call('writeFile', fields, both.signal, unlimited);
  try {
    await Promise.all([
      answer,
      send(content, input, both.signal).catch(async (error: unknown) => {
        // The agent's word about it says more than a closed stream does; a source that failed has it given up.
        if (!input.destroyed || content.errored) failure.abort(error);
        await answer;
        throw error;
      }),
    ]);
  } finally {
    content.destroy();
    session.forgetStreams([id]);
  }
};

const send = async (content: Readable, input: Writable, signal: AbortSignal): Promise<void> => {
  await pipeline(content, input, { signal });
};

/** Names in a directory, without `.` and `..`; not sorted. */
export const listGuestDirectory = async (
  session: AgentSession,
  path: string,
  signal: AbortSignal,
): Promise<readonly Buffer[]> => {
  const { id, output } = session.openOutput();
  try {
    const fields = new FieldWriter().text('path', path).u32('stream', id).u32('window', OUTPUT_WINDOW_BYTES);
    await session.call('list', fields, signal);
    const chunks: Buffer[] = [];
    let size = 0;
    for await (const chunk of output.iterator({ destroyOnReturn: true })) {
      signal.throwIfAborted();
      chunks.push(chunk as Buffer);
      size += (chunk as Buffer).length;
      if (size > MAX_NAMES_BYTES) throw nonsense('list');
    }
    return splitNames(Buffer.concat(chunks));
  } finally {
    session.forgetStreams([id]);
  }
};

/** Each name ends with a NUL byte, and none can be another directory's. */
const splitNames = (bytes: Buffer): readonly Buffer[] => {
  const names: Buffer[] = [];
  for (let from = 0; from < bytes.length; ) {
    const end = bytes.indexOf(0, from);
    const name = bytes.subarray(from, end);
    if (end === -1 || name.length === 0 || name.length > 255 || name.includes(0x2f)) throw nonsense('list');
    if (name.equals(Buffer.from('.')) || name.equals(Buffer.from('..'))) throw nonsense('list');
    names.push(name);
    from = end + 1;
  }
  return names;
};

export const statGuestFile = async (
  session: AgentSession,
  path: string,
  signal: AbortSignal,
): Promise<FileStatus> => {
  try {
    return fileStatus(await session.call('stat', new FieldWriter().text('path', path), signal));
  } catch (error) {
    throw error instanceof FieldError ? nonsense('stat', error) : error;
  }
};

/** `parents`: also those above it, and one that is there already is no error. */
export const makeGuestDirectory = async (
  session: AgentSession,
  path: string,
  options: FileAttributes & { readonly parents?: boolean },
  signal: AbortSignal,
): Promise<void> => {
  const fields = attributeFields(options).text('path', path).flag('parents', options.parents);
  await session.call('makeDirectory', fields, signal);
};

export const makeGuestLink = async (
  session: AgentSession,
  path: string,
  target: string,
  owner: Pick<FileAttributes, 'uid' | 'gid'>,
  signal: AbortSignal,
): Promise<void> => {
  const fields = new FieldWriter().text('path', path).text('target', target);
  await session.call('makeLink', fields.u32('uid', owner.uid).u32('gid', owner.gid), signal);
};

const attributeFields = ({ mode, uid, gid, mtimeNs }: FileAttributes): FieldWriter =>
  new FieldWriter().u32('mode', mode).u32('uid', uid).u32('gid', gid).u64('mtime', mtimeNs);

const fileStatus = (fields: FieldReader): FileStatus => ({
  mode: required(fields.u32('mode'), 'mode'),
  uid: required(fields.u32('uid'), 'uid'),
  gid: required(fields.u32('gid'), 'gid'),
  sizeBytes: required(fields.size('size'), 'size'),
  mtimeNs: BigInt.asIntN(64, required(fields.u64('mtime'), 'mtime')),
  target: fields.text('target', 4096),
});
