/**
 * What is asked of guests is accepted here. Accepting is one durable transaction (what is asked for, the operation, the
 * ledger rows of its plan); the guest's mailbox does the rest.
 */
import type { SeedFiles } from '../../protocol/cloud-init.ts';
import type { CommandArguments } from '../../protocol/commands.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { HostObject } from '../../protocol/host-object.ts';
import type { Accepted } from '../../protocol/operation.ts';
import type { Actor } from '../../protocol/types.ts';
import { withoutCloudInitTexts } from '../cloud-init/change-cloud-init.ts';
import { checkSeed } from '../cloud-init/check-seed.ts';
import { redactSeed } from '../cloud-init/redact.ts';
import { renderSeed } from '../cloud-init/render-seed.ts';
import type { Config } from '../config.ts';
import type { GuestRecord } from '../inventory/guest-table.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import { admit, type GuestVerbKind } from './admit.ts';
import type { GuestClones } from './clones.ts';
import type { GuestCreations } from './creations.ts';
import { dropSeed } from './drop-seed.ts';
import { asReleased, refuseWhileForked } from './forks.ts';
import type { Guest } from './guest.ts';
import { prepareUpdate } from './guest-update.ts';
import type { House } from './house.ts';
import { makeKeepers } from './keepers.ts';
import { plannedLaunch, portObjects, recordRun, seedSubject } from './launch-of.ts';
import { holdToLimitsInTurn, isLimit } from './live-limits.ts';
import type { MemoryPromises } from './memory-promises.ts';
import type { Policies } from './policies.ts';
import { restorePorts } from './reconcile.ts';
import { type Asker, refuseTaint, refuseTakenName, refuseWhileHostStops } from './refusals.ts';
import type { GuestRegistry } from './registry.ts';
import { saveInTurn } from './save-record.ts';
import type { TemplateBudget } from './template-budget.ts';
import type { WaitingGuests } from './waiting.ts';
import { type Warned, warned } from './warned.ts';

export interface GuestsOptions {
  readonly house: House;
  readonly config: Pick<Config, 'memory' | 'templates'>;
}

type VerbArguments = {
  readonly guest: string;
  readonly cloudInit?: object | null | undefined;
  readonly force?: boolean;
  readonly idempotencyKey?: string | undefined;
};

export class Guests {
  readonly registry: GuestRegistry;
  readonly policies: Policies;
  readonly creations: GuestCreations;
  readonly clones: GuestClones;
  readonly waiting: WaitingGuests;
  readonly budget: TemplateBudget;
  readonly #house: House;
  readonly #memory: MemoryPromises;

  constructor({ house, config }: GuestsOptions) {
    this.#house = house;
    const keepers = makeKeepers(house, config, {
      start: (guest, actor) => this.start({ guest: guest.id, paused: false }, { actor, role: 'admin' }),
      delete: (guest, actor) => this.delete({ guest: guest.id, force: false }, { actor, role: 'admin' }),
      remake: (guest, actor) => this.makeTemplate({ guest: guest.id }, { actor, role: 'admin' }),
      stopTemplate: (template, actor) =>
        this.accept('guest-stop', template, { guest: template.id }, actor, () =>
          template.writeTarget('stopped', actor),
        ),
      endWaiting: (guest, actor) => this.#endWaiting(guest, actor),
    });
    this.registry = keepers.registry;
    this.policies = keepers.policies;
    this.creations = keepers.creations;
    this.clones = keepers.clones;
    this.waiting = keepers.waiting;
    this.budget = keepers.budget;
    this.#memory = keepers.memory;
  }

  async update(args: CommandArguments<'guest-update'>, asker: Asker): Promise<Warned> {
    const warnings = checkSeed(args.cloudInit ?? {});
    const { warnings: more = [], ...accepted } = await this.#update(args, asker);
    return warned(accepted, [...warnings, ...more]);
  }

