/**
 * Does the steps of an operation one after the other, or takes them back, and keeps their part of the journal: when each
 * began and ended, and what it did to the host.
 */
import { setMaxListeners } from 'node:events';
import { deferred, waitOrAbort } from '../../lib/abort.ts';
import { Account, accounted } from '../../lib/account.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import { working } from '../../lib/loop-watch.ts';
import type { Progress } from '../../lib/work.ts';
import { daemonStopping, RoostError, toRoostError } from '../../protocol/errors.ts';
import type { Inventory } from '../inventory/inventory.ts';
import type { OperationRecord, StepRecord } from '../inventory/operation-table.ts';
import { CLEAN_UP_MS, type CleanUpOwner, cleanUp } from './clean-up.ts';
import type { Step, StepObserver } from './steps.ts';

/** An undo is made of a few pieces of clean-up, each with a time of its own. */
const UNDO_MS = 4 * CLEAN_UP_MS;

/** An operation that is accepted and has not ended, as far as its steps are concerned. */
export interface Stepping {
  readonly record: OperationRecord;
  steps: StepRecord[];
  readonly controller: AbortController;
  progress?: Progress;
  /** What its steps have to say to whoever asked. */
  readonly warnings: Set<string>;
  /** The journal lacks something of `steps`, because it took no writes. */
  isBehind?: boolean;
}

export interface StepRunnerOptions {
  readonly inventory: Inventory;
  readonly clock: Clock;
  readonly log: Log;
  readonly observeStep?: StepObserver | undefined;
  /** A step has begun. */
  readonly onBegun: (record: OperationRecord, step: string) => void;
}

export const cancelled = (record: OperationRecord): RoostError =>
  new RoostError('Cancelled', `${record.kind} of ${record.subject.name} was cancelled`, {
    data: { operation: record.id },
  });

const inSteps = (steps: readonly Step[]): StepRecord[] =>
  steps.map((step) => ({ name: step.name, state: 'pending' }));

export class StepRunner {
  readonly #options: StepRunnerOptions;
  readonly #observeStep: StepObserver;
  readonly #owner: CleanUpOwner;
  /** Reaches also the steps of operations that nobody can cancel. */
  readonly #stopping = new AbortController();

