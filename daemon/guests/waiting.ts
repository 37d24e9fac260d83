/**
 * Guests that wait: forks of a template that nobody has asked for yet, which whoever asks for a guest like them gets at
 * once. They are guests like others, with disks, addresses and a process; but they are not listed, nothing is told of them,
 * and they stand still. How many there are follows what was asked for lately, and is made up for once nobody waits.
 */
import type { PinnedMachine } from '../../drivers/driver.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { Accepted } from '../../protocol/operation.ts';
import type { GuestId } from '../../protocol/types.ts';
import type { StoredNic, StoredSpec } from '../inventory/guest-table.ts';
import { isAlike, isTemplate } from './forks.ts';
import type { Guest } from './guest.ts';
import { isStart } from './guest-status.ts';
import { hostStops } from './host-stops.ts';
import type { House } from './house.ts';
import { WAITING_ACTOR } from './preparations.ts';
import type { GuestRegistry } from './registry.ts';
import { askedAgain, type Demand, type Kind, nextChangeAt, nextMove, wantedOf } from './waiting-demand.ts';

/** Since the last start: whoever starts one guest after another gets the processors first. */
const QUIET_MS = 100;

export interface WaitingOptions {
  readonly house: House;
  readonly registry: Pick<GuestRegistry, 'waiting' | 'byId'>;
  /** How many may wait, of all templates together; none where it is 0. */
  readonly most: number;
  /** Makes one; rejects where that fails. */
  readonly make: (template: Guest) => Promise<void>;
  /** Deletes one, by force. */
  readonly end: (guest: Guest, actor: typeof WAITING_ACTOR) => Promise<Accepted>;
}

type WishedAddress = Pick<StoredNic, 'network'> & { readonly ipv4?: string | undefined };

interface KnownDemand extends Demand {
  readonly template: Guest;
  /** The last that was to be made could not be. */
  readonly failed?: boolean;
}

const templateOf = ({ record: { spec } }: Guest): GuestId | undefined => spec.forkOf;

const isPrepared = ({ status, handle, unfinished, removed }: Guest): boolean =>
  !removed &&
  handle !== undefined &&
  status.state === 'paused' &&
  status.applied?.prepared === true &&
  unfinished.length === 0;

const canMake = ({ template, failed = false }: KnownDemand): boolean =>
  !failed && isTemplate(template) && template.handle !== undefined && template.unfinished.length === 0;

export class WaitingGuests {
  readonly #options: WaitingOptions;
  readonly #demands = new Map<GuestId, KnownDemand>();
  /** Those that somebody is about to be given. */
  readonly #reserved = new Set<Guest>();
  #cancelTimer: (() => void) | undefined;
  #filling: Promise<void> | undefined;
  /** Something has changed while one was being made or ended. */
  #isStale = false;

  constructor(options: WaitingOptions) {
    this.#options = options;
  }

