/** Finds a guest's history, of one that is there or one that was deleted. */
import { RoostError } from '../../protocol/errors.ts';
import type { HistoryEntry } from '../../protocol/history.ts';
import { type GuestId, guestId } from '../../protocol/types.ts';
import type { Inventory } from '../inventory/inventory.ts';
import { historyOf } from './history.ts';
import type { GuestRegistry } from './registry.ts';

/** More operations and events of one guest than are ever kept. */
const MOST = 100_000;

export class Histories {
  readonly #inventory: Inventory;
  readonly #registry: GuestRegistry;

  constructor(inventory: Inventory, registry: GuestRegistry) {
    this.#inventory = inventory;
    this.#registry = registry;
  }

  /** By id or name; of several deleted guests of one name the last. Errors: NotFound. */
  of(reference: string): {
    readonly id: GuestId;
    readonly name: string;
    readonly deleted: boolean;
    readonly entries: readonly HistoryEntry[];
  } {
    const guest = this.#registry.byId(reference) ?? this.#registry.byName(reference);
    const { id, name } = guest ?? this.#deleted(reference);
    const operations = this.#inventory.operations
      .query({ subject: id, limit: MOST })
      .filter(({ subject }) => subject.id === id)
      .toReversed();
    const entries = historyOf(operations, this.#inventory.events.ofGuest(id, MOST));
    return { id, name, deleted: guest === undefined, entries };
  }

  #deleted(reference: string): { readonly id: GuestId; readonly name: string } {
    const last = this.#inventory.operations
      .query({ subject: reference, limit: MOST })
      .find(({ subject }) => subject.kind === 'guest');
    const id = guestId.safeParse(last?.subject.id);
    if (last && id.success) return { id: id.data, name: last.subject.name };
    throw new RoostError('NotFound', `Nothing is kept of a guest called ${reference}`, {
      data: { guest: reference },
      hint: 'query-guests lists those that are there; query-operations those that something was done to.',
    });
  }
}