  constructor(options: StepRunnerOptions) {
    // Every step under way listens.
    setMaxListeners(0, this.#stopping.signal);
    this.#options = options;
    this.#observeStep = options.observeStep ?? (() => undefined);
    this.#owner = { clock: options.clock, stopping: this.#stopping.signal };
  }

  get suspended(): boolean {
    return this.#stopping.signal.aborted;
  }

  /** From now on every step lets go where it is, unrecorded. */
  suspend(): void {
    this.#stopping.abort(daemonStopping());
  }

  /** Resolves after so long. Errors: Unavailable when the daemon stops before. */
  async pause(delayMs: number): Promise<void> {
    const over = deferred<void>();
    const cancelTimer = this.#options.clock.after(delayMs, over.resolve);
    try {
      await waitOrAbort(over.promise, this.#stopping.signal);
    } finally {
      cancelTimer();
    }
  }

  /** Resolves with the failure of the first step that failed, undefined when all went well. */
  async doAll(live: Stepping, steps: readonly Step[], cancellable: boolean): Promise<RoostError | undefined> {
    live.steps = inSteps(steps);
    const signal = cancellable ? live.controller.signal : this.#stopping.signal;
    const progress = (at: Progress): void => {
      live.progress = at;
    };
    const warn = (text: string): void => void live.warnings.add(text);
    let earlier: Account | undefined;
    for (const [position, step] of steps.entries()) {
      const account = new Account();
      // What a step has left running, as the rules of a port, is told where it is waited for.
      earlier?.leaveTo(account);
      earlier = account;
      try {
        signal.throwIfAborted();
        this.#mark(live, position, 'running');
        await this.#observeStep({ kind: live.record.kind, step: step.name, moment: 'before' });
        const name = `${live.record.kind}/${step.name}`;
        await this.#untilLetGo(live, step, account, signal, async () =>
          working(name, () => accounted(account, () => step.do({ signal, progress, warn }))),
        );
        if (this.suspended) throw daemonStopping();
        await this.#observeStep({ kind: live.record.kind, step: step.name, moment: 'after' });
        this.#mark(live, position, 'done', account);
      } catch (error) {
        if (this.suspended) throw daemonStopping();
        if (!signal.aborted && step.isDone?.() === true) {
          this.#markDone(live, position, account, error);
          continue;
        }
        const failure = signal.aborted ? cancelled(live.record) : this.#failureOf(live, step, error);
        if (live.steps[position]?.state === 'running')
          this.#markIfPossible(live, position, 'failed', account, failure.message);
        return failure;
      }
    }
    return undefined;
  }

  /** Takes back every step that may have been begun, the last first. Resolves with what could not be taken back. */
  async undoAll(live: Stepping, steps: readonly Step[]): Promise<readonly string[]> {
    if (live.steps.length === 0) live.steps = inSteps(steps);
    const failures: string[] = [];
    const nothingBegun = live.steps.every((each) => each.state === 'pending');
    for (const [position, step] of [...steps.entries()].reverse()) {
      const begun = live.steps[position]?.state !== 'pending' || nothingBegun;
      if (!begun || !step.undo) continue;
      const account = new Account();
      await this.#observeStep({ kind: live.record.kind, step: step.name, moment: 'before-undo' });
      try {
        const name = `undo of ${live.record.kind}/${step.name}`;
        await cleanUp(
          this.#owner,
          `the undoing of ${step.name}`,
          async () => working(name, () => accounted(account, () => step.undo?.())),
          UNDO_MS,
        );
        this.#markIfPossible(live, position, 'undone', account);
      } catch (error) {
        if (this.suspended) throw daemonStopping();
        this.#options.log.error({ err: error, operation: live.record.id, step: step.name }, 'undo failed');
        const { message } = toRoostError(error);
        this.#markIfPossible(live, position, 'undo-failed', account, message);
        failures.push(`${step.name}: ${message}`);
      }
      await this.#observeStep({ kind: live.record.kind, step: step.name, moment: 'after-undo' });
    }
    return failures;
  }

  /** A step that is told to end has a time to let go; one that does not is left to itself, and said so. */
  async #untilLetGo(
    live: Stepping,
    step: Step,
    account: Account,
    signal: AbortSignal,
    work: () => Promise<void>,
  ): Promise<void> {
    const { clock, log } = this.#options;
    const givenUp = deferred<void>();
    let cancelTimer = (): void => undefined;
    const onAbort = (): void => {
      cancelTimer = clock.after(CLEAN_UP_MS, () => {
        log.error({ operation: live.record.id, step: step.name }, 'a cancelled step did not let go');
        account.add({
          kind: 'note',
          text: `it was cancelled and did not let go within ${CLEAN_UP_MS / 1000} s`,
        });
        givenUp.reject(cancelled(live.record));
      });
    };
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      await Promise.race([work(), givenUp.promise]);
    } finally {
      signal.removeEventListener('abort', onAbort);
      cancelTimer();
    }
  }

  /** It failed at its very end, when there was no way back any more. */
  #markDone(live: Stepping, position: number, account: Account, error: unknown): void {
    const { message } = toRoostError(error);
    const { name } = live.steps[position] ?? {};
    this.#options.log.warn(
      { err: error, operation: live.record.id, step: name },
      'step failed after it was done',
    );
    account.add({ kind: 'note', text: `it was done; after that came: ${message}` });
    this.#mark(live, position, 'done', account);
  }

  #failureOf(live: Stepping, step: Step, error: unknown): RoostError {
    const failure = toRoostError(error);
    if (failure.class === 'Internal')
      this.#options.log.error(
        { err: error, operation: live.record.id, step: step.name },
        'step failed unexpectedly',
      );
    return failure;
  }

  /** Where nothing more can be done than to go on: what the journal lacks is written with the end of the operation. */
  #markIfPossible(
    live: Stepping,
    position: number,
    state: StepRecord['state'],
    account: Account,
    error?: string,
  ): void {
    try {
      this.#mark(live, position, state, account, error);
    } catch (unwritten) {
      live.isBehind = true;
      this.#options.log.warn(
        { err: unwritten, operation: live.record.id },
        'a step could not be written down',
      );
    }
  }

  #mark(
    live: Stepping,
    position: number,
    state: StepRecord['state'],
    account?: Account,
    error?: string,
  ): void {
    const before = live.steps[position];
    if (!before) return;
    const now = this.#options.clock.now();
    const entries = [...(before.account ?? []), ...(account?.close() ?? [])];
    const step: StepRecord =
      state === 'running'
        ? { name: before.name, state, startedAt: now }
        : {
            ...before,
            state,
            endedAt: now,
            ...(entries.length === 0 ? {} : { account: entries }),
            ...(error === undefined ? {} : { error }),
          };
    live.steps[position] = step;
    const { inventory } = this.#options;
    inventory.db.soon(() => inventory.operations.writeStep(live.record.id, position, step));
    if (state === 'running') this.#options.onBegun(live.record, step.name);
  }
}
