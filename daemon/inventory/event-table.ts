/** Events as kept: numbered without gaps, bounded in size and age. */
import type { EventName, EventView } from '../../protocol/events.ts';
import type { Database } from './database.ts';
import { storedJson } from './stored-json.ts';

/** What is kept at least; older events are removed, and reported as lost to whoever asks for them. */
export interface EventRetention {
  readonly keepBytes: number;
  readonly keepMs: number;
}

const DAY_MS = 86_400_000;
export const defaultRetention: EventRetention = { keepBytes: 64 * 1024 * 1024, keepMs: 30 * DAY_MS };

const PRUNE_EVERY = 1_000;
/** Removed in one go, so that a lowered bound holds up nobody; the rest goes with the events that come. */
const MOST_AT_ONCE = 5 * PRUNE_EVERY;
/** Rows that one reading looks at: a filter may let through one in a million, and a reading holds up everybody. */
const LOOKED_AT_ONCE = 2_000;
/** Of a row besides its payload: numbers, name and guest. */
const ROW_BYTES = 100;

export interface KeptEvent {
  readonly sequence: number;
  readonly atMs: number;
  readonly event: EventName;
  readonly guest?: string;
  readonly data: EventView['data'];
}

interface Row {
  sequence: number;
  at_ms: number;
  name: string;
  guest: string | null;
  data: string;
}

/** A part of the log: what matches, and up to which sequence that is all. */
export interface EventSlice {
  readonly events: readonly KeptEvent[];
  readonly through: number;
}

interface SinceParameters {
  sequence: number;
  until: number;
  limit: number;
  names: string | null;
  guests: string | null;
}

export interface EventFilter {
  readonly names: ReadonlySet<EventName>;
  /** Ids of guests; absent means all. */
  readonly guests?: ReadonlySet<string>;
}

const listed = (values: ReadonlySet<string> | undefined): string | null =>
  values === undefined ? null : JSON.stringify([...values]);

const fromRow = (row: Row): KeptEvent => ({
  sequence: row.sequence,
  atMs: row.at_ms,
  event: row.name as EventName,
  ...(row.guest === null ? {} : { guest: row.guest }),
  data: storedJson(row.data) as EventView['data'],
});

export class EventTable {
  readonly #insert;
  readonly #since;
  readonly #ofGuest;
  readonly #bounds;
  readonly #remove;
  readonly #totalAt;
  readonly #firstSince;
  readonly #retention: EventRetention;

  constructor(db: Database, retention: EventRetention = defaultRetention) {
    this.#retention = retention;
    this.#insert = db.prepare<[number, string, string | null, string, number], never>(
      `INSERT INTO event (at_ms, name, guest, data, total_bytes) VALUES (?, ?, ?, ?,
         ? + coalesce((SELECT total_bytes FROM event ORDER BY sequence DESC LIMIT 1), 0))`,
    );
    this.#totalAt = db.prepare<[number], { total: number }>(
      'SELECT total_bytes AS total FROM event WHERE sequence = ?',
    );
    this.#firstSince = db.prepare<[number], { sequence: number }>(
      'SELECT sequence FROM event WHERE at_ms >= ? ORDER BY sequence LIMIT 1',
    );
    this.#since = db.prepare<[SinceParameters], Row>(
      `SELECT * FROM event WHERE sequence > @sequence AND sequence <= @until
         AND (@names IS NULL OR name IN (SELECT value FROM json_each(@names)))
         AND (@guests IS NULL OR guest IN (SELECT value FROM json_each(@guests)))
       ORDER BY sequence LIMIT @limit`,
    );
    this.#ofGuest = db.prepare<[string, number], Row>(
      'SELECT * FROM event WHERE guest = ? ORDER BY sequence LIMIT ?',
    );
    this.#bounds = db.prepare<[], { oldest: number | null; newest: number | null }>(
      "SELECT (SELECT min(sequence) FROM event) AS oldest, (SELECT seq FROM sqlite_sequence WHERE name = 'event') AS newest",
    );
    this.#remove = db.prepare<[number], never>('DELETE FROM event WHERE sequence < ?');
  }

  insert(event: Omit<KeptEvent, 'sequence'>): number {
    const data = JSON.stringify(event.data);
    const { lastInsertRowid } = this.#insert.run(
      event.atMs,
      event.event,
      event.guest ?? null,
      data,
      data.length + ROW_BYTES,
    );
    const sequence = Number(lastInsertRowid);
    if (sequence % PRUNE_EVERY === 0) this.#prune(sequence, event.atMs);
    return sequence;
  }

  /** Removes the oldest, always from the front: what is kept has no gaps. */
  #prune(newest: number, nowMs: number): void {
    const { keepBytes, keepMs } = this.#retention;
    const { oldest } = this.bounds();
    const young = this.#firstSince.get(nowMs - keepMs)?.sequence ?? newest;
    const firstKept = Math.max(this.#firstWithin(keepBytes, oldest, newest), young);
    this.#remove.run(Math.min(firstKept, oldest + MOST_AT_ONCE, newest));
  }

  /** The oldest of those that together have no more than `bytes`. Each row knows the size of all up to it. */
  #firstWithin(bytes: number, oldest: number, newest: number): number {
    const floor = this.#total(newest) - bytes;
    let [low, high] = [oldest, newest];
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if (this.#total(middle) > floor) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  #total(sequence: number): number {
    return this.#totalAt.get(sequence)?.total ?? 0;
  }

  /** In their order. What a filter leaves out is not read: many may be kept and few wanted. */
  since(sequence: number, limit: number, filter?: EventFilter): EventSlice {
    const { oldest, newest } = this.bounds();
    const from = Math.max(sequence, oldest - 1);
    const until = Math.min(from + LOOKED_AT_ONCE, newest);
    const [names, guests] = [listed(filter?.names), listed(filter?.guests)];
    const events = this.#since.all({ sequence: from, until, limit, names, guests }).map(fromRow);
    const last = events.length === limit ? events.at(-1) : undefined;
    return { events, through: last?.sequence ?? Math.max(sequence, until) };
  }

  /** A guest's own, in their order. */
  ofGuest(guest: string, limit: number): readonly KeptEvent[] {
    return this.#ofGuest.all(guest, limit).map(fromRow);
  }

  /** Sequence of the oldest event kept and of the newest ever; oldest is newest + 1 when none is kept. */
  bounds(): { readonly oldest: number; readonly newest: number } {
    const row = this.#bounds.get();
    const newest = row?.newest ?? 0;
    return { oldest: row?.oldest ?? newest + 1, newest };
  }
}
