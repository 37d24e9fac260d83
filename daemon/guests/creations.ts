/**
 * guest-create and guest-fork: a guest is accepted in one durable transaction, with all that it gets for itself. One that
 * is to run and asks for what a template has is forked from that; its user sees no difference but the speed.
 */
import { randomUUID } from 'node:crypto';
import type { CommandArguments } from '../../protocol/commands.ts';
import type { Accepted } from '../../protocol/operation.ts';
import type { GuestId } from '../../protocol/types.ts';
import { withoutCloudInitTexts } from '../cloud-init/change-cloud-init.ts';
import { checkSeed } from '../cloud-init/check-seed.ts';
import { busyPorts } from './allocate-nic.ts';
import { copiesIn } from './filesystems.ts';
import {
  asForkOf,
  forkOfSystem,
  forkSpec,
  isBeingDeleted,
  isTemplate,
  isToBeRemade,
  isWarm,
  onRoundOf,
  requireTemplate,
  roundOf,
  templateFor,
  templateOfRunning,
  unlikeTemplate,
} from './forks.ts';
import type { Guest } from './guest.ts';
import type { House } from './house.ts';
import { recordRun } from './launch-of.ts';
import { refuseUnforkable, requireRunning } from './live-template.ts';
import type { MemoryPromises } from './memory-promises.ts';
import { allocateFor, createdBefore, insertGuest, insertStart } from './record-guest.ts';
import {
  type Asker,
  refuseHostPaths,
  refuseTaint,
  refuseTakenName,
  refuseWhileHostStops,
  requireImages,
} from './refusals.ts';
import type { GuestRegistry } from './registry.ts';
import { resolveCreation } from './resolve-creation.ts';
import { runsProgram } from './runs-program.ts';
import { couldHaveWaited, type TakenOver, takeOver } from './take-over.ts';
import type { TemplateBudget } from './template-budget.ts';
import type { WaitingGuests } from './waiting.ts';
import { type Warned, warned } from './warned.ts';

export class GuestCreations {
  readonly #house: House;
  readonly #registry: GuestRegistry;
  readonly #memory: MemoryPromises;
  readonly #waiting: WaitingGuests;
  readonly #budget: TemplateBudget;
  readonly #remake: (template: Guest) => void;

  constructor(
    house: House,
    registry: GuestRegistry,
    {
      memory,
      waiting,
      budget,
      remake,
    }: {
      readonly memory: MemoryPromises;
      readonly waiting: WaitingGuests;
      readonly budget: TemplateBudget;
      /** Has a template's memory made anew, beside what was asked for. */
      readonly remake: (template: Guest) => void;
    },
  ) {
    this.#house = house;
    this.#registry = registry;
    this.#memory = memory;
    this.#waiting = waiting;
    this.#budget = budget;
    this.#remake = remake;
  }

  async create(args: CommandArguments<'guest-create'>, asker: Asker): Promise<Warned> {
    const told = checkSeed(args.cloudInit ?? {});
    const { warnings = [], ...accepted } = await this.#create(args, asker);
    return warned(accepted, [...told, ...warnings]);
  }

