/**
 * host-shutdown-guests: what the host's own shutdown asks for. Guests are asked to power off in the reverse order of
 * autostart, under one deadline for all of them, after which those that are left are ended. What is asked of a guest
 * stays as it is: one that is to run is to run after the boot too. While this is under way no guest is started.
 */
import { deferred, waitOrAbort } from '../lib/abort.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { Mailbox } from '../lib/mailbox.ts';
import type { CommandArguments } from '../protocol/commands.ts';
import { toRoostError } from '../protocol/errors.ts';
import type { Accepted } from '../protocol/operation.ts';
import type { Actor, InstanceId, OperationId } from '../protocol/types.ts';
import type { Guest } from './guests/guest.ts';
import { isStart } from './guests/guest-status.ts';
import type { Guests } from './guests/guests.ts';
import { HOST_SHUTDOWN, WITH_HOST } from './guests/host-stops.ts';
import { patienceMs, shutdownStages } from './guests/shutdown-order.ts';
import type { Inventory } from './inventory/inventory.ts';
import type { OperationRecord } from './inventory/operation-table.ts';
import { enqueue, type OperationWork } from './operations/enqueue.ts';
import type { Operations } from './operations/operations.ts';

const ACTOR: Actor = 'policy:host-shutdown';

const isToStart = ({ unfinished }: Guest): boolean => unfinished.some(({ kind }) => isStart(kind));

export interface HostShutdownOptions {
  readonly inventory: Inventory;
  readonly operations: Operations;
  readonly guests: Guests;
  readonly clock: Clock;
  readonly log: Log;
  readonly instance: InstanceId;
  /** For all guests together, in milliseconds, unless a request says else. */
  readonly timeoutMs: number;
}

export class HostShutdown {
  readonly #options: HostShutdownOptions;
  readonly #mailbox = new Mailbox();

  constructor(options: HostShutdownOptions) {
    this.#options = options;
  }

  async accept(args: CommandArguments<'host-shutdown-guests'>, actor: Actor): Promise<Accepted> {
    const { inventory, operations, instance, clock, timeoutMs } = this.#options;
    const record = await inventory.db.durably(
      () =>
        operations.repeated(args.idempotencyKey, HOST_SHUTDOWN) ??
        operations.insert({
          kind: HOST_SHUTDOWN,
          subject: { kind: 'host', id: instance, name: 'host' },
          actor,
          arguments: { ...args },
          idempotencyKey: args.idempotencyKey,
          // A daemon that is started again meanwhile keeps to it.
          deadlineAt: clock.now() + (args.timeoutMs ?? timeoutMs),
        }),
    );
    return this.#enqueue(record);
  }

  /** Takes up what an earlier daemon left, once every guest has been looked at; after a boot there is nobody to ask. */
  recover(leftovers: readonly OperationRecord[], looked: Promise<void>, hostBooted: boolean): void {
    if (leftovers.length > 0) void this.#mailbox.post(() => looked.catch(() => undefined));
    for (const record of leftovers) {
      if (!hostBooted) this.#enqueue(record);
      else if (this.#options.operations.admitted(record))
        this.#options.operations.end(record.id, 'succeeded', undefined, () => ({ hostStopped: true }));
    }
  }

  async idle(): Promise<void> {
    await this.#mailbox.idle();
  }

  #enqueue(record: OperationRecord): Accepted {
    return enqueue(
      this.#options.operations,
      record,
      () => this.#mailbox,
      (operation) => this.#shuttingDown(operation),
    );
  }

  #shuttingDown(operation: OperationRecord): OperationWork {
    const asked = new Map<Guest, OperationId>();
    const problems: string[] = [];
    return {
      steps: [
        {
          name: 'shut-down',
          do: async ({ signal }) => {
            await this.#shutDown(operation, asked, problems, signal);
          },
          // Guests that were asked cannot be told otherwise, but nobody ends them any more.
          undo: () => this.#withdraw(asked),
        },
      ],
      options: {
        finish: (state) =>
          state === 'succeeded' ? { guests: [...asked.keys()].map(({ name }) => name), problems } : undefined,
      },
    };
  }

  async #shutDown(
    operation: OperationRecord,
    asked: Map<Guest, OperationId>,
    problems: string[],
    signal: AbortSignal,
  ): Promise<void> {
    const { guests, clock } = this.#options;
    const deadlineAt = operation.deadlineAt ?? clock.now();
    const living = guests.registry.everyone().filter((guest) => guest.isLive() || isToStart(guest));
    const stages = shutdownStages(living.map((guest) => ({ guest, autostart: guest.record.spec.autostart })));
    const ends: Promise<unknown>[] = [];
    for (const [index, stage] of stages.entries()) {
      const stageEnds = stage.map(({ guest }) =>
        this.#end(guest, { operation: operation.id, deadlineAt, asked, problems }, signal),
      );
      ends.push(...stageEnds);
      const patience = patienceMs(deadlineAt - clock.now(), index === stages.length - 1);
      await this.#waitAtMost(Promise.all(stageEnds), patience, signal);
    }
    // Each has the deadline as its own, after which it is ended by force.
    await waitOrAbort(Promise.all(ends), signal);
  }

  /** Never rejects: one guest that cannot be stopped must not hold up the others. */
  async #end(
    guest: Guest,
    context: {
      readonly operation: OperationId;
      readonly deadlineAt: number;
      readonly asked: Map<Guest, OperationId>;
      readonly problems: string[];
    },
    signal: AbortSignal,
  ): Promise<void> {
    const { guests, operations, clock, log } = this.#options;
    // A stop that somebody else asked for, with more patience, has the same deadline now.
    const cancelForce = clock.after(context.deadlineAt - clock.now(), () => guest.forceNow());
    try {
      const leftMs = Math.max(0, context.deadlineAt - clock.now());
      const args = {
        guest: guest.id,
        timeoutMs: Math.min(guest.record.spec.stopTimeoutMs, leftMs),
        // The same stop again, should the step run twice.
        idempotencyKey: `${context.operation}/${guest.id}`,
        ...WITH_HOST,
      };
      // What is asked of the guest is not changed: it is to run again after the boot.
      const accepted = await guests.accept('guest-stop', guest, args, ACTOR, undefined, () => {
        guest.restarts.silence();
        guest.cancelStarts();
        guest.cancelDeviceWork();
      });
      context.asked.set(guest, accepted.operation);
      const ended = await operations.wait(accepted.operation, signal);
      if (ended.state !== 'succeeded') throw new Error(ended.error?.desc ?? ended.state);
    } catch (error) {
      if (signal.aborted) return;
      context.problems.push(`${guest.name}: ${toRoostError(error).message}`);
      log.warn({ err: error, guest: guest.name }, 'the guest could not be shut down with the host');
      // It may have ended all the same: that is one with the host as long as this operation is under way.
      await waitOrAbort(guest.mailbox.idle(), signal).catch(() => undefined);
    } finally {
      cancelForce();
    }
  }

  async #waitAtMost(work: Promise<unknown>, ms: number, signal: AbortSignal): Promise<void> {
    const over = deferred<void>();
    const cancel = this.#options.clock.after(ms, over.resolve);
    try {
      await waitOrAbort(Promise.race([work, over.promise]), signal);
    } finally {
      cancel();
    }
  }

  #withdraw(asked: ReadonlyMap<Guest, OperationId>): void {
    const { operations } = this.#options;
    for (const id of asked.values()) if (operations.record(id)?.endedAt === undefined) operations.cancel(id);
  }
}
