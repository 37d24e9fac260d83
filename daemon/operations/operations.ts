/**
 * Operations: accepted work, its journal, its waiters. An operation is inserted in the transaction that accepts it;
 * its owner (a guest's mailbox, the images, the networks) later hands it to `run`. Every change of an operation goes
 * through here, so the journal and the events tell the same story.
 */
import { uuidv7 } from 'uuidv7';
import { waitOrAbort } from '../../lib/abort.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import { daemonStopping, RoostError, toRoostError } from '../../protocol/errors.ts';
import { isEnded, type OperationJournal, type OperationView } from '../../protocol/operation.ts';
import type { Actor, OperationId } from '../../protocol/types.ts';
import type { EventLog } from '../event-log.ts';
import type { Inventory } from '../inventory/inventory.ts';
import type { OperationQuery, OperationRecord, StepRecord } from '../inventory/operation-table.ts';
import { cancelled, type Stepping, StepRunner } from './step-runner.ts';
import type { Step, StepObserver } from './steps.ts';

export interface NewOperation {
  readonly kind: string;
  readonly subject: OperationRecord['subject'];
  readonly actor: Actor;
  readonly arguments: Readonly<Record<string, unknown>>;
  readonly idempotencyKey?: string | undefined;
  readonly deadlineAt?: number;
  /** True when there is nothing to do: recorded as succeeded at once. */
  readonly already?: boolean;
}

/** Where an operation stands among those of its subject. */
export type QueuePlace = (
  operation: OperationId,
) => { readonly position: number; readonly waitsFor?: OperationId; readonly waitingFor?: string } | undefined;

interface Live extends Stepping {
  record: OperationRecord;
  readonly ended: Promise<OperationRecord>;
  readonly resolve: (record: OperationRecord) => void;
  readonly withdraw: (() => void) | undefined;
  /** What its waiters were told that it failed of, while the journal took no writes. */
  told?: RoostError;
}

/** At what pace the end of an operation is written again while the journal takes no writes. */
const RETRY_MS = 1_000;

/** The journal cannot be written for now: its disk is full, or fails. */
const isRefusal = (error: unknown): error is RoostError =>
  error instanceof RoostError && (error.class === 'ResourceExhausted' || error.class === 'HostError');

export type EndState = 'succeeded' | 'failed' | 'cancelled';
/**
 * Runs in the transaction that records the end; its value is the operation's result. `clean` is false when an undo
 * failed: what it should have removed may be on the host still, so its ledger rows have to stay.
 */
export type Finish = (state: EndState, clean: boolean) => Readonly<Record<string, unknown>> | undefined;

export interface RunOptions {
  readonly finish?: Finish;
  /** False for work that cannot be taken back once begun; cancelling it has no effect then. */
  readonly cancellable?: boolean;
}

export interface OperationsOptions {
  readonly inventory: Inventory;
  readonly events: EventLog;
  readonly clock: Clock;
  readonly log: Log;
  readonly observeStep?: StepObserver | undefined;
}

/** A step as clients see it; what it did to the host is the journal's to tell. */
const stepView = ({ name, state, startedAt, endedAt }: StepRecord): OperationView['steps'][number] => ({
  name,
  state,
  ...(startedAt === undefined ? {} : { startedAt }),
  ...(endedAt === undefined ? {} : { endedAt }),
});

/** The result of an operation, with what its steps said besides. */
const withWarnings = (
  state: EndState,
  result: ReturnType<Finish>,
  { warnings }: Stepping,
): ReturnType<Finish> =>
  state === 'succeeded' && warnings.size > 0 ? { ...result, warnings: [...warnings] } : result;

export class Operations {
  readonly #inventory: Inventory;
  readonly #events: EventLog;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #runner: StepRunner;
  readonly #live = new Map<OperationId, Live>();
  readonly #queuePlaces: QueuePlace[] = [];
  #sequence: number;