  /** A guest like the template, but for its program if it has one. Errors: FailedPrecondition where it is none. */
  async fork(args: CommandArguments<'guest-fork'>, asker: Asker): Promise<Accepted> {
    const { operations, networks } = this.#house;
    const before = operations.repeated(args.idempotencyKey, 'guest-create', args.name);
    if (before) return createdBefore(this.#house.operations, before, true);
    const template = requireTemplate(this.#registry.find(args.template));
    const spec = forkSpec(template.record, args, (id) => networks.byId(id).name);
    return await this.#create({ ...spec, start: true, idempotencyKey: args.idempotencyKey }, asker, template);
  }

  /**
   * A template of a guest that runs, with NICs of its own; see `live-template.ts`. Errors: Unsupported or FailedPrecondition
   * for a guest that cannot be forked as it is.
   */
  async liveTemplate(
    args: CommandArguments<'template-create'> & { readonly name: string },
    asker: Asker,
  ): Promise<Accepted> {
    const { inventory, operations } = this.#house;
    const { name, idempotencyKey } = args;
    const kind = 'template-create';
    const before = operations.repeated(idempotencyKey, kind, name);
    if (before) return { operation: before.id, id: before.subject.id };
    refuseWhileHostStops(this.#house);
    const source = this.#registry.find(args.guest);
    refuseUnforkable(source);
    requireRunning(source);
    refuseTakenName(this.#house, name);
    const { driver } = source;
    const id = randomUUID() as GuestId;
    const pinned = templateOfRunning(source.record);
    await this.#budget.makeRoom({ name, spec: pinned.spec, driver });
    using _promised = await this.#memory.promise({ name, spec: pinned.spec, driver });
    const outcome = await inventory.db.durably(() => {
      const repeated = operations.repeated(idempotencyKey, kind, name);
      if (repeated) return { kind: 'repeated', operation: repeated } as const;
      refuseTakenName(this.#house, name);
      const stored = allocateFor(this.#house, { name, spec: pinned.spec, busy: new Set() });
      const made = { id, name, spec: stored, machine: pinned.machine };
      const guest = this.#insert(made, 'stopped', asker);
      recordRun(guest);
      const operation = operations.insert({
        kind,
        subject: { kind: 'guest', id, name },
        actor: asker.actor,
        arguments: { guest: source.name, of: source.id, name },
        idempotencyKey,
      });
      return { kind: 'new', guest, operation } as const;
    });
    if (outcome.kind === 'repeated')
      return { operation: outcome.operation.id, id: outcome.operation.subject.id };
    const { guest, operation } = outcome;
    guest.markReconciled();
    this.#registry.add(guest);
    guest.enqueue(operation);
    return { operation: operation.id, id };
  }

  async #create(args: CommandArguments<'guest-create'>, asker: Asker, asked?: Guest): Promise<Warned> {
    const { inventory, operations } = this.#house;
    const { start, idempotencyKey, ...spec } = args;
    const { name } = spec;
    const before = operations.repeated(idempotencyKey, 'guest-create', name);
    if (before) return createdBefore(this.#house.operations, before, start);
    if (start) refuseWhileHostStops(this.#house);
    refuseTaint(spec.qemu.extraArgs, asker);
    // A fork reads nothing of the host: it has what its template has.
    if (!asked) refuseHostPaths(spec.filesystems, asker);
    refuseTakenName(this.#house, name);
    const id = randomUUID() as GuestId;
    const system = asked && !runsProgram(asked.record.spec) ? asked : undefined;
    const copies = asked ? 'of-template' : 'new';
    const { like, machine, driver, warnings } = system
      ? { ...forkOfSystem(system, args), warnings: [] }
      : await resolveCreation(this.#house, this.#registry, spec, { id, copies });
    // What a template has copied may be another today on the host.
    const candidates =
      start && copiesIn(like).length === 0 ? this.#registry.all().filter((guest) => !isWarm(guest)) : [];
    const template = system ?? templateFor(like, machine, asked ? [asked] : candidates);
    if (asked && !template) throw unlikeTemplate(asked);
    const resolved = template ? asForkOf(like, template.id, roundOf(template)) : like;
    const busy = await busyPorts(resolved.nics, this.#house);
    await this.#waiting.giveWay(resolved.nics);
    using _promised = start ? await this.#memory.promise({ name, spec: resolved, driver }) : undefined;
    const waits = template && couldHaveWaited(args, like, template) ? template : undefined;
    using reserved = waits && this.#waiting.reserve(waits, like, machine);

    const outcome = await inventory.db.durably(() => {
      const repeated = operations.repeated(idempotencyKey, 'guest-create', name);
      if (repeated) return { kind: 'repeated', operation: repeated } as const;
      refuseTakenName(this.#house, name);
      if (asked) requireTemplate(asked, !isTemplate(asked) || isBeingDeleted(asked));
      // One that was found and is to go meanwhile is nothing that anybody asked for: the guest boots.
      const isFork = template !== undefined && isTemplate(template) && !isBeingDeleted(template);
      const told = { arguments: withoutCloudInitTexts(args), idempotencyKey, actor: asker.actor };
      if (isFork && reserved) {
        requireImages(this.#house, resolved);
        const taken = takeOver(reserved.guest, { name, spec: resolved }, told);
        if (taken) return { kind: 'taken', ...taken } as const;
      }
      const recorded = isFork ? onRoundOf(resolved, template) : like;
      const stored = allocateFor(this.#house, { name, spec: recorded, busy });
      const target = start ? 'running' : 'stopped';
      const guest = this.#insert({ id, name, spec: stored, machine }, target, asker);
      const creation = operations.insert({
        kind: 'guest-create',
        subject: { kind: 'guest', id, name },
        ...told,
      });
      const starting = start ? insertStart(guest, asker.actor) : undefined;
      return { kind: 'new', guest, creation, starting } as const;
    });
    if (waits) this.#waiting.asked(waits);
    if (template) this.#budget.asked(template);
    if (template && isToBeRemade(template)) this.#remake(template);
    switch (outcome.kind) {
      case 'repeated':
        return createdBefore(this.#house.operations, outcome.operation, start);
      case 'taken':
        return this.#taken(outcome);
      case 'new': {
        const { guest, creation, starting } = outcome;
        guest.markReconciled();
        this.#registry.add(guest);
        guest.enqueue(creation);
        if (starting) guest.enqueue(starting);
        return warned({ operation: (starting ?? creation).id, id }, warnings);
      }
    }
  }

  // Inside

  #insert(
    made: Parameters<typeof insertGuest>[1],
    target: Parameters<typeof insertGuest>[2],
    asker: Asker,
  ): Guest {
    return insertGuest({ house: this.#house, registry: this.#registry }, made, target, asker);
  }

  /** It is there already, so that its creation is over once it is accepted. */
  #taken({ guest, record, status, starting }: TakenOver): Accepted {
    const before = guest.name;
    guest.becomeAsked(record, status);
    this.#registry.renamed(guest, before);
    guest.enqueue(starting);
    return { operation: starting.id, id: guest.id };
  }
}
