/**
 * What is asked of guests is accepted here. Accepting is one durable transaction (what is asked for, the operation, the
 * ledger rows of its plan); the guest's mailbox does the rest.
 */
import { randomUUID } from 'node:crypto';
import type { SeedFiles } from '../../protocol/cloud-init.ts';
import type { CommandArguments } from '../../protocol/commands.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { HostObject } from '../../protocol/host-object.ts';
import type { Accepted } from '../../protocol/operation.ts';
import type { Actor, GuestId, Role } from '../../protocol/types.ts';
import { withoutCloudInitTexts } from '../cloud-init/change-cloud-init.ts';
import { checkSeed } from '../cloud-init/check-seed.ts';
import { redactSeed } from '../cloud-init/redact.ts';
import { renderSeed } from '../cloud-init/render-seed.ts';
import type { GuestRecord, StoredNic, StoredSpec } from '../inventory/guest-table.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import { admit, type GuestVerbKind } from './admit.ts';
import { allocateNic, busyPorts } from './allocate-nic.ts';
import { changeSpec, specToRepin } from './change-spec.ts';
import { dropSeed } from './drop-seed.ts';
import type { Guest } from './guest.ts';
import { hostStops } from './host-stops.ts';
import type { House } from './house.ts';
import { existenceObjects, plannedLaunch, portObjects, recordRun, seedSubject } from './launch-of.ts';
import { MemoryPromises } from './memory-promises.ts';
import { Policies } from './policies.ts';
import { restorePorts } from './reconcile.ts';
import { GuestRegistry } from './registry.ts';
import { resolveProgram } from './resolve-program.ts';
import { resolveBoot, resolveSpec, specToPin } from './resolve-spec.ts';
import { saveInTurn } from './save-record.ts';

/** Who asks: the actor for the record, the role for what only administrators may. */
export interface Asker {
  readonly actor: Actor;
  readonly role: Role;
}

export interface GuestsOptions {
  readonly house: House;
  /** Memory kept for the host itself. */
  readonly memoryReserveBytes: number;
}

type VerbArguments = {
  readonly guest: string;
  readonly cloudInit?: object | null | undefined;
  readonly force?: boolean;
  readonly idempotencyKey?: string | undefined;
};

type Warned = Accepted & { readonly warnings?: string[] };
const warned = (accepted: Accepted, warnings: string[]): Warned =>
  warnings.length === 0 ? accepted : { ...accepted, warnings };

export class Guests {
  readonly registry: GuestRegistry;
  readonly policies: Policies;
  readonly #house: House;
  readonly #memory: MemoryPromises;

  constructor(options: GuestsOptions) {
    this.#house = options.house;
    this.registry = new GuestRegistry(options.house, (guest) => void this.policies.restart(guest));
    this.policies = new Policies(options.house, this.registry, (guest, actor) =>
      this.start({ guest: guest.id, paused: false }, { actor, role: 'admin' }),
    );
    this.#memory = new MemoryPromises(this.registry, options.memoryReserveBytes);
  }

