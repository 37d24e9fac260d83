/**
 * Follows the black box of one guest: the file is the only source of events, and what rings on the monitor is only
 * the doorbell. One reader at a time; each event is told once, with the place behind it.
 */
import { open, stat } from 'node:fs/promises';
import { deferred, waitOrAbort } from '../../lib/abort.ts';
import { ByteBudget } from '../../lib/byte-budget.ts';
import { working } from '../../lib/loop-watch.ts';
import { isTurnOver, nextTurn } from '../../lib/turn.ts';
import type { Observer } from '../driver.ts';
import { EventInterpreter } from './interpret-events.ts';
import { parseBlackBox } from './qmp/black-box.ts';
import type { QmpEvent } from './qmp/qmp-types.ts';

const LINE_FEED = 0x0a;
/** How fast a log is followed that grows without end; as fast as the monitor is, see qmp/qmp-client.ts. */
const READ_BUDGET = { burst: 32 * 1024 * 1024, perSecond: 2 * 1024 * 1024 } as const;
/** Some 200 events: between two chunks the event loop has others to serve. */
const CHUNK_BYTES = 32 * 1024;
/** Enough to find how a run ended. */
const TAIL_BYTES = 256 * 1024;

export interface PlacedEvent {
  readonly event: QmpEvent;
  /** Where the next one begins, in bytes. */
  readonly cursor: number;
}

export class EventLog {
  readonly #path: string;
  readonly #observe: Observer;
  readonly #interpreter = new EventInterpreter();
  readonly #budget = new ByteBudget(READ_BUDGET);
  readonly #closing = new AbortController();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  #cursor: number;
  #wanted = false;
  #reading: Promise<void> | undefined;
  #closed = false;

  constructor(path: string, cursor: number, observe: Observer) {
    this.#path = path;
    this.#cursor = cursor;
    this.#observe = observe;
  }

  get cursor(): number {
    return this.#cursor;
  }

  /** Tells every event that is in the file by now. Rejects as reading the file does. */
  read(): Promise<void> {
    this.#wanted = true;
    this.#reading ??= this.#drain();
    return this.#reading;
  }

  /** Calls back for every event from now on, before it is observed; must not throw. Returns what ends that. */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Nothing is told any more. */
  close(): void {
    this.#closed = true;
    this.#closing.abort();
  }

  async #drain(): Promise<void> {
    try {
      while (this.#wanted && !this.#closed) {
        this.#wanted = false;
        this.#cursor = await readEvents(this.#path, this.#cursor, (placed) => this.#tell(placed), {
          rest: (bytes) => this.#rest(bytes),
          skipped: (bytes, cursor) => this.#tellSkipped(bytes, cursor),
        });
      }
    } finally {
      // In the same breath as the look at `wanted`: whoever asks from now on starts the next one.
      this.#reading = undefined;
    }
  }

  /** Waits until more may be read; false when the log was closed meanwhile. */
  async #rest(bytes: number): Promise<boolean> {
    const delayMs = this.#budget.spend(bytes);
    if (delayMs === 0 || this.#closed) return !this.#closed;
    const over = deferred<void>();
    const timer = setTimeout(over.resolve, delayMs);
    timer.unref();
    await waitOrAbort(over.promise, this.#closing.signal).catch(() => undefined);
    clearTimeout(timer);
    return !this.#closed;
  }

  #tellSkipped(bytes: number, cursor: number): void {
    if (this.#closed) return;
    this.#cursor = cursor;
    const data = { bytes };
    this.#observe({ kind: 'driver-event', event: 'ROOST_EVENTS_SKIPPED', data, at: Date.now() }, cursor);
  }

  #tell({ event, cursor }: PlacedEvent): void {
    if (this.#closed) return;
    this.#cursor = cursor;
    for (const listener of this.#listeners) listener(event);
    this.#observe(this.#interpreter.interpret(event), cursor);
  }
}

/** How a reader copes with a log that grows faster than it is read. */
export interface Pace {
  /** Called after each part. Resolves when the next one may be read: false when none shall be. */
  rest(bytes: number): Promise<boolean>;
  /** So many bytes were passed over, because more has come than anybody would want to know. */
  skipped(bytes: number, cursor: number): void;
}

/** More than this is not caught up with: hours of a guest that resets itself again and again. */
const MAX_BACKLOG_BYTES = 16 * 1024 * 1024;

/**
 * Reads the log from `offset` to its end and returns where it ends. A log shorter than the offset is of a later run
 * and read from its start; one that was never begun is empty. Places that were given back to the file system read as
 * zeros, and zeros are skipped.
 */
export async function readEvents(
  path: string,
  offset: number,
  tell: (placed: PlacedEvent) => void,
  pace?: Pace,
): Promise<number> {
  const file = await open(path, 'r').catch((error: unknown) => {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (!file) return 0;
  try {
    const { size } = await file.stat();
    let at = size < offset ? 0 : offset;
    const buffer = Buffer.alloc(Math.min(CHUNK_BYTES, Math.max(size - at, 1)));
    for (;;) {
      const { bytesRead } = await file.read(buffer, 0, buffer.length, at);
      const chunk = buffer.subarray(0, bytesRead);
      const consumed = await readChunk(chunk, at, tell);
      // A line that fills the whole buffer is none of QEMU's.
      const step = consumed === 0 && bytesRead === CHUNK_BYTES ? bytesRead : consumed;
      if (step === 0) return at;
      at += step;
      if (pace && !(await pace.rest(step))) return at;
      const surplus = pace ? (await file.stat()).size - at - MAX_BACKLOG_BYTES : 0;
      if (surplus <= 0) continue;
      // The half that is newer; its first line is cut and passed over.
      at += surplus + MAX_BACKLOG_BYTES / 2;
      pace?.skipped(surplus + MAX_BACKLOG_BYTES / 2, at);
    }
  } finally {
    await file.close();
  }
}

/** Goes through a chunk in as many turns as it takes. Returns the bytes done with. */
async function readChunk(
  chunk: Buffer,
  offset: number,
  tell: (placed: PlacedEvent) => void,
): Promise<number> {
  for (let done = 0; ; ) {
    const from = done;
    const part = working('events of a guest', () => readLines(chunk.subarray(from), offset + from, tell));
    done += part.bytes;
    if (!part.isCutShort) return done;
    await nextTurn();
  }
}

interface ReadLines {
  readonly bytes: number;
  /** Whether there is more that this turn has no time for. */
  readonly isCutShort: boolean;
}

/** Line by line, because each event needs its own place. */
function readLines(chunk: Buffer, offset: number, tell: (placed: PlacedEvent) => void): ReadLines {
  let start = 0;
  while (start < chunk.length) {
    if (start > 0 && isTurnOver()) return { bytes: start, isCutShort: true };
    const lineEnd = chunk.indexOf(LINE_FEED, start);
    const end = lineEnd === -1 ? chunk.length : lineEnd + 1;
    const { events, consumed } = parseBlackBox(chunk.subarray(start, end));
    if (consumed === 0) break;
    start = end;
    for (const event of events) tell({ event, cursor: offset + end });
  }
  return { bytes: start, isCutShort: false };
}

/** The last events in the log, enough of them to tell how the run ended. */
export async function lastEvents(path: string): Promise<readonly QmpEvent[]> {
  const events: QmpEvent[] = [];
  const size = await stat(path).then(
    (found) => found.size,
    () => 0,
  );
  await readEvents(path, Math.max(0, size - TAIL_BYTES), ({ event }) => events.push(event));
  return events;
}
