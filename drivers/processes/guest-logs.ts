/**
 * The three logs of a guest: its console, the standard error of its process, and the black box. The process appends to them
 * by descriptors while the daemon is away; the daemon keeps them bounded. At a launch a log that has grown is put
 * aside; under a running guest its beginning is given back to the file system (a hole), which loses nothing that is
 * written meanwhile and moves no offset.
 */
import { constants } from 'node:fs';
import { type FileHandle, mkdir, open, rename, stat, writeFile } from 'node:fs/promises';
import { ExecError } from '../../lib/exec-result.ts';
import { runTool } from '../../lib/run-tool.ts';
import type { GuestLogPart, GuestPlace } from '../driver.ts';
import {
  blackBoxInputPath,
  type LogStream,
  logDirectory,
  logPath,
  oldProcessLogPath,
} from './guest-files.ts';

/** A log longer than this is put aside when the guest is launched. */
const ROTATE_BYTES = 1024 * 1024;
/** A log that takes more than this on disk loses its beginning, down to what is kept. */
const BOUND_BYTES = 4 * 1024 * 1024;
const KEPT_BYTES = 1024 * 1024;
const HOLE_UNIT_BYTES = 4096;
const LAST_WORDS_BYTES = 2048;
const LAST_WORDS_SEARCH_BYTES = 64 * 1024;

const BLACK_BOX_INPUT = '{"execute":"qmp_capabilities"}\n';

const APPEND = constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND;

/** Descriptors for one run's process; the opener closes them once they are inherited. */
export interface RunLogs extends AsyncDisposable {
  readonly blackBoxInput: number;
  readonly blackBox: number;
  readonly processLog: number;
  readonly consoleLog: number;
}

/** Opens the logs for a new run. The black box starts anew: what it held was observed before. */
export const openRunLogs = async (place: GuestPlace, title: string): Promise<RunLogs> => {
  await mkdir(logDirectory(place), { recursive: true, mode: 0o700 });
  await renameOldLog(place);
  // Every start waits for these, so none of them waits for another.
  const opened = await Promise.allSettled([
    openBlackBoxInput(blackBoxInputPath(place)),
    open(logPath(place, 'events'), APPEND | constants.O_TRUNC, 0o600),
    openRotated(logPath(place, 'process')),
    openRotated(logPath(place, 'console')),
  ]);
  const files = opened.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
  const [blackBoxInput, blackBox, processLog, consoleLog] = files;
  try {
    if (!blackBoxInput || !blackBox || !processLog || !consoleLog) {
      throw opened.find((one) => one.status === 'rejected')?.reason;
    }
    await processLog.write(`${new Date().toISOString()} ${RUN_TITLE}${title}\n`);
  } catch (error) {
    await closeAll(files);
    throw error;
  }
  return {
    blackBoxInput: blackBoxInput.fd,
    blackBox: blackBox.fd,
    processLog: processLog.fd,
    consoleLog: consoleLog.fd,
    [Symbol.asyncDispose]: () => closeAll(files),
  };
};

/** An earlier daemon's log of the process gets its name of today; whoever writes into it goes on. May be done again. */
export const renameOldLog = async (place: GuestPlace): Promise<void> => {
  const path = logPath(place, 'process');
  const isThere = await stat(path).then(
    () => true,
    () => false,
  );
  if (!isThere) await rename(oldProcessLogPath(place), path).catch(() => undefined);
};

/** Begins the lines that part one run's words from the next one's. */
const RUN_TITLE = 'roost: launch of ';

const closeAll = async (files: readonly FileHandle[]): Promise<void> => {
  await Promise.all(files.map((file) => file.close()));
};

/** Written once: every run reads the same, but for one that was cut short in the writing. */
const openBlackBoxInput = async (path: string): Promise<FileHandle> => {
  const before = await open(path, 'r').catch(() => undefined);
  if (before && (await before.stat()).size === BLACK_BOX_INPUT.length) return before;
  await before?.close();
  await writeFile(path, BLACK_BOX_INPUT, { mode: 0o600 });
  return await open(path, 'r');
};

const openRotated = async (path: string): Promise<FileHandle> => {
  await rotate(path);
  return await open(path, APPEND, 0o600);
};

const rotate = async (path: string): Promise<void> => {
  const size = await stat(path).then(
    (found) => found.size,
    () => 0,
  );
  if (size > ROTATE_BYTES) await rename(path, `${path}.1`);
};

