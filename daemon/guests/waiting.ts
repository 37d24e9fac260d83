/**
 * Guests that wait: forks of a template that nobody has asked for yet, which whoever asks for a guest like them gets at
 * once. They are guests like others, with disks, addresses and a process; but they are not listed, nothing is told of them,
 * and they stand still. How many there are follows what was asked for lately, and is made up for once nobody waits.
 */
import { randomUUID } from 'node:crypto';
import type { PinnedMachine } from '../../drivers/driver.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { Accepted } from '../../protocol/operation.ts';
import type { GuestId } from '../../protocol/types.ts';
import type { GuestRecord, StoredSpec } from '../inventory/guest-table.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import { asForkOf, forkSpec, isAlike, isTemplate, roundOf, templateFor, unlikeTemplate } from './forks.ts';
import type { Guest } from './guest.ts';
import { isStart } from './guest-status.ts';
import { hostStops } from './host-stops.ts';
import type { House } from './house.ts';
import { recordRun } from './launch-of.ts';
import type { MemoryPromises } from './memory-promises.ts';
import { allocateFor, insertGuest } from './record-guest.ts';
import type { GuestRegistry } from './registry.ts';
import { resolveCreation } from './resolve-creation.ts';
import { askedAgain, type Demand, type Kind, nextChangeAt, nextMove, wantedOf } from './waiting-demand.ts';

/** Since the last start: whoever starts one guest after another gets the processors first. */
const QUIET_MS = 100;
const ACTOR = 'policy:waiting';

export interface WaitingOptions {
  readonly house: House;
  readonly registry: GuestRegistry;
  readonly memory: MemoryPromises;
  /** How many may wait, of all kinds together; none where it is 0. */
  readonly most: number;
  /** Deletes one, by force. */
  readonly end: (guest: Guest, actor: typeof ACTOR) => Promise<Accepted>;
}

/** Guests of one key are alike for whoever asks. */
const keyOf = (template: GuestId | undefined, { nics }: Pick<StoredSpec, 'nics'>): string =>
  [template, ...nics.map(({ network }) => network)].join(' ');

const keyOfGuest = ({ record: { spec } }: Guest): string => keyOf(spec.forkOf, spec);

