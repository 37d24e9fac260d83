/** Images of the inventory: imported in order, never removed while a guest needs them. */
import { randomUUID } from 'node:crypto';
import type { Clock } from '../lib/clock.ts';
import { Mailbox } from '../lib/mailbox.ts';
import type { BlockSource } from '../protocol/block-source.ts';
import type { CommandArguments } from '../protocol/commands.ts';
import { RoostError } from '../protocol/errors.ts';
import type { ImageKind, ImageView } from '../protocol/image.ts';
import type { Accepted } from '../protocol/operation.ts';
import type { Actor, ImageId, OperationId } from '../protocol/types.ts';
import type { ImageStore, StoredImage } from '../storage/pool.ts';
import type { EventLog } from './event-log.ts';
import type { ImageRecord } from './inventory/image-table.ts';
import type { Inventory } from './inventory/inventory.ts';
import type { OperationRecord } from './inventory/operation-table.ts';
import { carryOut } from './operations/carry-out.ts';
import type { Operations, RunOptions } from './operations/operations.ts';
import type { Step } from './operations/steps.ts';

/** Imports that copy at the same time; further ones wait their turn. */
const PARALLEL_IMPORTS = 2;

export interface ImagesOptions {
  readonly inventory: Inventory;
  readonly operations: Operations;
  readonly events: EventLog;
  readonly store: ImageStore;
  readonly clock: Clock;
}

export class Images {
  readonly #options: ImagesOptions;
  readonly #lanes: readonly Mailbox[] = Array.from({ length: PARALLEL_IMPORTS }, () => new Mailbox());
  #nextLane = 0;

  constructor(options: ImagesOptions) {
    this.#options = options;
  }

  /** Errors: NotFound; FailedPrecondition while it is imported; InvalidArgument for another kind. */
  require(reference: string, kind?: ImageKind): ImageRecord & { readonly stored: StoredImage } {
    const image = this.#find(reference);
    if (image.state !== 'ready' || !image.stored)
      throw new RoostError(
        'FailedPrecondition',
        `Image ${image.name} is ${image.state === 'deleting' ? 'being deleted' : 'still being imported'}`,
        {
          data: { image: image.name },
          hint: 'Wait for its operation to end.',
        },
      );
    if (kind !== undefined && image.kind !== kind)
      throw new RoostError(
        'InvalidArgument',
        `Image ${image.name} is a ${image.kind}, and a ${kind} is needed here`,
        {
          data: { image: image.name, kind: image.kind, needed: kind },
        },
      );
    return { ...image, stored: image.stored };
  }

  source(id: ImageId): BlockSource {
    return this.#options.store.source(id, this.require(id).stored);
  }

  async import(args: CommandArguments<'image-import'>, actor: Actor): Promise<Accepted> {
    const { inventory, operations, clock, store } = this.#options;
    const record = await inventory.db.durably(() => {
      const repeated = operations.repeated(args.idempotencyKey, 'image-import', args.name);
      if (repeated) return repeated;
      if (inventory.images.find(args.name))
        throw new RoostError('AlreadyExists', `There is an image called ${args.name}`, {
          data: { name: args.name },
          hint: 'Choose another name, or delete that image first.',
        });
      const id = randomUUID() as ImageId;
      inventory.images.insert({ id, name: args.name, kind: args.kind, createdAt: clock.now() });
      inventory.ledger.record({ kind: 'image', id }, 'existence', store.plan(id), clock.now());
      return operations.insert({
        kind: 'image-import',
        subject: { kind: 'image', id, name: args.name },
        actor,
        arguments: args,
        idempotencyKey: args.idempotencyKey,
      });
    });
    return this.#enqueue(record);
  }

  async delete(args: CommandArguments<'image-delete'>, actor: Actor): Promise<Accepted> {
    const { inventory, operations } = this.#options;
    const record = await inventory.db.durably(() => {
      const repeated = operations.repeated(args.idempotencyKey, 'image-delete', args.image);
      if (repeated) return repeated;
      const image = this.require(args.image);
      this.#refuseWhileUsed(image);
      inventory.images.setState(image.id, 'deleting');
      return operations.insert({
        kind: 'image-delete',
        subject: { kind: 'image', id: image.id, name: image.name },
        actor,
        arguments: args,
        idempotencyKey: args.idempotencyKey,
      });
    });
    return this.#enqueue(record);
  }

