/** The guests of the inventory in memory: found by name or id, listed in order of their names. */
import type { Driver } from '../../drivers/driver.ts';
import { nearestNames } from '../../lib/nearest-names.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { GuestView } from '../../protocol/guest.ts';
import type { GuestId, OperationId } from '../../protocol/types.ts';
import type { GuestRecord, GuestStatus } from '../inventory/guest-table.ts';
import { AbsentDriver, noDriver } from './absent-driver.ts';
import { Guest, type GuestEvents } from './guest.ts';
import { isStart } from './guest-status.ts';
import type { House } from './house.ts';
import { type GuestFilter, selectGuests } from './select-guests.ts';

const initialStatus = (now: number): GuestStatus => ({
  state: 'stopped',
  observedAt: now,
  cursor: 0,
  restartCount: 0,
});

export class GuestRegistry {
  readonly #house: House;
  readonly #byId = new Map<GuestId, Guest>();
  readonly #byName = new Map<string, Guest>();
  #sorted: readonly Guest[] | undefined;
  readonly #tell: GuestEvents;

  /** Reads the inventory. `due`: what a guest's policies want done. */
  constructor(house: House, due: Pick<GuestEvents, 'restartDue' | 'deletionDue'>) {
    this.#house = house;
    this.#tell = { ...due, gone: (guest) => this.#remove(guest) };
    for (const { record, status } of house.inventory.guests.all())
      this.add(
        new Guest(
          house,
          this.#driverOrNone(record.spec),
          record,
          status ?? initialStatus(house.clock.now()),
          this.#tell,
        ),
      );
    house.operations.addQueuePlace((id) => this.#placeInQueue(id));
  }

  /** How many there are, but for those that are nobody's yet. */
  get size(): number {
    return this.all().length;
  }

  byId(id: string): Guest | undefined {
    return this.#byId.get(id as GuestId);
  }

  byName(name: string): Guest | undefined {
    return this.#byName.get(name);
  }

  /** By id or name; an id wins. Errors: NotFound. */
  find(reference: string): Guest {
    const guest = this.byId(reference) ?? this.#byName.get(reference);
    if (guest) return guest;
    const candidates = nearestNames(
      reference,
      this.all().map(({ name }) => name),
    );
    throw new RoostError('NotFound', `There is no guest called ${reference}`, {
      data: { guest: reference, candidates },
      hint: 'query-guests lists them.',
    });
  }

  /** Sorted by name; those that are nobody's yet are left out. */
  all(): readonly Guest[] {
    this.#sorted ??= this.everyone()
      .filter((guest) => !guest.isWaiting)
      .sort((a, b) => (a.name < b.name ? -1 : 1));
    return this.#sorted;
  }

  /** In no order, with those that are nobody's yet. */
  everyone(): Guest[] {
    return [...this.#byId.values()];
  }

  /** Those that wait for somebody who asks for a guest like them. */
  waiting(): Guest[] {
    return this.everyone().filter((guest) => guest.isWaiting);
  }

  select(filter: GuestFilter): readonly GuestView[] {
    return selectGuests(this.all(), filter, (reference) => this.find(reference));
  }

  /** A guest that was just recorded; not yet among the others. */
  created(record: GuestRecord): Guest {
    return new Guest(
      this.#house,
      this.driverOf(record.spec),
      record,
      initialStatus(this.#house.clock.now()),
      this.#tell,
    );
  }

  add(guest: Guest): void {
    this.#byId.set(guest.id, guest);
    this.#byName.set(guest.name, guest);
    this.#sorted = undefined;
  }

  renamed(guest: Guest, before: string): void {
    if (this.#byName.get(before) === guest) this.#byName.delete(before);
    this.add(guest);
  }

  /** Errors: Unsupported. */
  driverOf(spec: { readonly driver: GuestRecord['spec']['driver'] }): Driver {
    const driver = this.#house.drivers.get(spec.driver);
    if (driver) return driver;
    throw noDriver(spec.driver, this.#house.drivers.keys());
  }

  /** One guest whose driver is not there must not keep the daemon from all others. */
  #driverOrNone({ driver }: GuestRecord['spec']): Driver {
    const { drivers } = this.#house;
    return drivers.get(driver) ?? new AbsentDriver(driver, drivers.keys());
  }

  /**
   * Memory promised to guests that have a process or are about to get one. One that waits stands still: what is its own is
   * little, and whoever takes it over is promised the rest.
   */
  committedBytes(except?: Guest): number {
    let bytes = 0;
    for (const guest of this.#byId.values())
      if (
        guest !== except &&
        (guest.isLive() || guest.unfinished.some((operation) => isStart(operation.kind)))
      )
        bytes +=
          (guest.isWaiting ? 0 : (guest.status.applied?.memoryBytes ?? guest.record.spec.memoryBytes)) +
          guest.driver.overheadBytes(guest.record.spec);
    return bytes;
  }

  /** Looks again at every running guest, and at those of which nothing could be told. */
  sweep(): void {
    for (const guest of this.#byId.values()) {
      if (guest.handle) void guest.mailbox.post(() => guest.lookAgain());
      else if (guest.status.state === 'unknown') void guest.mailbox.post(() => guest.lookForProcess());
    }
  }

  async release(): Promise<void> {
    await Promise.all(
      [...this.#byId.values()].map(async (guest) => {
        const { handle } = guest;
        guest.handle = undefined;
        await handle?.release();
      }),
    );
  }

  async idle(): Promise<void> {
    await Promise.all([...this.#byId.values()].map((guest) => guest.mailbox.idle()));
  }

  #remove(guest: Guest): void {
    this.#byId.delete(guest.id);
    if (this.#byName.get(guest.name) === guest) this.#byName.delete(guest.name);
    this.#sorted = undefined;
  }

  #placeInQueue(id: OperationId): ReturnType<Guest['placeInQueue']> {
    const record = this.#house.operations.record(id);
    return record && this.byId(record.subject.id)?.placeInQueue(id);
  }
}