interface KnownDemand extends Demand {
  readonly template: Guest;
  /** Of a guest that was asked for. */
  readonly spec: Pick<StoredSpec, 'nics'>;
  /** The last that was to be made could not be. */
  readonly failed?: boolean;
}

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
  readonly #demands = new Map<string, KnownDemand>();
  /** Those that somebody is about to be given. */
  readonly #reserved = new Set<Guest>();
  #cancelTimer: (() => void) | undefined;
  #filling: Promise<void> | undefined;

  constructor(options: WaitingOptions) {
    this.#options = options;
  }

  /** Somebody has asked for a fork of the template, of a kind that could have waited. */
  asked(template: Guest, spec: Pick<StoredSpec, 'nics'>): void {
    const { most, house } = this.#options;
    if (most === 0) return;
    const key = keyOf(template.id, spec);
    const before = this.#demands.get(key) ?? { askedAt: [] };
    this.#demands.set(key, { template, spec, ...askedAgain(before, most, house.clock.now()) });
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
    const guest = this.#of(keyOf(template.id, spec)).find(
      (each) => this.#isReady(each) && isAlike(each, spec, machine),
    );
    if (!guest) return undefined;
    this.#reserved.add(guest);
    return { guest, [Symbol.dispose]: () => this.#reserved.delete(guest) };
  }

  /** Once the inventory has been looked at: those of an earlier daemon are kept as if they were asked for now. */
  begin(): void {
    const { registry, most, house } = this.#options;
    for (const guest of registry.waiting()) {
      const { forkOf, nics } = guest.record.spec;
      const template = forkOf && registry.byId(forkOf);
      if (!template) continue;
      const before = this.#demands.get(keyOfGuest(guest)) ?? { askedAt: [] };
      const demand = askedAgain(before, most, house.clock.now());
      this.#demands.set(keyOfGuest(guest), { template, spec: { nics }, ...demand });
    }
    if (registry.waiting().length > 0) this.#arm(QUIET_MS);
  }

  /** Ends those of a template. Errors: HostError when one is left. */
  async endOf(template: GuestId, signal: AbortSignal): Promise<void> {
    const mine = this.#options.registry.waiting().filter(({ record }) => record.spec.forkOf === template);
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

  readyOf(template: GuestId): number {
    return this.#options.registry
      .waiting()
      .filter((guest) => guest.record.spec.forkOf === template && isPrepared(guest)).length;
  }

  /** Resolves when nothing is being made, and nothing will be. */
  async idle(): Promise<void> {
    this.#cancelTimer?.();
    await this.#filling;
    this.#cancelTimer?.();
  }

  #isReady(guest: Guest): boolean {
    return isPrepared(guest) && !this.#reserved.has(guest);
  }

  #of(key: string | undefined): readonly Guest[] {
    return this.#options.registry.waiting().filter((guest) => keyOfGuest(guest) === key);
  }

  #arm(delayMs: number): void {
    this.#cancelTimer?.();
    this.#cancelTimer = this.#options.house.clock.after(delayMs, () => {
      this.#cancelTimer = undefined;
      this.#filling ??= this.#settle().finally(() => {
        this.#filling = undefined;
      });
    });
  }

  async #settle(): Promise<void> {
    const { log, stopping } = this.#options.house;
    try {
      if (await this.#step()) this.#arm(QUIET_MS);
      else this.#armForChange();
    } catch (err) {
      if (!stopping.aborted) log.error({ err }, 'it could not be settled which guests are to wait');
    }
  }

  /** Ends one that is too many, or makes one that is missing. Resolves with whether there may be more to do. */
  async #step(): Promise<boolean> {
    const { house, registry, most } = this.#options;
    if (house.stopping.aborted || hostStops(house.operations)) return false;
    const useless = registry.waiting().find((guest) => guest.unfinished.length === 0 && !isPrepared(guest));
    const move = nextMove(this.#kinds(), most);
    if (!useless && !move) return false;
    if (house.operations.isUnderWay(({ kind }) => isStart(kind))) return true;
    if (!useless && move?.kind === 'make') return await this.#make(move.key);
    const ended = useless ?? this.#of(move?.key).find((guest) => this.#isReady(guest));
    return ended !== undefined && (await this.#end(ended));
  }

  /** Whatever is wanted, or there. */
  #kinds(): readonly Kind[] {
    const { house, registry, most } = this.#options;
    const now = house.clock.now();
    const keys = new Set([...this.#demands.keys(), ...registry.waiting().map(keyOfGuest)]);
    return [...keys].map((key) => {
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
  async #make(key: string): Promise<boolean> {
    const { house, registry, memory } = this.#options;
    const demand = this.#demands.get(key);
    if (!demand) return false;
    try {
      const id = randomUUID() as GuestId;
      const name = `waiting-${id.slice(0, 8)}`;
      const { template } = demand;
      const resolved = await this.#resolve(demand, id, name);
      // What is its own while it stands still is little.
      using _promised = await memory.promise({
        name,
        spec: { ...resolved.spec, memoryBytes: 0 },
        driver: template.driver,
      });
      const { guest, operation } = await house.inventory.db.durably(() =>
        this.#accept(template, { id, name, ...resolved }),
      );
      guest.markReconciled();
      registry.add(guest);
      guest.enqueue(operation);
      const ended = await house.operations.wait(operation.id, house.stopping);
      if (ended.state === 'failed') throw new Error(ended.error?.desc ?? ended.state);
    } catch (err) {
      if (house.stopping.aborted) return false;
      this.#demands.set(key, { ...demand, failed: true });
      house.log.warn(
        { err, template: demand.template.name },
        'no guest can be made ahead until one is asked for',
      );
    }
    return true;
  }

  /** As if somebody asked for it now. Errors: FailedPrecondition where that would not be a fork of the template. */
  async #resolve(
    { template, spec: { nics } }: KnownDemand,
    id: GuestId,
    name: string,
  ): Promise<Pick<GuestRecord, 'spec' | 'machine'>> {
    const { house, registry } = this.#options;
    const asked = forkSpec(
      template.record,
      { template: template.id, name, labels: {} },
      (network) => house.networks.byId(network).name,
    );
    const named = nics.map(({ name: nic, network }) => ({
      name: nic,
      network: house.networks.byId(network).name,
    }));
    const { like, machine } = await resolveCreation(house, registry, { ...asked, nics: named }, id);
    if (!templateFor(like, machine, [template])) throw unlikeTemplate(template);
    return {
      spec: { ...asForkOf(like, template.id, roundOf(template)), waiting: { since: house.clock.now() } },
      machine,
    };
  }

  /** In a transaction. */
  #accept(
    template: Guest,
    { spec, ...made }: Pick<GuestRecord, 'id' | 'name' | 'spec' | 'machine'>,
  ): { readonly guest: Guest; readonly operation: OperationRecord } {
    const { house, registry } = this.#options;
    if (!isTemplate(template) || template.unfinished.length > 0)
      throw new RoostError('Cancelled', `Guest ${template.name} is to be forked no more`);
    const stored = allocateFor(house, { name: made.name, spec, busy: new Set() });
    const guest = insertGuest({ house, registry }, { ...made, spec: stored }, 'stopped', { actor: ACTOR });
    recordRun(guest);
    const operation = house.operations.insert({
      kind: 'guest-prepare',
      subject: { kind: 'guest', id: guest.id, name: guest.name },
      actor: ACTOR,
      arguments: { template: template.name, of: template.id },
    });
    return { guest, operation };
  }

  /** Resolves with whether it is gone; never rejects. */
  async #end(guest: Guest): Promise<boolean> {
    const { house, end } = this.#options;
    try {
      const { operation } = await end(guest, ACTOR);
      const ended = await house.operations.wait(operation, house.stopping);
      return ended.state === 'succeeded' || guest.removed;
    } catch (err) {
      if (!house.stopping.aborted && !guest.removed)
        house.log.warn({ err, guest: guest.name }, 'a guest that waits could not be ended');
      return guest.removed;
    }
  }

  #armForChange(): void {
    const { house, most } = this.#options;
    const now = house.clock.now();
    const changes = [...this.#demands.values()].flatMap((demand) => nextChangeAt(demand, most, now) ?? []);
    for (const [key, demand] of this.#demands)
      if (wantedOf(demand, most, now) === 0) this.#demands.delete(key);
    if (changes.length > 0) this.#arm(Math.max(QUIET_MS, Math.min(...changes) - now));
  }
}