  async create(args: CommandArguments<'guest-create'>, asker: Asker): Promise<Warned> {
    const warnings = checkSeed(args.cloudInit ?? {});
    return warned(await this.#create(args, asker), warnings);
  }

  async update(args: CommandArguments<'guest-update'>, asker: Asker): Promise<Warned> {
    const warnings = checkSeed(args.cloudInit ?? {});
    return warned(await this.#update(args, asker), warnings);
  }

  async #create(args: CommandArguments<'guest-create'>, asker: Asker): Promise<Accepted> {
    const { inventory, operations } = this.#house;
    const { start, idempotencyKey, ...spec } = args;
    const before = operations.repeated(idempotencyKey, 'guest-create', spec.name);
    if (before) return this.#createdBefore(before, start);
    if (start) this.#refuseWhileHostStops();
    this.#refuseTaint(spec.qemu.extraArgs, asker);
    this.#refuseTakenName(spec.name);
    const resolved = resolveSpec(spec, this.#house, await resolveProgram(spec, this.#house.images));
    const driver = this.registry.driverOf(spec);
    const id = randomUUID() as GuestId;
    const machine = await driver.pin(specToPin(spec, resolved), id, this.#house.stopping);
    const busy = await busyPorts(resolved.nics, this.#house);
    using _promised = start
      ? await this.#memory.promise({ name: spec.name, spec: resolved, driver })
      : undefined;

    const outcome = await inventory.db.durably(() => {
      const repeated = operations.repeated(idempotencyKey, 'guest-create', spec.name);
      if (repeated) return { kind: 'repeated', operation: repeated } as const;
      this.#refuseTakenName(spec.name);
      const stored = this.#allocate(spec.name, resolved, busy);
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
      const guest = this.registry.created(record);
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
    this.registry.add(guest);
    guest.enqueue(creation);
    if (starting) guest.enqueue(starting);
    return { operation: (starting ?? creation).id, id };
  }

  async start(args: CommandArguments<'guest-start'>, asker: Asker): Promise<Accepted> {
    const before = this.before('guest-start', args);
    if (before) return before;
    this.#refuseWhileHostStops();
    const guest = this.registry.find(args.guest);
    using _promised = guest.isLive()
      ? undefined
      : await this.#memory.promise(
          { name: guest.name, spec: guest.record.spec, driver: guest.driver },
          guest,
        );
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
        if (args.newName !== before) this.#refuseTakenName(args.newName);
        return { ...record, name: args.newName };
      },
      ['name'],
    );
    this.registry.renamed(guest, before);
    return accepted;
  }

  async #update(args: CommandArguments<'guest-update'>, asker: Asker): Promise<Accepted> {
    const { guest: reference, idempotencyKey: _key, boot, ...rest } = args;
    const repeated = this.before('guest-update', args);
    if (repeated) return repeated;
    const guest = this.registry.find(reference);
    this.#refuseTaint(rest.qemu?.extraArgs, asker);
    const changes = { ...rest, boot: boot && resolveBoot(boot, this.#house) };
    const wanted = changeSpec(guest.record.spec, changes);
    // Settings that are no matter of the machine can be changed also while its binary is missing.
    const machine =
      rest.cpu === undefined &&
      rest.qemu === undefined &&
      rest.agent === undefined &&
      rest.memoryBytes === undefined &&
      (wanted.cloudInit === undefined || guest.record.spec.cloudInit !== undefined)
        ? guest.record.machine
        : await guest.driver.repin(
            specToRepin(guest.name, guest.record.machine.type, wanted),
            guest.record.machine,
            this.#house.stopping,
          );
    const changed = Object.entries(changes).flatMap(([member, value]) =>
      value === undefined ? [] : [member],
    );
    const change = (): GuestRecord => {
      const record = guest.recorded();
      const spec = changeSpec(record.spec, changes);
      this.#requireImages(spec);
      const { type, cpuModel } = machine;
      // Devices may have come or gone since it was pinned; what is new among the settings comes with the change.
      const settings = { ...machine.settings, ...record.machine.settings };
      return { ...record, spec, machine: { ...record.machine, type, cpuModel, settings } };
    };
    const accepted = await this.#apply('guest-update', guest, args, asker, change, changed);
    if (changes.cloudInit === null) void guest.mailbox.post(() => dropSeed(guest));
    return accepted;
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
      this.registry.all().map((guest) => guest.recover(ofGuest.get(guest.id) ?? [], hostBooted)),
    );
  }

  /** Puts back the rules of running guests' ports where somebody took them away; one guest after another. */
  async restorePorts(): Promise<void> {
    for (const guest of this.registry.all()) {
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
    this.#requireImages(spec);
    const nics: StoredNic[] = [];
    for (const nic of spec.nics)
      nics.push(allocateNic(this.#house, nic, { name, others: nics, busyPorts: busy }));
    return { ...spec, nics };
  }

  /** In the transaction that begins to use them: one that is being deleted is not to be had any more. */
  #requireImages(spec: StoredSpec): void {
    const booted = spec.boot.kind === 'kernel' ? [spec.boot.kernel, spec.boot.initrd] : [];
    for (const image of [...booted, ...[...spec.disks, ...spec.cdroms].map((disk) => disk.image)])
      if (image !== undefined) this.#house.images.require(image);
  }

  /** It may have gone between the look for it and the transaction. */
  #refuseRemoved(guest: Guest, reference: string): void {
    if (!guest.removed) return;
    throw new RoostError('NotFound', `There is no guest called ${reference}`, {
      data: { guest: reference },
      hint: 'query-guests lists them.',
    });
  }

  #refuseWhileHostStops(): void {
    if (!hostStops(this.#house.operations)) return;
    throw new RoostError('FailedPrecondition', 'The host is being shut down: no guest is started', {
      hint: 'Start it after the boot; or wait until host-shutdown-guests has ended, if the host stays.',
    });
  }

  #refuseTakenName(name: string): void {
    if (this.#house.inventory.guests.idByName(name) === undefined) return;
    throw new RoostError('AlreadyExists', `There is a guest called ${name}`, {
      data: { name },
      hint: 'Choose another name.',
    });
  }

  #refuseTaint(extraArgs: readonly unknown[] | undefined, asker: Asker): void {
    if (!extraArgs?.length || asker.role === 'admin') return;
    throw new RoostError('PermissionDenied', 'Extra arguments for QEMU are for administrators only', {
      hint: 'Use the socket of the daemon, or a token with the role admin.',
    });
  }

  /** Both make the guest's run end, and both beat a start that is under way and a policy. */
  async #end(kind: 'guest-stop' | 'guest-delete', args: VerbArguments, asker: Asker): Promise<Accepted> {
    const before = this.before(kind, args);
    if (before) return before;
    const guest = this.registry.find(args.guest);
    const write = (): GuestRecord => guest.writeTarget('stopped', asker.actor);
    return await this.accept(kind, guest, args, asker.actor, write, () => {
      guest.restarts.silence();
      guest.cancelStarts();
      guest.cancelDeviceWork();
      if (args.force) guest.forceNow();
    });
  }
}
