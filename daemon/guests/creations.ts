/**
 * guest-create and guest-fork: a guest is accepted in one durable transaction, with all that it gets for itself. One that
 * is to run and asks for what a template has is forked from that; its user sees no difference but the speed.
 */
import { randomUUID } from 'node:crypto';
import type { CommandArguments } from '../../protocol/commands.ts';
import type { Accepted } from '../../protocol/operation.ts';
import type { Actor, GuestId } from '../../protocol/types.ts';
import { withoutCloudInitTexts } from '../cloud-init/change-cloud-init.ts';
import { checkSeed } from '../cloud-init/check-seed.ts';
import type { StoredNic, StoredSpec } from '../inventory/guest-table.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import { allocateNic, busyPorts } from './allocate-nic.ts';
import { asForkOf, forkSpec, isTemplate, requireTemplate, templateFor, unlikeTemplate } from './forks.ts';
import type { Guest } from './guest.ts';
import type { House } from './house.ts';
import { existenceObjects, recordRun } from './launch-of.ts';
import type { MemoryPromises } from './memory-promises.ts';
import { type Asker, refuseTaint, refuseTakenName, refuseWhileHostStops, requireImages } from './refusals.ts';
import type { GuestRegistry } from './registry.ts';
import { resolveProgram } from './resolve-program.ts';
import { resolveSpec, specToPin } from './resolve-spec.ts';
import { type Warned, warned } from './warned.ts';

export class GuestCreations {
  readonly #house: House;
  readonly #registry: GuestRegistry;
  readonly #memory: MemoryPromises;

  constructor(house: House, registry: GuestRegistry, memory: MemoryPromises) {
    this.#house = house;
    this.#registry = registry;
    this.#memory = memory;
  }

  async create(args: CommandArguments<'guest-create'>, asker: Asker): Promise<Warned> {
    const warnings = checkSeed(args.cloudInit ?? {});
    return warned(await this.#create(args, asker), warnings);
  }

  /** A guest like the template, but for its program. Errors: FailedPrecondition where it is none. */
  async fork(args: CommandArguments<'guest-fork'>, asker: Asker): Promise<Accepted> {
    const { operations, networks } = this.#house;
    const before = operations.repeated(args.idempotencyKey, 'guest-create', args.name);
    if (before) return this.#createdBefore(before, true);
    const template = requireTemplate(this.#registry.find(args.template));
    const spec = forkSpec(template.record, args, (id) => networks.byId(id).name);
    return await this.#create({ ...spec, start: true, idempotencyKey: args.idempotencyKey }, asker, template);
  }

  async #create(args: CommandArguments<'guest-create'>, asker: Asker, asked?: Guest): Promise<Accepted> {
    const { inventory, operations } = this.#house;
    const { start, idempotencyKey, ...spec } = args;
    const before = operations.repeated(idempotencyKey, 'guest-create', spec.name);
    if (before) return this.#createdBefore(before, start);
    if (start) refuseWhileHostStops(this.#house);
    refuseTaint(spec.qemu.extraArgs, asker);
    refuseTakenName(this.#house, spec.name);
    const like = resolveSpec(spec, this.#house, await resolveProgram(spec, this.#house.images));
    const driver = this.#registry.driverOf(spec);
    const id = randomUUID() as GuestId;
    const machine = await driver.pin(specToPin(spec, like), id, this.#house.stopping);
    const candidates = start ? this.#registry.all() : [];
    const template = templateFor(like, machine, asked ? [asked] : candidates);
    if (asked && !template) throw unlikeTemplate(asked);
    const resolved = template ? asForkOf(like, template.id) : like;
    const busy = await busyPorts(resolved.nics, this.#house);
    using _promised = start
      ? await this.#memory.promise({ name: spec.name, spec: resolved, driver })
      : undefined;

    const outcome = await inventory.db.durably(() => {
      const repeated = operations.repeated(idempotencyKey, 'guest-create', spec.name);
      if (repeated) return { kind: 'repeated', operation: repeated } as const;
      refuseTakenName(this.#house, spec.name);
      if (asked) requireTemplate(asked);
      // One that was found and is to go meanwhile is nothing that anybody asked for: the guest boots.
      const stored = this.#allocate(spec.name, template && isTemplate(template) ? resolved : like, busy);
      const now = this.#house.clock.now();
      const record = inventory.guests.insert({
        id,
        name: spec.name,
        spec: stored,
        machine,
        target: start ? 'running' : 'stopped',
        targetActor: asker.actor,
        createdAt: now,
      });
      const guest = this.#registry.created(record);
      inventory.guests.writeStatus(id, guest.status);
      inventory.ledger.record({ kind: 'guest', id }, 'existence', existenceObjects(guest), now);
      const creation = operations.insert({
        kind: 'guest-create',
        subject: { kind: 'guest', id, name: spec.name },
        actor: asker.actor,
        arguments: withoutCloudInitTexts(args),
        idempotencyKey,
      });
      const starting = start ? this.#insertStart(guest, asker.actor, {}) : undefined;
      return { kind: 'new', guest, creation, starting } as const;
    });
    if (outcome.kind === 'repeated') return this.#createdBefore(outcome.operation, start);
    const { guest, creation, starting } = outcome;
    guest.markReconciled();
    this.#registry.add(guest);
    guest.enqueue(creation);
    if (starting) guest.enqueue(starting);
    return { operation: (starting ?? creation).id, id };
  }

  // Inside

  #insertStart(guest: Guest, actor: Actor, args: Record<string, unknown>): OperationRecord {
    recordRun(guest);
    return this.#house.operations.insert({
      kind: 'guest-start',
      subject: { kind: 'guest', id: guest.id, name: guest.name },
      actor,
      arguments: args,
    });
  }

  #createdBefore(creation: OperationRecord, start: boolean): Accepted {
    const id = creation.subject.id;
    if (!start) return { operation: creation.id, id };
    const ofGuest = this.#house.operations.query({ subject: id, limit: 10_000 });
    const starting = ofGuest.findLast((operation) => operation.kind === 'guest-start');
    return { operation: starting?.id ?? creation.id, id };
  }

  /** In the accepting transaction: what of the host and its networks the guest gets for itself. */
  #allocate(name: string, spec: StoredSpec, busy: ReadonlySet<number>): StoredSpec {
    requireImages(this.#house, spec);
    const nics: StoredNic[] = [];
    for (const nic of spec.nics)
      nics.push(allocateNic(this.#house, nic, { name, others: nics, busyPorts: busy }));
    return { ...spec, nics };
  }
}