  views(references: readonly string[] | undefined): readonly ImageView[] {
    const { inventory } = this.#options;
    const images = references ? this.#named(references) : inventory.images.all();
    return images.map((image) => ({
      id: image.id,
      name: image.name,
      kind: image.kind,
      state: image.state,
      format: image.stored?.format ?? 'raw',
      sizeBytes: image.stored?.sizeBytes ?? 0,
      virtualSizeBytes: image.stored?.virtualSizeBytes ?? 0,
      ...(image.stored === undefined ? {} : { sha256: image.stored.sha256 }),
      usedBy: [...inventory.images.users(image.id)],
      createdAt: image.createdAt,
    }));
  }

  /** Takes up what an earlier daemon left. */
  recover(leftovers: readonly OperationRecord[]): void {
    for (const record of leftovers) this.#enqueue(record);
  }

  async idle(): Promise<void> {
    await Promise.all(this.#lanes.map((lane) => lane.idle()));
  }

  /** Each once, sorted by name. */
  #named(references: readonly string[]): readonly ImageRecord[] {
    const found = references.map((reference) => this.#find(reference));
    return [...new Map(found.map((image) => [image.name, image])).values()].sort((a, b) =>
      a.name < b.name ? -1 : 1,
    );
  }

  #find(reference: string): ImageRecord {
    const image = this.#options.inventory.images.find(reference);
    if (image) return image;
    throw new RoostError('NotFound', `There is no image called ${reference}`, {
      data: { image: reference },
      hint: 'query-images lists them.',
    });
  }

  #refuseWhileUsed(image: ImageRecord): void {
    const usedBy = this.#options.inventory.images.users(image.id);
    if (usedBy.length === 0) return;
    throw new RoostError(
      'FailedPrecondition',
      `Image ${image.name} is needed by ${usedBy.slice(0, 5).join(', ')}${usedBy.length > 5 ? ' …' : ''}`,
      {
        data: { image: image.name, usedBy: [...usedBy] },
        hint: 'Delete those guests first.',
      },
    );
  }

  #enqueue(record: OperationRecord): Accepted {
    const { operations } = this.#options;
    const accepted = { operation: record.id, id: record.subject.id };
    const isNew = operations.admitted(
      record,
      () => void operations.withdrawn(record.id, this.#workOf(record).options.finish),
    );
    if (!isNew) return accepted;
    const lane = this.#lanes[this.#nextLane++ % this.#lanes.length];
    lane
      ?.post(() => this.#perform(record.id))
      .catch((error: unknown) => operations.unrecorded(record.id, error));
    return accepted;
  }

  async #perform(id: OperationId): Promise<void> {
    const { operations } = this.#options;
    const record = operations.record(id);
    if (!record || record.endedAt !== undefined) return;
    const { steps, options } = this.#workOf(record);
    await carryOut(operations, record, steps, options);
  }

  #workOf(record: OperationRecord): { steps: readonly Step[]; options: RunOptions } {
    return record.kind === 'image-import' ? this.#importing(record) : this.#deleting(record);
  }

  #importing(record: OperationRecord): { steps: readonly Step[]; options: RunOptions } {
    const { store, inventory, events } = this.#options;
    const args = record.arguments as CommandArguments<'image-import'>;
    const id = record.subject.id as ImageId;
    let stored: StoredImage | undefined;
    const copy: Step = {
      name: 'copy',
      do: async (work) => {
        stored = await store.import(
          {
            id,
            kind: args.kind,
            path: args.path,
            format: args.kind === 'disk' ? (args.format ?? 'qcow2') : 'raw',
            ...(args.sha256 === undefined ? {} : { sha256: args.sha256 }),
          },
          work,
        );
      },
      undo: () => store.remove(id),
    };
    return {
      steps: [copy],
      options: {
        finish: (state, clean) => {
          if (state === 'succeeded' && stored) {
            inventory.images.ready(id, stored);
            events.emit({
              event: 'IMAGE_CHANGED',
              data: { image: id, name: record.subject.name, change: 'imported' },
            });
            return { image: id };
          }
          inventory.images.delete(id);
          if (clean) inventory.ledger.release({ kind: 'image', id });
          return undefined;
        },
      },
    };
  }

  #deleting(record: OperationRecord): { steps: readonly Step[]; options: RunOptions } {
    const { store, inventory, events } = this.#options;
    const id = record.subject.id as ImageId;
    const remove: Step = {
      name: 'remove',
      do: () => store.remove(id),
    };
    return {
      steps: [remove],
      options: {
        cancellable: false,
        finish: (state) => {
          if (state !== 'succeeded') {
            inventory.images.setState(id, 'ready');
            return undefined;
          }
          inventory.images.delete(id);
          inventory.ledger.release({ kind: 'image', id });
          events.emit({
            event: 'IMAGE_CHANGED',
            data: { image: id, name: record.subject.name, change: 'deleted' },
          });
          return undefined;
        },
      },
    };
  }
}