/** What the process said last on its standard error in its latest run; empty when it said nothing. */
export const lastWords = async (place: GuestPlace): Promise<string> => {
  const { text } = await readLogPart(logPath(place, 'process'), { maxBytes: LAST_WORDS_SEARCH_BYTES });
  const title = text.lastIndexOf(RUN_TITLE);
  const run = title === -1 ? text : text.slice(text.indexOf('\n', title) + 1);
  const words = run.trim();
  if (words.length <= LAST_WORDS_BYTES) return words;
  const tail = words.slice(-LAST_WORDS_BYTES);
  return tail.slice(tail.indexOf('\n') + 1);
};

/** One line for people out of a process's words: the last, without QEMU's time stamp and the program's name. */
export const lastLine = (words: string): string =>
  (words.split('\n').at(-1) ?? '')
    .replace(/^\S+Z /, '')
    .replace(/^[\w./-]*(?:qemu-system-\w+|roost-warden): /, '');

/** The last line that is not QEMU's: of those who serve it, and write into the same log. */
export const lastLineOfOthers = (words: string): string | undefined =>
  words.split('\n').findLast((line) => line !== '' && !/^\S+Z \S*qemu-system-/.test(line));

/**
 * A part of a log. Never begins or ends inside a character; bytes that are no UTF-8 come as U+FFFD. A log that was
 * never written is empty.
 */
export const readLogPart = async (
  path: string,
  range: { readonly offset?: number; readonly maxBytes: number },
): Promise<GuestLogPart> => {
  const file = await open(path, 'r').catch((error: unknown) => {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (!file) return { text: '', offset: 0, nextOffset: 0, sizeBytes: 0 };
  try {
    const { size } = await file.stat();
    const from = Math.min(range.offset ?? Math.max(0, size - range.maxBytes), size);
    const wanted = Math.min(range.maxBytes, size - from);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(Math.max(wanted, 1)), 0, wanted, from);
    const bytes = buffer.subarray(0, bytesRead);
    const start = range.offset === undefined && from > 0 ? continuationLength(bytes) : 0;
    const end = bytes.length - unfinishedLength(bytes);
    // Nothing but the start of a character: give it as it is, or the reader never gets on.
    const whole = end > start ? bytes.subarray(start, end) : bytes.subarray(start);
    // Zeros at the beginning are where the log was shortened.
    const text = whole.toString('utf8').replace(/^\0+/, '');
    return { text, offset: from + start, nextOffset: from + start + whole.length, sizeBytes: size };
  } finally {
    await file.close();
  }
};

/** Bytes at the beginning that belong to a character cut off before. */
const continuationLength = (bytes: Buffer): number => {
  let length = 0;
  while (length < 3 && isContinuation(bytes[length])) length += 1;
  return length;
};

/** Bytes at the end of a character that is not complete yet. */
export const unfinishedLength = (bytes: Buffer): number => {
  for (let length = 1; length <= 3 && length <= bytes.length; length += 1) {
    const byte = bytes[bytes.length - length];
    if (byte === undefined || isContinuation(byte)) continue;
    const needed = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
    return needed > length ? length : 0;
  }
  return 0;
};

const isContinuation = (byte: number | undefined): boolean => byte !== undefined && (byte & 0xc0) === 0x80;

/** Gives back what a running guest has written too much. Of the black box only what was read, up to `readUpTo`. */
export const boundLogs = async (place: GuestPlace, readUpTo: number, signal: AbortSignal): Promise<void> => {
  for (const stream of ['console', 'process', 'events', 'program'] as const satisfies readonly LogStream[]) {
    const path = logPath(place, stream);
    const found = await stat(path).catch(() => undefined);
    if (!found || found.blocks * 512 <= BOUND_BYTES) continue;
    const surplus = Math.min(found.size - KEPT_BYTES, stream === 'events' ? readUpTo : Infinity);
    await punchHole(path, Math.floor(surplus / HOLE_UNIT_BYTES) * HOLE_UNIT_BYTES, signal);
  }
};

/** fallocate(2) with FALLOC_FL_PUNCH_HOLE, which Node lacks. A file system that cannot do it keeps the bytes. */
const punchHole = async (path: string, length: number, signal: AbortSignal): Promise<void> => {
  if (length <= 0) return;
  try {
    await runTool(['fallocate', '--punch-hole', '--offset', '0', '--length', String(length), path], {
      signal,
    });
  } catch (error) {
    if (!(error instanceof ExecError)) throw error;
  }
};
