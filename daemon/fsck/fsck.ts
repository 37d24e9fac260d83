/** query-fsck and fsck-repair: the report, and the operation that mends what it names. */
import { Mailbox } from '../../lib/mailbox.ts';
import type { FsckReport } from '../../protocol/fsck.ts';
import { hostObjectKey } from '../../protocol/host-object.ts';
import type { Accepted } from '../../protocol/operation.ts';
import type { Actor } from '../../protocol/types.ts';
import { inspectHost } from '../host-objects.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import { enqueue, type OperationWork } from '../operations/enqueue.ts';
import type { RunOptions } from '../operations/operations.ts';
import type { Step } from '../operations/steps.ts';
import { Look } from './look.ts';
import { Repair, type RepairOptions } from './repair.ts';

/** What a repair works on in the journal: the daemon's host as a whole. */
const SUBJECT_NAME = 'host';

export class Fsck {
  readonly #options: RepairOptions;
  readonly #look: Look;
  readonly #mailbox = new Mailbox();

  constructor(options: RepairOptions) {
    this.#options = options;
    this.#look = new Look(options);
  }

  report(signal: AbortSignal): Promise<FsckReport> {
    return this.#look.report(signal);
  }

  async repair(args: { readonly idempotencyKey?: string | undefined }, actor: Actor): Promise<Accepted> {
    const { inventory, operations, instance } = this.#options;
    const record = await inventory.db.durably(
      () =>
        operations.repeated(args.idempotencyKey, 'fsck-repair') ??
        operations.insert({
          kind: 'fsck-repair',
          subject: { kind: 'host', id: instance, name: SUBJECT_NAME },
          actor,
          arguments: { ...args },
          idempotencyKey: args.idempotencyKey,
        }),
    );
    return this.#enqueue(record);
  }

  /** Takes up what an earlier daemon left, once every guest has been looked at. */
  recover(leftovers: readonly OperationRecord[], looked: Promise<void>): void {
    if (leftovers.length === 0) return;
    void this.#mailbox.post(() => looked.catch(() => undefined));
    for (const record of leftovers) this.#enqueue(record);
  }

  async idle(): Promise<void> {
    await this.#mailbox.idle();
  }

  #enqueue(record: OperationRecord): Accepted {
    return enqueue(
      this.#options.operations,
      record,
      () => this.#mailbox,
      () => this.#repairing(),
    );
  }

  /** Every step looks for itself where the one before did not, so that each may run twice and alone. */
  #repairing(): OperationWork {
    const repair = new Repair(this.#options);
    let before: FsckReport | undefined;
    let left: FsckReport | undefined;
    const steps: readonly Step[] = [
      {
        name: 'compare',
        do: async ({ signal }) => {
          before = await this.#look.report(signal);
        },
      },
      {
        name: 'mend',
        do: async ({ signal }) => {
          before ??= await this.#look.report(signal);
          await repair.mendKnown(before.differences, signal);
        },
      },
      {
        name: 'remove-leftovers',
        do: async ({ signal }) => {
          const { differences } = await this.#look.report(signal);
          await repair.removeLeftovers(differences, signal);
          const host = await inspectHost(this.#options, this.#options, signal);
          repair.forget(differences, new Set(host.map(hostObjectKey)));
        },
      },
      {
        name: 'verify',
        do: async ({ signal }) => {
          left = await this.#look.report(signal);
        },
      },
    ];
    const finish: RunOptions['finish'] = (state) =>
      state === 'succeeded'
        ? {
            found: before?.differences.length ?? 0,
            left: left?.differences ?? [],
            problems: [...repair.problems],
          }
        : undefined;
    return { steps, options: { finish } };
  }
}
