/**
 * The transcript of a guest's monitor: what was said in both directions, for people who want to know what happened.
 *
 * It is kept in two files in turn, so that it is bounded, and written a moment after the fact and by nobody's time: a
 * daemon that is killed loses the last tenth of a second of it. What QEMU tells by itself comes from the black box and not
 * from the monitor: so that it has the events of an absence, too, each at its own time. What is secret is not kept, and of
 * a huge message only the beginning. Nothing is ever thrown: a transcript that cannot be written has a gap.
 */
import { type FileHandle, open, readFile, rename } from 'node:fs/promises';
import { performance } from 'node:perf_hooks';
import { tookMs } from '../../lib/account.ts';
import type { Log } from '../../lib/log.ts';
import { working } from '../../lib/loop-watch.ts';
import { type QmpLogEntry, qmpLogEntry, type UnansweredCommand } from '../../protocol/qmp-log.ts';
import type { Transcript } from '../driver.ts';
import { excerpt } from './qmp/excerpt.ts';
import type { QmpEvent } from './qmp/qmp-types.ts';
import { isObject } from './qmp/redact.ts';

/** A file that has grown to this is put aside, in place of the one that was put aside before. */
const FILE_MODE = 0o600;
const FILE_BYTES = 512 * 1024;
const MAX_TEXT_LENGTH = 2048;
/** What comes within the delay beyond this is counted and not kept. */
const MAX_PENDING_LENGTH = 64 * 1024;
const WRITE_AFTER_MS = 100;
/** Enough for the last entry, whatever it is. */
const TAIL_BYTES = 16 * 1024;

type NewEntry = Omit<QmpLogEntry, 'number'>;

interface Asked {
  readonly name: string;
  readonly at: number;
  readonly startedAt: number;
}

export class TranscriptWriter {
  readonly #path: string;
  readonly #log: Log;
  #pending: string[] = [];
  #pendingLength = 0;
  #skipped = 0;
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> = Promise.resolve();
  /** Number of the next entry and size of the file, once somebody has looked. */
  #end: { next: number; sizeBytes: number } | undefined;
  #closed = false;
  readonly #asked = new Map<unknown, Asked>();
  #greeting: Asked | undefined;
  #sessionLost = false;

  constructor(path: string, log: Log) {
    this.#path = path;
    this.#log = log;
  }

  /** Words on the process or the session. */
  note(text: string): void {
    this.#enter({ at: Date.now(), kind: 'session', text });
  }

  /** A session is wanted; tried again and again, it is one wish. */
  connecting(): void {
    this.#greeting ??= { name: 'greeting', at: Date.now(), startedAt: performance.now() };
  }

  /** No session came up. Told once, until one does. */
  notConnected(why: string): void {
    if (this.#sessionLost) return;
    this.#sessionLost = true;
    this.note(`no session: ${why}`);
  }

  ended(why: string): void {
    const open = [...this.#asked.values()].map(({ name }) => name);
    this.#asked.clear();
    this.note(open.length === 0 ? why : `${why}; never answered: ${open.join(', ')}`);
  }

  sent(message: unknown, bytes: number): void {
    if (!isObject(message)) return;
    const { execute, arguments: given, id } = message;
    const name = String(execute);
    this.#asked.set(id, { name, at: Date.now(), startedAt: performance.now() });
    const hasArguments = isObject(given) && Object.keys(given).length > 0;
    const text = hasArguments ? textOf(given, bytes) : {};
    this.#enter({ at: Date.now(), kind: 'command', name, ...idOf(id), ...text });
  }

  /** Events are not taken from here. */
  received(message: unknown, bytes: number): void {
    if (!isObject(message) || 'event' in message) return;
    if ('QMP' in message) {
      this.#greeting = undefined;
      this.#sessionLost = false;
      this.note(`connected: ${excerpt(message['QMP'], MAX_TEXT_LENGTH).text}`);
      return;
    }
    const { id } = message;
    const asked = this.#asked.get(id);
    this.#asked.delete(id);
    const failed = 'error' in message;
    this.#enter({
      at: Date.now(),
      kind: failed ? 'error' : 'reply',
      ...(asked === undefined ? {} : { name: asked.name, ms: tookMs(asked.startedAt) }),
      ...idOf(id),
      ...(failed ? errorText(message['error'], bytes) : textOf(message['return'] ?? message, bytes)),
    });
  }

  event({ event, data, timestamp }: QmpEvent): void {
    const at =
      timestamp.seconds < 0
        ? Date.now()
        : timestamp.seconds * 1000 + Math.floor(timestamp.microseconds / 1000);
    const bare = Object.keys(data).length === 0;
    this.#enter({ at, kind: 'event', name: event, ...(bare ? {} : textOf(data)) });
  }

  /** What is kept, the last `limit` entries or the first `limit` after a number; and what waits for an answer. */
  async read(range: { readonly after?: number; readonly limit: number }): Promise<Transcript> {
    await this.flush();
    const lines = await this.#lines();
    return {
      ...working('a transcript of QMP', () => chosen(lines, range)),
      unanswered: this.#unanswered(),
    };
  }