  constructor(options: OperationsOptions) {
    this.#inventory = options.inventory;
    this.#events = options.events;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#runner = new StepRunner({
      ...options,
      onBegun: (record, step) => this.#announce(record, step),
    });
    this.#sequence = options.inventory.operations.highestSequence();
  }

  /** Who knows a queue; of several that know an operation the first is asked. */
  addQueuePlace(place: QueuePlace): void {
    this.#queuePlaces.push(place);
  }

  /**
   * The operation that this key was used for before. Errors: InvalidArgument when it was for another command or subject.
   * To be called in the accepting transaction.
   */
  repeated(key: string | undefined, kind: string, subjectName?: string): OperationRecord | undefined {
    if (key === undefined) return undefined;
    const before = this.#inventory.operations.byKey(key);
    if (!before) return undefined;
    if (
      before.kind !== kind ||
      (subjectName !== undefined && ![before.subject.name, before.subject.id].includes(subjectName))
    )
      throw new RoostError(
        'InvalidArgument',
        `The idempotency key was used before for ${before.kind} of ${before.subject.name}`,
        {
          data: { operation: before.id, kind: before.kind },
          hint: 'Use a fresh key for every new request.',
        },
      );
    return before;
  }

  /** Writes a new operation down. To be called in the accepting transaction; `admitted` follows after the commit. */
  insert(operation: NewOperation): OperationRecord {
    const now = this.#clock.now();
    this.#sequence += 1;
    const record: OperationRecord = {
      id: uuidv7() as OperationId,
      sequence: this.#sequence,
      kind: operation.kind,
      subject: operation.subject,
      actor: operation.actor,
      state: operation.already ? 'succeeded' : 'queued',
      arguments: operation.arguments,
      ...(operation.idempotencyKey === undefined ? {} : { idempotencyKey: operation.idempotencyKey }),
      ...(operation.deadlineAt === undefined ? {} : { deadlineAt: operation.deadlineAt }),
      cancelRequested: false,
      createdAt: now,
      ...(operation.already ? { endedAt: now } : {}),
    };
    this.#inventory.operations.insert(record);
    return record;
  }

  /**
   * The daemon stops: whatever runs lets go where it is, unrecorded, as after a crash; the next daemon takes it up.
   */
  suspend(): void {
    this.#runner.suspend();
    for (const live of this.#live.values()) live.controller.abort(daemonStopping());
  }

  /**
   * Makes an accepted operation live: it can be waited for and cancelled. `withdraw` ends it for its owner when it is
   * cancelled before its turn has come. False when it has ended or is live already, as one whose key was used again:
   * then there is nothing to do.
   */
  admitted(record: OperationRecord, withdraw?: () => void): boolean {
    if (isEnded(record.state) || this.#live.has(record.id)) return false;
    let resolve: (record: OperationRecord) => void = () => undefined;
    const ended = new Promise<OperationRecord>((settle) => {
      resolve = settle;
    });
    const steps = [...this.#inventory.operations.steps(record.id)];
    const controller = new AbortController();
    this.#live.set(record.id, { record, steps, controller, warnings: new Set(), ended, resolve, withdraw });
    this.#announce(record);
    return true;
  }

  /** Aborts when somebody cancels the operation. */
  signalOf(id: OperationId): AbortSignal {
    return this.#required(id).controller.signal;
  }

  /** Whether there is an operation of this description that has not ended. */
  isUnderWay(fits: (record: OperationRecord) => boolean): boolean {
    for (const { record } of this.#live.values()) if (fits(record)) return true;
    return false;
  }

  record(id: OperationId): OperationRecord | undefined {
    return this.#live.get(id)?.record ?? this.#inventory.operations.byId(id);
  }

  /**
   * Does the steps. Resolves with the ended record whether it went well or not. While the journal takes no writes the
   * steps are undone; whoever waits for the operation is told, and its end is written as soon as that is possible.
   */
  async run(id: OperationId, steps: readonly Step[], options: RunOptions = {}): Promise<OperationRecord> {
    if (this.#runner.suspended) throw daemonStopping();
    const live = this.#required(id);
    const failure =
      this.#refusalOf(live, { state: 'running', startedAt: live.record.startedAt ?? this.#clock.now() }) ??
      (await this.#runner.doAll(live, steps, options.cancellable ?? true));
    if (failure !== undefined) return await this.undo(id, steps, failure, options);
    return await this.endWhenRecorded(id, 'succeeded', undefined, options.finish);
  }

  /** Takes back every step that may have been begun, the last first, and records the failure. */
  async undo(
    id: OperationId,
    steps: readonly Step[],
    failure: RoostError,
    options: RunOptions = {},
  ): Promise<OperationRecord> {
    if (this.#runner.suspended) throw daemonStopping();
    const live = this.#required(id);
    // With the reason, so that a daemon that finishes the undoing knows it.
    this.#refusalOf(live, { state: 'undoing', error: failure.toWire() });
    const undoFailures = await this.#runner.undoAll(live, steps);
    const error =
      undoFailures.length === 0
        ? failure
        : new RoostError(failure.class, failure.message, {
            data: { ...failure.data, undoFailures: [...undoFailures] },
            ...(failure.hint === undefined ? {} : { hint: failure.hint }),
            cause: failure,
          });
    const state = failure.class === 'Cancelled' ? 'cancelled' : 'failed';
    return await this.endWhenRecorded(id, state, error, options.finish, undoFailures.length === 0);
  }

  /** Records the end and tells the waiters. */
  end(id: OperationId, state: EndState, error?: RoostError, finish?: Finish): OperationRecord {
    const live = this.#required(id);
    try {
      return this.#recordEnd(live, state, error, finish);
    } catch (unrecorded) {
      this.unrecorded(id, unrecorded);
      return live.record;
    }
  }

  /**
   * The same, in the turn of its subject, which is held until it is recorded: nothing else happens to the subject that
   * would not know of it. Nothing tells when a disk takes writes again, so it is tried. Errors: Unavailable when the
   * daemon stops before.
   */
  async endWhenRecorded(
    id: OperationId,
    state: EndState,
    error?: RoostError,
    finish?: Finish,
    clean = true,
  ): Promise<OperationRecord> {
    const live = this.#required(id);
    try {
      return await this.untilRecorded(
        () => this.#recordEnd(live, state, error, finish, clean),
        (refusal) => void this.#tellUnrecorded(live, refusal),
      );
    } catch (unrecorded) {
      if (this.#runner.suspended) throw unrecorded;
      this.unrecorded(id, unrecorded);
      return live.record;
    }
  }

  #recordEnd(
    live: Live,
    state: EndState,
    error?: RoostError,
    finish: Finish = () => undefined,
    clean = true,
  ): OperationRecord {
    const { record, steps } = live;
    const { operations, db } = this.#inventory;
    try {
      db.soon(() => {
        const result = withWarnings(state, finish(state, clean), live);
        if (live.isBehind)
          for (const [place, step] of steps.entries()) operations.writeStep(record.id, place, step);
        this.#write(live, {
          state,
          endedAt: this.#clock.now(),
          ...(error === undefined ? {} : { error: error.toWire() }),
          ...(result === undefined ? {} : { result }),
        });
      });
    } catch (unrecorded) {
      live.record = record;
      throw unrecorded;
    }
    this.#live.delete(record.id);
    live.resolve(live.record);
    return live.record;
  }

  /**
   * The journal could not be written, so an operation stands still. Nobody waits for ever; the journal still says that it
   * is unfinished, so the next daemon takes it up. While the daemon stops that is as it should be.
   */
  unrecorded(id: OperationId, error: unknown): void {
    const live = this.#live.get(id);
    if (!live || this.#runner.suspended) return;
    live.record = this.#tellUnrecorded(live, error);
    this.#live.delete(id);
  }

  /** Whoever waits for it is told that it failed; the first time counts. */
  #tellUnrecorded(live: Live, error: unknown): OperationRecord {
    const { record } = live;
    const failure = live.told ?? toRoostError(error);
    const endedAt = this.#clock.now();
    const told: OperationRecord = { ...record, state: 'failed', endedAt, error: failure.toWire() };
    if (live.told) return told;
    live.told = failure;
    this.#log.error({ err: error, operation: record.id }, 'an operation could not be recorded');
    live.resolve(told);
    this.#tellThoseBehind(record, error);
    return told;
  }

  /** Those that wait for the same turn would wait as long as the disk takes no writes: they fail of it, and are not done. */
  #tellThoseBehind({ id, subject }: OperationRecord, error: unknown): void {
    for (const other of this.#live.values())
      if (other.record.id !== id && other.record.subject.id === subject.id && other.record.state === 'queued')
        this.#tellUnrecorded(other, error);
  }

  /** What the waiters of an operation were told that it failed of before its turn has come: it is not to be done. */
  toldBefore(id: OperationId): RoostError | undefined {
    return this.#live.get(id)?.told;
  }

  /** Does what has to be recorded, again and again until the journal takes it. Errors: Unavailable when the daemon stops. */
  async untilRecorded<T>(
    work: () => T | Promise<T>,
    onRefusal: (error: RoostError) => void = () => undefined,
  ): Promise<T> {
    for (;;) {
      try {
        return await work();
      } catch (error) {
        if (!isRefusal(error)) throw error;
        onRefusal(error);
        await this.#runner.pause(RETRY_MS);
      }
    }
  }

  /** Does what writes down news that nobody waits for. What is not taken for now is told by the log alone. */
  recordNews(what: string, work: () => void): void {
    try {
      work();
    } catch (error) {
      if (!isRefusal(error)) throw error;
      this.#log.warn({ err: error, what }, 'news could not be recorded');
    }
  }

  /** Asks an operation to end early. Errors: NotFound, FailedPrecondition once it has ended. */
  cancel(id: OperationId): OperationView {
    const live = this.#live.get(id);
    if (!live) {
      const ended = this.#inventory.operations.byId(id);
      if (!ended) throw this.#unknown(id);
      throw new RoostError('FailedPrecondition', `Operation ${id} has ended: ${ended.state}`, {
        data: { state: ended.state },
      });
    }
    this.#inventory.db.soon(() => {
      this.#write(live, { cancelRequested: true });
      if (live.record.state === 'queued') live.withdraw?.();
    });
    // One that was withdrawn may wait for a turn still.
    if (live.record.state !== 'undoing') live.controller.abort(cancelled(live.record));
    return this.view(live.record);
  }

  /** Ends an operation that has not begun, because somebody cancelled it. */
  withdrawn(id: OperationId, finish?: Finish): OperationRecord {
    return this.end(id, 'cancelled', cancelled(this.#required(id).record), finish);
  }

  setDeadline(id: OperationId, deadlineAt: number): void {
    this.#write(this.#required(id), { deadlineAt });
  }

  /** Resolves with the ended operation. Errors: NotFound, the signal's reason. */
  async wait(id: OperationId, signal: AbortSignal): Promise<OperationRecord> {
    const live = this.#live.get(id);
    if (live) return await waitOrAbort(live.ended, signal);
    const ended = this.#inventory.operations.byId(id);
    if (!ended) throw this.#unknown(id);
    return ended;
  }

  view(record: OperationRecord): OperationView {
    const live = this.#live.get(record.id);
    const place = record.state === 'queued' ? this.#placeOf(record.id) : undefined;
    const steps = live?.steps ?? this.#inventory.operations.stepMarks(record.id);
    return {
      id: record.id,
      kind: record.kind,
      subject: record.subject,
      actor: record.actor,
      state: record.state,
      ...(place === undefined ? {} : place),
      ...(live?.progress === undefined ? {} : { progress: live.progress }),
      steps: steps.map(stepView),
      cancelRequested: record.cancelRequested,
      createdAt: record.createdAt,
      ...(record.startedAt === undefined ? {} : { startedAt: record.startedAt }),
      ...(record.endedAt === undefined ? {} : { endedAt: record.endedAt }),
      ...(record.error === undefined ? {} : { error: record.error }),
      ...(record.result === undefined ? {} : { result: record.result as OperationView['result'] }),
    };
  }

  /** An operation with what its steps did. Errors: NotFound. */
  journal(id: OperationId): OperationJournal {
    const record = this.record(id);
    if (!record) throw this.#unknown(id);
    const steps = this.#live.get(id)?.steps ?? this.#inventory.operations.steps(id);
    return {
      ...this.view(record),
      arguments: record.arguments as OperationJournal['arguments'],
      steps: steps.map((step) => structuredClone(step) as OperationJournal['steps'][number]),
    };
  }

  query(query: OperationQuery): readonly OperationRecord[] {
    return this.#inventory.operations.query(query);
  }

  /** Why a change could not be written down, if the journal takes no writes for now. */
  #refusalOf(live: Live, change: Partial<OperationRecord>): RoostError | undefined {
    try {
      this.#write(live, change);
      return undefined;
    } catch (error) {
      if (isRefusal(error)) return error;
      throw error;
    }
  }

  #write(live: Live, change: Partial<OperationRecord>): void {
    const record = { ...live.record, ...change };
    this.#inventory.db.soon(() => this.#inventory.operations.write(record));
    const changed = record.state !== live.record.state;
    live.record = record;
    if (changed) this.#announce(record);
  }

  /** What cannot be told for now holds up nobody: an operation that was accepted is done. */
  #announce(record: OperationRecord, step?: string): void {
    const emit = (): void =>
      this.#events.emit({
        event: 'OPERATION_CHANGED',
        data: {
          operation: record.id,
          kind: record.kind,
          subject: record.subject.name,
          state: record.state,
          ...(step === undefined ? {} : { step }),
        },
      });
    // In a transaction it is the transaction that fails.
    if (this.#inventory.db.inTransaction) emit();
    else this.recordNews(`a change of ${record.kind}`, emit);
  }

  #placeOf(id: OperationId): ReturnType<QueuePlace> {
    for (const placeIn of this.#queuePlaces) {
      const place = placeIn(id);
      if (place) return place;
    }
    return undefined;
  }

  #required(id: OperationId): Live {
    const live = this.#live.get(id);
    if (!live) throw new RoostError('Internal', `Operation ${id} is not live`);
    return live;
  }

  #unknown(id: OperationId): RoostError {
    return new RoostError('NotFound', `There is no operation ${id}`, {
      data: { operation: id },
      hint: 'query-operations lists those that are kept.',
    });
  }
}
