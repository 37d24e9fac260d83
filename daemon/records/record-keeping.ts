/**
 * After a start: what has no record beside it, as of before there were records, gets one; what says something else is
 * written anew. Networks are looked at when they are mended.
 */
import type { Guests } from '../guests/guests.ts';
import type { House } from '../guests/house.ts';
import { recordOfGuest, saysTheSame } from './record-of.ts';

export class RecordKeeping {
  readonly #house: House;
  readonly #guests: Guests;
  #kept: Promise<void> = Promise.resolve();

  constructor(house: House, guests: Guests) {
    this.#house = house;
    this.#guests = guests;
  }

  /** Begins; to miss a record is no failure of what it is about. */
  keep(): void {
    const { images, stopping, log } = this.#house;
    this.#kept = images.records
      .keepAll()
      .then(() => this.#keepGuests())
      .catch((error: unknown) => {
        if (!stopping.aborted) log.warn({ err: error }, 'records could not be looked at');
      });
  }

  async idle(): Promise<void> {
    await this.#kept;
  }

  async #keepGuests(): Promise<void> {
    const { inventory, instance, pool, stopping } = this.#house;
    const found = new Map((await pool.readRecords()).records.map((record) => [record['id'], record]));
    for (const guest of this.#guests.registry.everyone()) {
      if (stopping.aborted) return;
      // One without a driver is not touched, one at which work is under way writes its own.
      if (guest.missingDriver !== undefined || guest.unfinished.length > 0) continue;
      const record = found.get(guest.id);
      if (record && saysTheSame(record, recordOfGuest(instance, inventory, guest.record))) continue;
      await guest.mailbox.post(() => guest.saveRecord());
    }
  }
}
