/**
 * One guest: its record, what was last seen of it, the line to its process, and the mailbox in which alone all of these
 * change. Operations wait in the mailbox; news of the process (observations, its end) come in between, synchronously
 * where they only tell of a state, and at the front of the mailbox where there is something to do.
 *
 *             guest-start                    guest-stop, the guest's own power-off
 *   stopped ─────────────▶ starting ─▶ running ─────────────▶ stopping ─▶ stopped
 *      ▲                      │          ▲ │ guest-pause, QEMU
 *      │ guest-start          ▼          │ ▼
 *      └────────────────── failed      paused          unresponsive: the monitor is silent, from any live state
 */
import type {
  Driver,
  GuestEnd,
  GuestHandle,
  GuestPlace,
  Observation,
  ObservedState,
} from '../../drivers/driver.ts';
import { Mailbox } from '../../lib/mailbox.ts';
import type { ErrorClass } from '../../protocol/errors.ts';
import type { GuestView } from '../../protocol/guest.ts';
import type { Actor, GuestId, NetworkId, OperationId } from '../../protocol/types.ts';
import type { EventLog } from '../event-log.ts';
import type { GuestRecord, GuestStatus } from '../inventory/guest-table.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import { cancelQuietly } from '../operations/cancel-quietly.ts';
import type { LeftOver } from '../operations/settle.ts';
import { AbsentDriver } from './absent-driver.ts';
import type { Standing } from './admit.ts';
import { Agent } from './agent.ts';
import { DeleteAfterEnd } from './delete-after-end.ts';
import { EventBudget } from './event-budget.ts';
import { followEnd } from './follow-end.ts';
import { freeRun } from './free-run.ts';
import { Freezing } from './freezing.ts';
import {
  isDeviceWork,
  isStart,
  LIVE_STATES,
  placeAmong,
  processOf,
  silentStatus,
  waitsForGuest,
  withoutOldSilence,
} from './guest-status.ts';
import { guestView } from './guest-view.ts';
import { endsWithHost, keepsTarget } from './host-stops.ts';
import type { House } from './house.ts';
import { endWithProgram } from './inside.ts';
import { leftUndone } from './leave-undone.ts';
import { loseFilesystem } from './lose-filesystem.ts';
import { performOperation, withdrawOperation } from './perform.ts';
import { placeOf } from './place.ts';
import { Readiness } from './readiness.ts';
import { reconcile } from './reconcile.ts';
import { Restarts } from './restarts.ts';
import { saveRecord } from './save-record.ts';
import { standingOf } from './standing.ts';
import { wrapUp } from './wrap-up.ts';

export interface GuestEvents {
  /** The restart policy wants the guest started. */
  readonly restartDue: (guest: Guest) => void;
  /** It has ended, and is to go then. */
  readonly deletionDue: (guest: Guest) => void;
  /** The guest has left the inventory. */
  readonly gone: (guest: Guest) => void;
}

export class Guest {
  readonly house: House;
  readonly driver: Driver;
  /** Name of its driver, where this daemon has none of that name. */
  readonly missingDriver: string | undefined;
  readonly mailbox = new Mailbox();
  readonly restarts: Restarts;
  readonly deletion: DeleteAfterEnd;
  readonly agent: Agent;
  readonly readiness: Readiness;
  readonly freezing: Freezing;
  /** Becomes true once the daemon has looked at the process after its own start. */
  reconciled = false;
  /** How the process was found when the daemon started; for operations that an earlier daemon left. */
  found: NonNullable<LeftOver['process']> = 'gone';
  handle: GuestHandle | undefined;
  removed = false;
  /** The operation of another guest that has this one's turn. */
  heldBy: OperationId | undefined;
  /** Names of devices that are promised to requests which are being accepted. */
  readonly reservedNames = new Map<'disk' | 'nic', Set<string>>();
  /** Why the guest left the inventory, for those who still wait in its queue. */
  removal: { readonly why: string; readonly as: ErrorClass } = { why: 'it was deleted', as: 'NotFound' };
  /** Operations that were accepted before the host was booted. */
  #beforeBoot: ReadonlySet<OperationId> = new Set();
  #record: GuestRecord;
  #status: GuestStatus;
  /** When the question was asked whose answer is the newest word on its state, in milliseconds since the epoch. */
  #askedAt = 0;
  #unfinished: OperationRecord[] = [];
  #view: GuestView | undefined;
  readonly #observers = new Set<() => void>();
  #forced: (() => void) | undefined;
  readonly #tell: GuestEvents;
  readonly #eventBudget = new EventBudget();