  /** Resolves when all that was entered so far is in the file. */
  flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#writing = this.#writing.then(() => this.#write());
    return this.#writing;
  }

  /** Writes what is left; what is entered later is nobody's. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.flush();
  }

  #enter(entry: NewEntry): void {
    if (this.#closed) return;
    const line = JSON.stringify(entry);
    if (this.#pendingLength + line.length > MAX_PENDING_LENGTH) this.#skipped += 1;
    else {
      this.#pending.push(line);
      this.#pendingLength += line.length;
    }
    this.#timer ??= setTimeout(() => void this.flush(), WRITE_AFTER_MS).unref();
  }

  async #write(): Promise<void> {
    if (this.#skipped > 0) {
      const entry: NewEntry = { at: Date.now(), kind: 'skipped', text: `${this.#skipped} entries` };
      this.#pending.push(JSON.stringify(entry));
      this.#skipped = 0;
    }
    const lines = this.#pending;
    this.#pending = [];
    this.#pendingLength = 0;
    if (lines.length === 0) return;
    try {
      await this.#append(lines);
    } catch (error) {
      // As after the guest's directory is gone, or while the disk is full.
      this.#log.debug({ err: error }, 'the transcript of a monitor could not be written');
      this.#end = undefined;
      this.#skipped += lines.length;
    }
  }

  async #append(lines: readonly string[]): Promise<void> {
    let file = await open(this.#path, 'a+', FILE_MODE);
    try {
      this.#end ??= await endOf(file, asidePath(this.#path));
      const { next, sizeBytes } = this.#end;
      const text = lines.map((line, index) => `{"number":${next + index},${line.slice(1)}\n`).join('');
      const bytes = Buffer.byteLength(text);
      const isFull = sizeBytes > 0 && sizeBytes + bytes > FILE_BYTES;
      if (isFull) {
        await rename(this.#path, asidePath(this.#path));
        await file.close();
        file = await open(this.#path, 'a', FILE_MODE);
      }
      await file.appendFile(text);
      this.#end = { next: next + lines.length, sizeBytes: (isFull ? 0 : sizeBytes) + bytes };
    } finally {
      await file.close();
    }
  }

  async #lines(): Promise<readonly string[]> {
    const texts = await Promise.all(
      [asidePath(this.#path), this.#path].map((path) => readFile(path, 'utf8').catch(() => '')),
    );
    return texts.flatMap((text) => text.split('\n'));
  }

  #unanswered(): readonly UnansweredCommand[] {
    const asked = [...(this.#greeting ? [this.#greeting] : []), ...this.#asked.values()];
    return asked.map(({ name, at, startedAt }) => ({
      name,
      at,
      ageMs: Math.max(0, Math.round(performance.now() - startedAt)),
    }));
  }
}

const asidePath = (path: string): string => `${path}.1`;

const idOf = (id: unknown): Pick<NewEntry, 'id'> =>
  typeof id === 'number' && Number.isSafeInteger(id) ? { id } : {};

const textOf = (value: unknown, bytes?: number): Pick<NewEntry, 'text' | 'bytes'> => {
  const { text, isWhole } = excerpt(value, MAX_TEXT_LENGTH);
  return isWhole || bytes === undefined ? { text } : { text, bytes };
};

/** Class and words where it is an error of the usual form. */
const errorText = (error: unknown, bytes: number): Pick<NewEntry, 'text' | 'bytes'> => {
  if (!isObject(error) || typeof error['desc'] !== 'string') return textOf(error, bytes);
  const text = `${String(error['class'])}: ${error['desc']}`;
  return text.length <= MAX_TEXT_LENGTH ? { text } : { text: text.slice(0, MAX_TEXT_LENGTH), bytes };
};

/** An entry as it was written; undefined for what a crash left of one. */
const parsed = (line: string): QmpLogEntry | undefined => {
  try {
    return qmpLogEntry.safeParse(JSON.parse(line)).data;
  } catch {
    return undefined;
  }
};

/** From the end, so that no more is parsed than is asked for. */
const chosen = (
  lines: readonly string[],
  { after, limit }: { readonly after?: number; readonly limit: number },
): Pick<Transcript, 'entries' | 'lost'> => {
  const entries: QmpLogEntry[] = [];
  for (const line of lines.toReversed()) {
    const entry = line === '' ? undefined : parsed(line);
    if (!entry) continue;
    if (entry.number <= (after ?? 0)) break;
    entries.push(entry);
    if (after === undefined && entries.length === limit) break;
  }
  entries.reverse();
  const first = entries[0]?.number;
  const lost =
    after !== undefined && first !== undefined && first > after + 1
      ? { lost: { from: after + 1, to: first - 1 } }
      : {};
  return { entries: entries.slice(0, limit), ...lost };
};

/** Where the file ends. A line that a crash cut short is ended, so that the next one is whole. */
const endOf = async (file: FileHandle, aside: string): Promise<{ next: number; sizeBytes: number }> => {
  const { text, sizeBytes } = await tailOf(file);
  const isCut = text !== '' && !text.endsWith('\n');
  if (isCut) await file.appendFile('\n');
  const last = lastNumber(text) ?? (await lastNumberIn(aside));
  return { next: (last ?? 0) + 1, sizeBytes: sizeBytes + (isCut ? 1 : 0) };
};

/** Undefined where there is no such file. */
const lastNumberIn = async (path: string): Promise<number | undefined> => {
  const file = await open(path, 'r').catch((error: unknown) => {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (!file) return undefined;
  try {
    return lastNumber((await tailOf(file)).text);
  } finally {
    await file.close();
  }
};

const lastNumber = (text: string): number | undefined => {
  for (const line of text.split('\n').toReversed()) {
    const entry = line === '' ? undefined : parsed(line);
    if (entry) return entry.number;
  }
  return undefined;
};

const tailOf = async (file: FileHandle): Promise<{ readonly text: string; readonly sizeBytes: number }> => {
  const { size } = await file.stat();
  const length = Math.min(size, TAIL_BYTES);
  if (length === 0) return { text: '', sizeBytes: 0 };
  const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, size - length);
  return { text: buffer.toString('utf8', 0, bytesRead), sizeBytes: size };
};