  /** Somebody has asked for a fork of the template that could have waited. */
  asked(template: Guest): void {
    if (this.#options.most === 0) return;
    this.#demand(template);
    this.#arm(QUIET_MS);
  }

  /** One has ended by itself: it goes, and another is made. */
  async died(guest: Guest): Promise<void> {
    await this.#end(guest);
    this.wake();
  }

  /** A template is there again: what is wanted of it can be made. */
  wake(): void {
    this.#arm(QUIET_MS);
  }

  /** One that fits, kept for whoever asks until it is let go of. */
  reserve(
    template: Guest,
    spec: StoredSpec,
    machine: PinnedMachine,
  ): ({ readonly guest: Guest } & Disposable) | undefined {
    const guest = this.#of(template.id).find((each) => this.#isReady(each) && isAlike(each, spec, machine));
    if (!guest) return undefined;
    this.#reserved.add(guest);
    return { guest, [Symbol.dispose]: () => this.#reserved.delete(guest) };
  }

  /** Once the inventory has been looked at: those of an earlier daemon are kept as if they were asked for now. */
  begin(): void {
    const { registry } = this.#options;
    const left = registry.waiting();
    for (const guest of left) {
      const id = templateOf(guest);
      const template = id && registry.byId(id);
      if (template) this.#demand(template);
    }
    if (left.length > 0) this.#arm(QUIET_MS);
  }

  /** Ends those of a template. Errors: HostError when one is left. */
  async endOf(template: GuestId, signal: AbortSignal): Promise<void> {
    const mine = this.#of(template);
    const gone = await Promise.all(mine.map((guest) => this.#end(guest)));
    signal.throwIfAborted();
    // Others are somebody's by now, and forks like those that were asked for before.
    const left = mine
      .filter((guest, index) => gone[index] !== true && guest.recorded().spec.waiting !== undefined)
      .map(({ name }) => name);
    if (left.length === 0) return;
    throw new RoostError(
      'HostError',
      `Guests that wait as its forks could not be ended: ${left.join(', ')}`,
      {
        data: { left },
        hint: 'See why with `roost explain`, and try again.',
      },
    );
  }

  /**
   * Ends those that have an address which somebody wishes for: each has the one that was free, and any other would do.
   * Resolves when they are gone, or could not be ended.
   */
  async giveWay(wished: readonly WishedAddress[]): Promise<void> {
    const isWished = ({ network, ipv4 }: WishedAddress): boolean =>
      ipv4 !== undefined && wished.some((wish) => wish.network === network && wish.ipv4 === ipv4);
    const holders = this.#options.registry
      .waiting()
      .filter((guest) => !this.#reserved.has(guest) && guest.record.spec.nics.some(isWished));
    await Promise.all(holders.map((guest) => this.#end(guest)));
    if (holders.length > 0) this.wake();
  }

  readyOf(template: GuestId): number {
    return this.#of(template).filter(isPrepared).length;
  }

  /** Resolves when nothing is being made, and nothing will be. */
  async idle(): Promise<void> {
    this.#cancelTimer?.();
    await this.#filling;
    this.#cancelTimer?.();
  }

  #demand(template: Guest): void {
    const { most, house } = this.#options;
    const before = this.#demands.get(template.id) ?? { askedAt: [] };
    this.#demands.set(template.id, { template, ...askedAgain(before, most, house.clock.now()) });
  }

  #isReady(guest: Guest): boolean {
    return isPrepared(guest) && !this.#reserved.has(guest);
  }

  #of(template: GuestId): readonly Guest[] {
    return this.#options.registry.waiting().filter((guest) => templateOf(guest) === template);
  }

  /** Looks at what is to be done after so long; one that is being made or ended is waited for. */
  #arm(delayMs: number): void {
    this.#isStale = true;
    if (this.#filling) return;
    this.#cancelTimer?.();
    this.#cancelTimer = this.#options.house.clock.after(delayMs, () => {
      this.#cancelTimer = undefined;
      this.#isStale = false;
      this.#filling = this.#settle().then((untilNextMs) => {
        this.#filling = undefined;
        // Whatever it came to, it knew nothing of that.
        if (this.#isStale) this.#arm(QUIET_MS);
        else if (untilNextMs !== undefined) this.#arm(untilNextMs);
      });
    });
  }

  /** Resolves with when there may be more to do, in milliseconds from now; never rejects. */
  async #settle(): Promise<number | undefined> {
    const { log, stopping } = this.#options.house;
    try {
      return (await this.#step()) ? QUIET_MS : this.#untilChange();
    } catch (err) {
      if (!stopping.aborted) log.error({ err }, 'it could not be settled which guests are to wait');
      return undefined;
    }
  }

  /** Ends one that is too many, or makes one that is missing. Resolves with whether there may be more to do. */
  async #step(): Promise<boolean> {
    const { house, registry, most } = this.#options;
    if (house.stopping.aborted || hostStops(house.operations)) return false;
    const useless = registry.waiting().find((guest) => guest.unfinished.length === 0 && !isPrepared(guest));
    const move = nextMove(this.#kinds(), most);
    if (!useless && !move) {
      house.log.debug({ waiting: registry.waiting().length }, 'as many guests wait as are wanted');
      return false;
    }
    if (house.operations.isUnderWay(({ kind }) => isStart(kind))) return true;
    if (useless) return await this.#end(useless);
    switch (move?.kind) {
      case undefined:
        return false;
      case 'make':
        return await this.#make(move.key);
      case 'end': {
        const ready = this.#of(move.key).find((guest) => this.#isReady(guest));
        return ready !== undefined && (await this.#end(ready));
      }
    }
  }

  /** Whatever is wanted, or there. */
  #kinds(): readonly Kind<GuestId>[] {
    const { house, registry, most } = this.#options;
    const now = house.clock.now();
    const there = registry.waiting().flatMap((guest) => templateOf(guest) ?? []);
    return [...new Set([...this.#demands.keys(), ...there])].map((key) => {
      const demand = this.#demands.get(key);
      return {
        key,
        have: this.#of(key).length,
        wanted: demand ? wantedOf(demand, most, now) : 0,
        canMake: demand !== undefined && canMake(demand),
        lastAskedAt: demand?.askedAt.at(-1) ?? 0,
      };
    });
  }

  /** Resolves with whether that may go on. */
  async #make(template: GuestId): Promise<boolean> {
    const { house, make } = this.#options;
    const demand = this.#demands.get(template);
    if (!demand) return false;
    try {
      await make(demand.template);
    } catch (err) {
      if (house.stopping.aborted) return false;
      // Who has asked meanwhile is reason enough to try again.
      if (this.#demands.get(template) === demand) this.#demands.set(template, { ...demand, failed: true });
      house.log.warn(
        { err, template: demand.template.name },
        'no guest can be made ahead until one is asked for',
      );
    }
    return true;
  }

  /** Resolves with whether it is gone; never rejects. */
  async #end(guest: Guest): Promise<boolean> {
    const { house, end } = this.#options;
    try {
      const { operation } = await end(guest, WAITING_ACTOR);
      const ended = await house.operations.wait(operation, house.stopping);
      return ended.state === 'succeeded' || guest.removed;
    } catch (err) {
      if (!house.stopping.aborted && !guest.removed)
        house.log.warn({ err, guest: guest.name }, 'a guest that waits could not be ended');
      return guest.removed;
    }
  }

  /** Until fewer are wanted; undefined where none are. */
  #untilChange(): number | undefined {
    const { house, most } = this.#options;
    const now = house.clock.now();
    for (const [template, demand] of this.#demands)
      if (wantedOf(demand, most, now) === 0) this.#demands.delete(template);
    const changes = [...this.#demands.values()].flatMap((demand) => nextChangeAt(demand, most, now) ?? []);
    return changes.length === 0 ? undefined : Math.max(QUIET_MS, Math.min(...changes) - now);
  }
}