  constructor(house: House, driver: Driver, record: GuestRecord, status: GuestStatus, tell: GuestEvents) {
    this.house = house;
    this.driver = driver;
    this.missingDriver = driver instanceof AbsentDriver ? driver.name : undefined;
    this.#record = record;
    this.#status = status;
    this.#tell = tell;
    this.agent = new Agent(this, () => {
      this.#changed();
      this.readiness.heardAgent();
      this.freezing.heardAgent();
    });
    this.restarts = new Restarts(this, () => tell.restartDue(this));
    this.deletion = new DeleteAfterEnd(this, () => tell.deletionDue(this));
    this.readiness = new Readiness(this);
    this.freezing = new Freezing(this);
  }

  get id(): GuestId {
    return this.#record.id;
  }

  get name(): string {
    return this.#record.name;
  }

  get record(): GuestRecord {
    return this.#record;
  }

  get status(): GuestStatus {
    return this.#status;
  }

  /** As told; what is recorded of a guest without a driver stays for a daemon that has it. */
  get state(): GuestView['state'] {
    return this.missingDriver === undefined ? this.#status.state : 'unknown';
  }

  get unfinished(): readonly OperationRecord[] {
    return this.#unfinished;
  }

  get place(): GuestPlace {
    return placeOf(this.house, this.#record);
  }

  /** Whether it is nobody's yet: it is not listed, and nothing is told of it. */
  get isWaiting(): boolean {
    return this.#record.spec.waiting !== undefined;
  }

  get standing(): Standing {
    return standingOf(this);
  }

  get view(): GuestView {
    // A template tells of others that come and go.
    if (this.#record.spec.template) this.#view = undefined;
    this.#view ??= guestView(
      {
        record: this.#record,
        status: this.#status,
        missingDriver: this.missingDriver,
        stale: !this.reconciled,
        agent: this.agent.view,
        operation: this.#operationView(),
        waiting: this.#record.spec.template ? this.house.waiting.readyOf(this.id) : 0,
      },
      (id: NetworkId) => this.house.networks.byId(id).name,
    );
    return this.#view;
  }

  /** Calls back after each change of what is recorded or seen, until the returned function is called. */
  onChange(observer: () => void): () => void {
    this.#observers.add(observer);
    return () => this.#observers.delete(observer);
  }

  #changed(): void {
    this.#view = undefined;
    for (const observer of this.#observers) observer();
  }

  /** The record as committed; `saveRecord` is to follow where more than the target has changed. */
  setRecord(record: GuestRecord): void {
    const isNew = record.spec.deleteAfterEndMs !== this.#record.spec.deleteAfterEndMs;
    this.#record = record;
    this.#changed();
    if (isNew) this.deletion.arm();
  }

  /**
   * In a transaction: the record as it stands there. Others of the same commit may have changed it already, and `record`
   * follows only after the commit.
   */
  recorded(): GuestRecord {
    return this.house.inventory.guests.byId(this.id) ?? this.#record;
  }

  /** In a transaction: writes what is asked for. `adoptTarget` follows after the commit. */
  writeTarget(target: GuestRecord['target'], actor: Actor): GuestRecord {
    const record = this.recorded();
    if (record.target === target && record.targetActor === actor) return record;
    return this.house.inventory.guests.update({ ...record, target, targetActor: actor });
  }

  /** Takes over a record as `writeTarget` gave it, and tells. */
  adoptTarget(record: GuestRecord): void {
    const before = this.#record;
    if (record.generation <= before.generation) return;
    this.setRecord(record);
    if (record.target === before.target && record.targetActor === before.targetActor) return;
    // Whoever asked for it was accepted, whether or not it can be told for now.
    this.house.operations.recordNews(`the target of guest ${this.name}`, () =>
      this.house.events.emit({
        event: 'GUEST_TARGET_CHANGED',
        data: { guest: this.id, name: this.name, target: record.target, actor: record.targetActor },
      }),
    );
  }

  setTarget(target: GuestRecord['target'], actor: Actor): void {
    this.adoptTarget(this.house.inventory.db.soon(() => this.writeTarget(target, actor)));
  }

  /** Writes what was seen, and tells when the state changed. `reason: undefined` clears it. */
  setStatus(change: { readonly [K in keyof GuestStatus]?: GuestStatus[K] | undefined }): void {
    const before = this.#status;
    const merged = { ...before, observedAt: this.house.clock.now(), ...change };
    const status = Object.fromEntries(
      Object.entries(merged).filter(([, value]) => value !== undefined),
    ) as unknown as GuestStatus;
    this.#status = withoutOldSilence(status);
    this.#changed();
    if (this.removed) return;
    this.house.inventory.db.soon(() => this.house.inventory.guests.writeStatus(this.id, this.#status));
    if (status.state === before.state && status.reason === before.reason) return;
    this.tell({
      event: 'GUEST_STATE_CHANGED',
      data: {
        guest: this.id,
        name: this.name,
        from: before.state,
        to: status.state,
        ...(status.reason === undefined ? {} : { reason: status.reason }),
      },
    });
  }

  /** Tells of it, unless it is nobody's. */
  tell(...told: Parameters<EventLog['emit']>): void {
    if (!this.isWaiting) this.house.events.emit(...told);
  }

  /** It has waited until now, and is from now on the guest that somebody asked for; both are committed. */
  becomeAsked(record: GuestRecord, status: GuestStatus): void {
    this.#record = record;
    this.#status = status;
    this.#changed();
    this.readiness.begin(status.process?.startedAt);
  }

  markReconciled(): void {
    this.reconciled = true;
    this.#changed();
  }

  /** Takes an accepted operation into the queue. */
  enqueue(operation: OperationRecord): void {
    this.#unfinished.push(operation);
    this.#changed();
    this.house.operations.admitted(operation, () => {
      withdrawOperation(this, operation.id);
      this.#leaveQueue(operation.id);
    });
    this.mailbox
      .post(() => performOperation(this, operation.id))
      .catch((error: unknown) => this.house.operations.unrecorded(operation.id, error))
      .finally(() => this.#leaveQueue(operation.id));
  }

  #leaveQueue(id: OperationId): void {
    this.#unfinished = this.#unfinished.filter((each) => each.id !== id);
    this.#changed();
    // What was to follow may have been cancelled.
    this.deletion.arm();
  }

  placeInQueue(id: OperationId): ReturnType<typeof placeAmong> {
    return placeAmong(this.#unfinished, id, this.heldBy);
  }

  /** Cancels a start that is under way, and every one that waits. */
  cancelStarts(): void {
    this.#cancelEvery(isStart);
  }

  /** Cancels the change of a device that is under way: it may wait for the guest, which is about to end. */
  cancelDeviceWork(): void {
    const [current] = this.#unfinished;
    if (current && isDeviceWork(current.kind)) cancelQuietly(this.house.operations, current.id);
  }

  /** Cancels everything but one operation; what cannot be cancelled goes on to its end. */
  cancelAllBut(kept: OperationId): void {
    this.#cancelEvery((_kind, id) => id !== kept);
  }

  /** Whoever waits for the guest is to wait no longer, and whoever was to: an end by force comes behind them. */
  forceNow(): void {
    this.#forced?.();
    this.#cancelEvery(waitsForGuest);
    // A template is made of it while it runs.
    if (this.heldBy !== undefined && this.isLive()) cancelQuietly(this.house.operations, this.heldBy);
  }

  /** Resolves when somebody wants what is under way to wait no longer for the guest. */
  forced(): Promise<void> {
    return new Promise((resolve) => {
      this.#forced = resolve;
    });
  }

  // The process

  /** Takes charge of a live process, also while nothing can be recorded: what it is, it tells again. */
  take(handle: GuestHandle): void {
    this.handle = handle;
    this.house.operations.recordNews('the process of a guest', () =>
      this.setStatus({ process: processOf(this.#status.process, handle, this.house.clock.now()) }),
    );
    this.agent.took(handle);
    if (!this.isWaiting) this.readiness.begin();
    this.freezing.begin();
    followEnd(this, handle);
  }

  readonly observe = (observation: Observation, cursor: number): void =>
    this.house.operations.recordNews('what a guest did', () => this.#observe(observation, cursor));

  #observe(observation: Observation, cursor: number): void {
    if (this.removed) return;
    switch (observation.kind) {
      case 'state':
        if (observation.at >= this.#askedAt) this.#observeState(observation.observed, cursor);
        else {
          // The last answer knew of it: taken for new it would have a guest paused that runs. Clocks are set back, too.
          this.setStatus({ cursor });
          void this.mailbox.post(() => this.lookAgain());
        }
        return;
      case 'guest-shutdown':
        this.setStatus({ cursor, state: 'stopping', reason: undefined });
        this.shutItselfDown((this.#status.process?.programEnd?.exitCode ?? 0) !== 0);
        return;
      case 'agent':
        this.setStatus({ cursor });
        this.agent.opened(observation.isOpen, observation.at);
        return;
      case 'filesystem-lost':
        return loseFilesystem(this, observation);
      case 'driver-event':
        this.#observeDriverEvent(observation, cursor);
        return;
      case 'program-ended':
        return endWithProgram(this, observation);
      case 'silent':
        this.setStatus(silentStatus(this.#status, observation));
        return;
      case 'heard':
        void this.mailbox.post(() => this.lookAgain(), { front: true });
        return;
    }
  }

  /** Finds out what became of a process of which nothing could be told before. In the mailbox. */
  async lookForProcess(): Promise<void> {
    if (this.removed || this.handle || this.#status.state !== 'unknown') return;
    await reconcile(this, [], false);
  }

  /** Asks the process for its state; a silent one is the driver's to report. */
  async lookAgain(): Promise<void> {
    const { handle } = this;
    if (!handle) return;
    const askedAt = this.house.clock.now();
    try {
      const observed = await handle.queryState(this.house.stopping);
      this.#askedAt = askedAt;
      this.#observeState(observed, this.#status.cursor);
    } catch (err) {
      this.house.log.debug({ err, guest: this.name }, 'state could not be asked');
    }
  }

  /**
   * After the process is gone: frees what its run had, writes how it ended, and lets the policy decide. In the mailbox.
   */
  async wrapUp(end: GuestEnd): Promise<void> {
    await wrapUp(this, end);
    // Nobody wants one that has waited until its end.
    if (this.isWaiting && this.#unfinished.length === 0) this.#tell.deletionDue(this);
  }

  /**
   * Frees ports, sockets and ledger rows of a run whose process is gone. May be done again. Resolves with what could not
   * be freed: its rows stay.
   */
  async freeRun(): Promise<readonly string[]> {
    return await freeRun(this);
  }

  /** Writes it beside the disks. In the mailbox. */
  async saveRecord(): Promise<void> {
    if (!this.removed) await saveRecord(this);
  }

  /** Leaves the inventory; whoever still waits in the queue is told why, with the class of what led to it. */
  remove(why = this.removal.why, as: ErrorClass = 'NotFound'): void {
    this.removed = true;
    this.removal = { why, as };
    this.restarts.silence();
    this.deletion.end();
    this.readiness.end();
    this.freezing.end();
    this.#tell.gone(this);
    this.#changed();
  }

  // Recovery

  /**
   * The first message of the mailbox after a start of the daemon: finds out what became of the process; behind it, in
   * their order, the operations that were left.
   */
  recover(leftovers: readonly OperationRecord[], hostBooted: boolean): Promise<void> {
    if (hostBooted) this.#beforeBoot = new Set(leftovers.map((operation) => operation.id));
    const looked = this.mailbox.post(() => reconcile(this, leftovers, hostBooted));
    for (const operation of leftovers) if (!leftUndone(this, operation)) this.enqueue(operation);
    return looked;
  }

  hostBootedBefore(operation: OperationRecord): boolean {
    return this.#beforeBoot.has(operation.id);
  }

  isLive(): boolean {
    return (
      this.handle !== undefined || LIVE_STATES.has(this.#status.state) || this.#status.process !== undefined
    );
  }

  #observeDriverEvent(seen: Extract<Observation, { kind: 'driver-event' }>, cursor: number): void {
    if (seen.event === 'RESET') this.readiness.reset(seen.at);
    if (!this.#eventBudget.admits(seen.at)) {
      // Not worth a write: at worst the next daemon passes over it again.
      this.#status = { ...this.#status, cursor };
      return;
    }
    this.setStatus({ cursor });
    const tell = (event: string, data: object): void =>
      this.tell(
        {
          event: 'GUEST_DRIVER_EVENT',
          data: { guest: this.id, name: this.name, event, data: JSON.parse(JSON.stringify(data)) },
        },
        seen.at,
      );
    const skipped = this.#eventBudget.takeSkipped();
    if (skipped > 0) tell('ROOST_EVENTS_SKIPPED', { count: skipped });
    tell(seen.event, seen.data);
  }

  #observeState(observed: ObservedState, cursor: number): void {
    const running = this.#unfinished[0];
    const current = running === undefined ? undefined : this.house.operations.record(running.id);
    const underWay = current?.state === 'running' ? current.kind : undefined;
    const held =
      (underWay === 'guest-stop' || underWay === 'guest-delete') &&
      this.#status.state === 'stopping' &&
      observed.state !== 'failed';
    const starts = underWay !== undefined && isStart(underWay);
    const early = starts && observed.state !== 'running' && this.#status.state === 'starting';
    if (held || early) this.setStatus({ cursor });
    // Its CPUs stand still since the launch, and nothing is about to let them go.
    else if (observed.state === 'starting' && !starts)
      this.setStatus({ cursor, state: 'paused', reason: 'user' });
    else this.setStatus({ cursor, state: observed.state, reason: this.#reasonOf(observed) });
  }

  /** One that is kept for others stands still, and that is why. */
  #reasonOf({ state, reason }: ObservedState): string | undefined {
    const { template, waiting } = this.#record.spec;
    if (state !== 'paused') return reason;
    if (waiting) return 'waiting';
    return template && template.remadeBy === undefined ? 'template' : reason;
  }

  /** What is asked of it follows, unless it is to run all the same. */
  shutItselfDown(programFailed = false): void {
    const withHost = endsWithHost(this.#unfinished, this.house.operations);
    if (!keepsTarget(this.#record, { withHost, programFailed })) this.setTarget('stopped', 'guest');
  }

  #operationView(): { id: OperationId; kind: string; queued: number } | undefined {
    const current = this.#unfinished[0];
    return current && { id: current.id, kind: current.kind, queued: this.#unfinished.length - 1 };
  }

  #cancelEvery(fits: (kind: string, id: OperationId) => boolean): void {
    for (const { kind, id } of this.#unfinished) if (fits(kind, id)) cancelQuietly(this.house.operations, id);
  }
}