  /** What boots, and where, is that of an ordinary start; see `template.ts` for what comes then. */
  async makeTemplate(args: CommandArguments<'template-create'>, asker: Asker): Promise<Accepted> {
    if (args.name !== undefined)
      return await this.budget.inTurn(() =>
        this.creations.liveTemplate({ ...args, name: args.name ?? '' }, asker),
      );
    const before = this.before('template-create', args);
    if (before) return before;
    refuseWhileHostStops(this.#house);
    const guest = this.registry.find(args.guest);
    // One after the other: each has to know of the one before.
    return await this.budget.inTurn(async () => {
      const { name, record, driver } = guest;
      // Whatever could not become one is refused before another ends for it.
      const verdict = admit('template-create', guest.standing);
      if (verdict.kind === 'accept') await this.budget.makeRoom({ name, spec: record.spec, driver }, guest);
      using _promised = await this.#promiseMemory(guest);
      return await this.accept('template-create', guest, args, asker.actor, () => {
        recordRun(guest);
        return guest.writeTarget('stopped', asker.actor);
      });
    });
  }

  async start(args: CommandArguments<'guest-start'>, asker: Asker): Promise<Accepted> {
    const before = this.before('guest-start', args);
    if (before) return before;
    refuseWhileHostStops(this.#house);
    const guest = this.registry.find(args.guest);
    using _promised = await this.#promiseMemory(guest);
    const byRestart = asker.actor === 'policy:restart';
    return await this.accept(
      'guest-start',
      guest,
      args,
      asker.actor,
      () => {
        if (byRestart && guest.recorded().target !== 'running')
          throw new RoostError('Cancelled', `Guest ${guest.name} was stopped meanwhile`);
        recordRun(guest);
        return guest.writeTarget('running', asker.actor);
      },
      () => {
        guest.restarts.silence();
        if (!byRestart) guest.restarts.reset();
      },
    );
  }

  async stop(args: CommandArguments<'guest-stop'>, asker: Asker): Promise<Accepted> {
    return await this.#end('guest-stop', args, asker);
  }

  async delete(args: CommandArguments<'guest-delete'>, asker: Asker): Promise<Accepted> {
    return await this.#end('guest-delete', args, asker);
  }

  /** For a guest that nothing else helps: its turn comes at once, because whatever waits before it is cancelled. */
  async resetState(args: CommandArguments<'guest-reset-state'>, asker: Asker): Promise<Accepted> {
    const before = this.before('guest-reset-state', args);
    if (before) return before;
    const guest = this.registry.find(args.guest);
    const write = (): GuestRecord => guest.writeTarget('stopped', asker.actor);
    const accepted = await this.accept('guest-reset-state', guest, args, asker.actor, write, () => {
      guest.restarts.silence();
      guest.forceNow();
    });
    guest.cancelAllBut(accepted.operation);
    return accepted;
  }

  async verb(
    kind: 'guest-pause' | 'guest-resume' | 'guest-reset' | 'guest-fsfreeze-freeze' | 'guest-fsfreeze-thaw',
    args: VerbArguments,
    asker: Asker,
  ): Promise<Accepted> {
    const before = this.before(kind, args);
    return before ?? (await this.accept(kind, this.registry.find(args.guest), args, asker.actor));
  }

  async rename(args: CommandArguments<'guest-rename'>, asker: Asker): Promise<Accepted> {
    const repeated = this.before('guest-rename', args);
    if (repeated) return repeated;
    const guest = this.registry.find(args.guest);
    let before = guest.name;
    const accepted = await this.#apply(
      'guest-rename',
      guest,
      args,
      asker,
      () => {
        const record = guest.recorded();
        before = record.name;
        if (args.newName !== before) refuseTakenName(this.#house, args.newName);
        return { ...record, name: args.newName };
      },
      ['name'],
    );
    this.registry.renamed(guest, before);
    return accepted;
  }

  async #update(args: CommandArguments<'guest-update'>, asker: Asker): Promise<Warned> {
    const repeated = this.before('guest-update', args);
    if (repeated) return repeated;
    const guest = this.registry.find(args.guest);
    refuseTaint(args.qemu?.extraArgs, asker);
    const { change, changed, memoryBytes } = await prepareUpdate(guest, args);
    using _promised = await this.#memory.promiseGrowth(guest, memoryBytes);
    const accepted = await this.#apply('guest-update', guest, args, asker, change, changed);
    if (args.cloudInit === null) void guest.mailbox.post(() => dropSeed(guest));
    const told = changed.some((member) => isLimit(member)) ? await holdToLimitsInTurn(guest) : undefined;
    return warned(accepted, told === undefined ? [] : [told]);
  }

  /** What cloud-init in a guest is told, without secrets. Errors: FailedPrecondition for a guest without it. */
  seedFiles(reference: string): SeedFiles {
    const guest = this.registry.find(reference);
    const subject = seedSubject(guest);
    if (subject) return redactSeed(renderSeed(subject));
    throw new RoostError('FailedPrecondition', `Guest ${guest.name} has no cloud-init settings`, {
      data: { guest: guest.name },
      hint: 'Give it some with guest-update.',
    });
  }

  /** The command line and host objects of a start, without making anything. */
  async plan(reference: string): Promise<{ argv: string[]; objects: HostObject[] }> {
    const guest = this.registry.find(reference);
    const plan = await guest.driver.plan(plannedLaunch(guest), this.#house.stopping);
    return { argv: [...plan.argv], objects: [...portObjects(guest), ...plan.objects] };
  }

  // Start and end of the daemon

  /** Posts the first message of every mailbox; resolves when every guest has been looked at. */
  async recover(leftovers: readonly OperationRecord[], hostBooted: boolean): Promise<void> {
    const ofGuest = new Map<string, OperationRecord[]>();
    for (const operation of leftovers) {
      const { id } = operation.subject;
      ofGuest.set(id, [...(ofGuest.get(id) ?? []), operation]);
    }
    // Told apart before anything is done: a deletion that is carried on leaves no guest behind, and is no orphan.
    for (const orphan of leftovers.filter((operation) => !this.registry.byId(operation.subject.id))) {
      this.#house.operations.admitted(orphan);
      this.#house.operations.end(
        orphan.id,
        'failed',
        new RoostError('NotFound', `Guest ${orphan.subject.name} is gone`),
      );
    }
    await Promise.all(
      this.registry.everyone().map((guest) => guest.recover(ofGuest.get(guest.id) ?? [], hostBooted)),
    );
  }

  /** Puts back the rules of running guests' ports where somebody took them away; one guest after another. */
  async restorePorts(): Promise<void> {
    for (const guest of this.registry.everyone()) {
      if (this.#house.stopping.aborted) return;
      if (guest.handle && !guest.mailbox.busy) await guest.mailbox.post(() => restorePorts(guest));
    }
  }

  // For all that is asked of guests

  /** What this key was answered before, also when what it was about is gone or called otherwise by now. */
  before(kind: string, args: VerbArguments): Accepted | undefined {
    const before = this.#house.operations.repeated(args.idempotencyKey, kind, args.guest);
    return before && { operation: before.id, id: before.subject.id };
  }

  /** One durable transaction: admit, what `write` writes, the operation. After it the guest's queue. */
  async accept(
    kind: GuestVerbKind,
    guest: Guest,
    args: VerbArguments,
    actor: Actor,
    write: () => GuestRecord = () => guest.record,
    accepted: () => void = () => undefined,
  ): Promise<Accepted> {
    const { inventory, operations } = this.#house;
    const operation = await inventory.db.durably(() => {
      const repeated = operations.repeated(args.idempotencyKey, kind, args.guest);
      if (repeated) return { repeated: true, record: repeated, written: guest.record };
      this.#refuseRemoved(guest, args.guest);
      const verdict = admit(kind, guest.standing, { force: args.force === true });
      if (verdict.kind === 'deny') throw verdict.error;
      const already = verdict.kind === 'already';
      const written = already ? guest.record : write();
      return { repeated: false, record: this.#insert(kind, guest, actor, args, already), written };
    });
    if (!operation.repeated && operation.record.endedAt === undefined) {
      guest.adoptTarget(operation.written);
      guest.enqueue(operation.record);
      accepted();
    }
    return { operation: operation.record.id, id: guest.id };
  }

  // Inside

  /** Nothing for one that lives: it has its memory. Errors: ResourceExhausted with the numbers. */
  async #promiseMemory(guest: Guest): Promise<Disposable | undefined> {
    const { name, record, driver } = guest;
    return guest.isLive()
      ? undefined
      : await this.#memory.promise({ name, spec: record.spec, driver }, guest);
  }

  /** A change of the record alone: done in the accepting transaction. */
  async #apply(
    kind: 'guest-rename' | 'guest-update',
    guest: Guest,
    args: VerbArguments,
    asker: Asker,
    change: () => GuestRecord,
    changed: readonly string[],
  ): Promise<Accepted> {
    const { inventory, operations, events } = this.#house;
    const outcome = await inventory.db.durably(() => {
      const repeated = operations.repeated(args.idempotencyKey, kind, args.guest);
      if (repeated) return { operation: repeated, record: guest.record, fresh: false };
      this.#refuseRemoved(guest, args.guest);
      const verdict = admit(kind, guest.standing);
      if (verdict.kind === 'deny') throw verdict.error;
      const record = inventory.guests.update(change());
      return { operation: this.#insert(kind, guest, asker.actor, args, true), record, fresh: true };
    });
    if (outcome.fresh) {
      const saved = saveInTurn(guest, outcome.record);
      const told = { guest: guest.id, name: guest.name, actor: asker.actor, changed: [...changed] };
      events.emit({ event: 'GUEST_UPDATED', data: told });
      await saved;
    }
    return { operation: outcome.operation.id, id: guest.id };
  }

  #insert(kind: string, guest: Guest, actor: Actor, args: VerbArguments, already: boolean): OperationRecord {
    return this.#house.operations.insert({
      kind,
      subject: { kind: 'guest', id: guest.id, name: guest.name },
      actor,
      arguments: withoutCloudInitTexts(args),
      idempotencyKey: args.idempotencyKey,
      already,
    });
  }

  /** It may have gone between the look for it and the transaction. */
  #refuseRemoved(guest: Guest, reference: string): void {
    if (!guest.removed) return;
    throw new RoostError('NotFound', `There is no guest called ${reference}`, {
      data: { guest: reference },
      hint: 'query-guests lists them.',
    });
  }

  /** Errors also: Cancelled for one that somebody was given meanwhile. */
  async #endWaiting(guest: Guest, actor: Actor): Promise<Accepted> {
    const write = (): GuestRecord => {
      if (!guest.recorded().spec.waiting)
        throw new RoostError('Cancelled', `Guest ${guest.name} is somebody's by now`);
      return guest.writeTarget('stopped', actor);
    };
    return await this.accept('guest-delete', guest, { guest: guest.id, force: true }, actor, write, () =>
      guest.cancelStarts(),
    );
  }

  /** Both make the guest's run end, and both beat a start that is under way and a policy. */
  async #end(kind: 'guest-stop' | 'guest-delete', args: VerbArguments, asker: Asker): Promise<Accepted> {
    const before = this.before(kind, args);
    if (before) return before;
    const guest = this.registry.find(args.guest);
    const write = (): GuestRecord => {
      if (kind === 'guest-delete') refuseWhileForked(guest);
      const written = guest.writeTarget('stopped', asker.actor);
      // Whoever stops a template wants its memory: nobody but they makes it anew.
      const released = kind === 'guest-stop' ? asReleased(written) : undefined;
      return released ? this.#house.inventory.guests.update(released) : written;
    };
    return await this.accept(kind, guest, args, asker.actor, write, () => {
      guest.restarts.silence();
      guest.cancelStarts();
      guest.cancelDeviceWork();
      if (args.force) guest.forceNow();
    });
  }
}
