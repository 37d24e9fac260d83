/** Events as kept: numbered without gaps, bounded in number. */
import type { EventName, EventView } from '../../protocol/events.ts';
import type { Database } from './database.ts';
import { storedJson } from './stored-json.ts';

/** Events kept; older ones are removed and reported as lost to whoever asks for them. */
export const KEPT_EVENTS = 100_000;
const PRUNE_EVERY = 1_000;

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

interface SinceParameters {
  sequence: number;
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
  readonly #prune;

  constructor(db: Database) {
    this.#insert = db.prepare<[number, string, string | null, string], never>(
      'INSERT INTO event (at_ms, name, guest, data) VALUES (?, ?, ?, ?)',
    );
    this.#since = db.prepare<[SinceParameters], Row>(
      `SELECT * FROM event WHERE sequence > @sequence
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
    this.#prune = db.prepare<[number], never>('DELETE FROM event WHERE sequence <= ?');
  }

  insert(event: Omit<KeptEvent, 'sequence'>): number {
    const { lastInsertRowid } = this.#insert.run(
      event.atMs,
      event.event,
      event.guest ?? null,
      JSON.stringify(event.data),
    );
    const sequence = Number(lastInsertRowid);
    if (sequence % PRUNE_EVERY === 0) this.#prune.run(sequence - KEPT_EVENTS);
    return sequence;
  }

  /** In their order. What a filter leaves out is not even read: many may be kept and few wanted. */
  since(sequence: number, limit: number, filter?: EventFilter): readonly KeptEvent[] {
    const [names, guests] = [listed(filter?.names), listed(filter?.guests)];
    return this.#since.all({ sequence, limit, names, guests }).map(fromRow);
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
