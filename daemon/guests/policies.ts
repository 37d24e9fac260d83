/** What is done to guests without anybody asking: their autostart after a boot of the host, their restart, their deletion. */
import { isRoostError, toRoostError } from '../../protocol/errors.ts';
import type { Accepted } from '../../protocol/operation.ts';
import type { GuestId } from '../../protocol/types.ts';
import type { Guest } from './guest.ts';
import { hostStops } from './host-stops.ts';
import type { House } from './house.ts';
import type { GuestRegistry } from './registry.ts';

/** A boot takes the processors for a while, and the next fork that is asked for would have it again. */
const REMAKE_AGAIN_MS = 300_000;

export type PolicyActor = 'policy:restart' | 'policy:autostart';

/** How what policies want is accepted. */
export interface PolicyDeeds {
  readonly start: (guest: Guest, actor: PolicyActor) => Promise<unknown>;
  readonly delete: (guest: Guest, actor: 'policy:delete') => Promise<unknown>;
  readonly remake: (template: Guest, actor: 'policy:template') => Promise<Accepted>;
}

export class Policies {
  readonly #house: House;
  readonly #registry: GuestRegistry;
  readonly #deeds: PolicyDeeds;
  /** When a template may be made anew once more. */
  readonly #notBefore = new WeakMap<Guest, number>();

  constructor(house: House, registry: GuestRegistry, deeds: PolicyDeeds) {
    this.#house = house;
    this.#registry = registry;
    this.#deeds = deeds;
  }

  /** After a boot of the host: writes down which guests it is to start, in their order. */
  planAutostart(): void {
    const wanted = this.#registry
      .all()
      .filter((guest) => guest.record.spec.autostart.enabled && guest.missingDriver === undefined)
      .sort((a, b) => a.record.spec.autostart.order - b.record.spec.autostart.order);
    this.#writeAutostart(wanted.map((guest) => guest.id));
  }

  /** Starts what is written down, each after the delay of the one before; a later daemon goes on where this one ends. */
  async autostart(): Promise<void> {
    const { meta } = this.#house.inventory;
    const left = JSON.parse(meta.get('autostart') ?? '[]') as GuestId[];
    for (let id = left.shift(); id !== undefined; id = left.shift()) {
      if (this.#house.stopping.aborted || hostStops(this.#house.operations)) return;
      const guest = this.#registry.byId(id);
      if (guest) await this.#startBy('policy:autostart', guest);
      if (this.#house.stopping.aborted) return;
      this.#writeAutostart(left);
      const delayMs = guest?.record.spec.autostart.delayMs ?? 0;
      if (delayMs > 0) await new Promise<void>((resolve) => this.#house.clock.after(delayMs, resolve));
    }
  }

  /** Starts a guest whose policy wants it. */
  async restart(guest: Guest): Promise<void> {
    await this.#startBy('policy:restart', guest);
  }

  /** Deletes a guest that was to go after its end. */
  async delete(guest: Guest): Promise<void> {
    try {
      await this.#deeds.delete(guest, 'policy:delete');
    } catch (err) {
      if (!this.#house.stopping.aborted && !guest.removed)
        this.#house.log.warn({ err, guest: guest.name }, 'the guest could not be deleted after its end');
    }
  }

  /**
   * Makes a template anew that has lost its memory, because somebody wants forks of it; not again for a while where that
   * fails. Resolves when it is done, or cannot be.
   */
  async remake(template: Guest): Promise<void> {
    const { clock, operations, stopping, log } = this.#house;
    const now = clock.now();
    if ((this.#notBefore.get(template) ?? 0) > now) return;
    this.#notBefore.set(template, Infinity);
    try {
      const { operation } = await this.#deeds.remake(template, 'policy:template');
      const ended = await operations.wait(operation, stopping);
      if (ended.state === 'failed') throw new Error(ended.error?.desc ?? ended.state);
      this.#notBefore.delete(template);
    } catch (err) {
      this.#notBefore.set(template, clock.now() + REMAKE_AGAIN_MS);
      if (!stopping.aborted && !template.removed)
        log.warn({ err, guest: template.name }, 'the template cannot be made anew: its forks boot');
    }
  }

  #writeAutostart(ids: readonly GuestId[]): void {
    const { db, meta } = this.#house.inventory;
    db.soon(() => meta.set('autostart', JSON.stringify(ids)));
  }

  async #startBy(actor: PolicyActor, guest: Guest): Promise<void> {
    // The boot that follows begins anew.
    if (hostStops(this.#house.operations)) return;
    try {
      await this.#deeds.start(guest, actor);
    } catch (error) {
      if (this.#house.stopping.aborted || guest.removed || isRoostError(error, 'Cancelled')) return;
      this.#house.log.error({ err: error, guest: guest.name }, `${actor} could not start the guest`);
      const failure = toRoostError(error);
      guest.setStatus({ state: 'failed', reason: failure.message, restartAt: undefined });
      if (actor === 'policy:restart') guest.restarts.afterEnd({ cause: 'crashed', ranMs: 0 });
    }
  }
}
