/**
 * A fork that nobody has asked for yet is accepted as any guest is, and its preparation waited for; what that does is in
 * `preparation.ts`, and when one is made `waiting.ts` says.
 */
import { randomUUID } from 'node:crypto';
import { RoostError } from '../../protocol/errors.ts';
import type { GuestId } from '../../protocol/types.ts';
import type { GuestRecord } from '../inventory/guest-table.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import { asForkOf, forkSpec, isTemplate, onRoundOf, roundOf, templateFor, unlikeTemplate } from './forks.ts';
import type { Guest } from './guest.ts';
import type { House } from './house.ts';
import { recordRun } from './launch-of.ts';
import type { MemoryPromises } from './memory-promises.ts';
import { allocateFor, insertGuest } from './record-guest.ts';
import type { GuestRegistry } from './registry.ts';
import { resolveCreation } from './resolve-creation.ts';

/** Who makes guests that wait, and ends them. */
export const WAITING_ACTOR = 'policy:waiting';

export class Preparations {
  readonly #house: House;
  readonly #registry: GuestRegistry;
  readonly #memory: MemoryPromises;

  constructor(house: House, registry: GuestRegistry, memory: MemoryPromises) {
    this.#house = house;
    this.#registry = registry;
    this.#memory = memory;
  }

  /** Makes one fork of the template; resolves when it waits, or its making was cancelled. Rejects when it failed. */
  async make(template: Guest): Promise<void> {
    const { inventory, operations, stopping } = this.#house;
    const id = randomUUID() as GuestId;
    const name = `waiting-${id.slice(0, 8)}`;
    const resolved = await this.#resolve(template, id, name);
    const { driver } = template;
    // What is its own while it stands still is little.
    const promised = { name, spec: { ...resolved.spec, memoryBytes: 0 }, driver };
    using _promised = await this.#memory.promise(promised);
    const { guest, operation } = await inventory.db.durably(() =>
      this.#accept(template, { id, name, ...resolved }),
    );
    guest.markReconciled();
    this.#registry.add(guest);
    guest.enqueue(operation);
    const ended = await operations.wait(operation.id, stopping);
    if (ended.state === 'failed') throw new Error(ended.error?.desc ?? ended.state);
  }

  /**
   * As if somebody asked for it now, with the NICs of the template. Errors: FailedPrecondition where that would not be a
   * fork of it.
   */
  async #resolve(template: Guest, id: GuestId, name: string): Promise<Pick<GuestRecord, 'spec' | 'machine'>> {
    const { clock, networks } = this.#house;
    const nameOf = (network: Parameters<typeof networks.byId>[0]): string => networks.byId(network).name;
    const asked = forkSpec(template.record, { template: template.id, name, labels: {} }, nameOf);
    const nics = template.record.spec.nics.map((nic) => ({ name: nic.name, network: nameOf(nic.network) }));
    const spec = { ...asked, nics };
    const { like, machine } = await resolveCreation(this.#house, this.#registry, spec, {
      id,
      copies: 'of-template',
    });
    if (!templateFor(like, machine, [template])) throw unlikeTemplate(template);
    const fork = asForkOf(like, template.id, roundOf(template));
    return { spec: { ...fork, waiting: { since: clock.now() } }, machine };
  }

  /** In a transaction. */
  #accept(
    template: Guest,
    { spec, ...made }: Pick<GuestRecord, 'id' | 'name' | 'spec' | 'machine'>,
  ): { readonly guest: Guest; readonly operation: OperationRecord } {
    const [house, registry] = [this.#house, this.#registry];
    if (!isTemplate(template) || template.unfinished.length > 0)
      throw new RoostError('Cancelled', `Guest ${template.name} is to be forked no more`);
    const stored = allocateFor(house, { name: made.name, spec: onRoundOf(spec, template), busy: new Set() });
    const asker = { actor: WAITING_ACTOR } as const;
    const guest = insertGuest({ house, registry }, { ...made, spec: stored }, 'stopped', asker);
    recordRun(guest);
    const operation = house.operations.insert({
      kind: 'guest-prepare',
      subject: { kind: 'guest', id: guest.id, name: guest.name },
      ...asker,
      arguments: { template: template.name, of: template.id },
    });
    return { guest, operation };
  }
}
