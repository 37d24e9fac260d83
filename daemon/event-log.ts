/**
 * Every event of the daemon: numbered, kept on disk, and handed to whoever listens, in order. Listeners are called
 * synchronously and must not throw or wait; one that falls behind reads what it missed from the log by sequence.
 */
import type { Clock } from '../lib/clock.ts';
import type { EventView, RoostEvent } from '../protocol/events.ts';
import { wireTimestamp } from '../protocol/wire.ts';
import type { Database } from './inventory/database.ts';
import type { EventFilter, EventSlice, EventTable, KeptEvent } from './inventory/event-table.ts';

export type EventListener = (event: KeptEvent) => void;

export const matches = (filter: EventFilter, event: KeptEvent): boolean =>
  filter.names.has(event.event) &&
  (filter.guests === undefined || (event.guest !== undefined && filter.guests.has(event.guest)));

export const eventView = (event: KeptEvent): EventView => ({
  sequence: event.sequence,
  event: event.event,
  data: event.data,
  timestamp: wireTimestamp(event.atMs),
});

export class EventLog {
  readonly #db: Database;
  readonly #table: EventTable;
  readonly #clock: Clock;
  readonly #listeners = new Set<EventListener>();
  #lastSequence: number;

  constructor(db: Database, table: EventTable, clock: Clock) {
    this.#db = db;
    this.#table = table;
    this.#clock = clock;
    this.#lastSequence = table.bounds().newest;
  }

  get lastSequence(): number {
    return this.#lastSequence;
  }

  /** Records an event and tells every listener once it stands. `atMs` is when it happened, if that is not now. */
  emit(event: RoostEvent, atMs?: number): void {
    const guest = 'guest' in event.data ? event.data.guest : undefined;
    const recorded: Omit<KeptEvent, 'sequence'> = {
      atMs: atMs ?? this.#clock.now(),
      event: event.event,
      ...(guest === undefined ? {} : { guest }),
      data: event.data as EventView['data'],
    };
    const sequence = this.#db.soon(() => this.#table.insert(recorded));
    const kept: KeptEvent = { ...recorded, sequence };
    this.#db.afterwards(() => {
      this.#lastSequence = sequence;
      for (const listener of this.#listeners) listener(kept);
    });
  }

  /** Calls `listener` for each event from now on, until the returned function is called. */
  listen(listener: EventListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** The next part of the log after a sequence; whoever wants all of it goes on after `through`. */
  since(sequence: number, limit: number, filter?: EventFilter): EventSlice {
    return this.#table.since(sequence, limit, filter);
  }

  /** Sequences after `since` that are no longer kept. */
  lostAfter(since: number): { readonly from: number; readonly to: number } | undefined {
    const { oldest } = this.#table.bounds();
    return since + 1 < oldest ? { from: since + 1, to: oldest - 1 } : undefined;
  }
}
