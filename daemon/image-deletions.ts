/**
 * Deletes versions of images. Marked as such in the transaction that accepts it, after which no guest can be made of
 * them; each leaves the inventory as soon as its files are gone. What could not be removed stays marked, since nobody
 * knows what is left of it, and can be deleted again.
 */
import type { CommandArguments } from '../protocol/commands.ts';
import { RoostError } from '../protocol/errors.ts';
import { imageLabel, parseImageReference } from '../protocol/image-reference.ts';
import type { Actor, ImageId } from '../protocol/types.ts';
import { type ImageCatalogue, prunable } from './image-catalogue.ts';
import type { ImagesOptions } from './images.ts';
import type { ImageRecord } from './inventory/image-table.ts';
import type { OperationRecord } from './inventory/operation-table.ts';
import type { OperationWork } from './operations/enqueue.ts';
import type { Step } from './operations/steps.ts';
import type { ImageRecords } from './records/image-records.ts';

/** Versions that an error names. */
const MAX_NAMED_VERSIONS = 100;

/** What the journal keeps besides the request: the ids to delete, and those that were sound until then. */
interface Chosen {
  readonly ids?: readonly ImageId[];
  readonly marked?: readonly ImageId[];
}

export class ImageDeletions {
  readonly #options: ImagesOptions;
  readonly #catalogue: ImageCatalogue;
  readonly #records: ImageRecords;

  constructor(options: ImagesOptions, catalogue: ImageCatalogue, records: ImageRecords) {
    this.#options = options;
    this.#catalogue = catalogue;
    this.#records = records;
  }

  /** Errors: NotFound; FailedPrecondition while a guest needs one, while it is imported, or for a name with several. */
  async delete(args: CommandArguments<'image-delete'>, actor: Actor): Promise<OperationRecord> {
    return await this.#accept('image-delete', args, actor, (image) => this.#chosen(args, image));
  }

  async prune(args: CommandArguments<'image-prune'>, actor: Actor): Promise<OperationRecord> {
    const { images } = this.#options.inventory;
    const isNeeded = (image: ImageRecord): boolean =>
      images.users(image.id).length > 0 || this.#catalogue.isPinned(image);
    return await this.#accept('image-prune', args, actor, (image) =>
      prunable(images.versions(image.name), args.keep, isNeeded),
    );
  }

  /** How such an operation is carried out. */
  work(record: OperationRecord): OperationWork {
    const { inventory } = this.#options;
    // A daemon of layout 1 wrote none: its operation deletes its subject.
    const { ids = [record.subject.id as ImageId], marked = ids } = record.arguments as Chosen;
    const deleted: string[] = [];
    const steps = ids.map((id) => this.#removing(id, ids.length, deleted));
    return {
      steps,
      options: {
        cancellable: false,
        finish: (state) => {
          if (state === 'succeeded') return { deleted };
          if (state === 'cancelled')
            for (const id of marked) if (inventory.images.byId(id)) inventory.images.setState(id, 'ready');
          return undefined;
        },
      },
    };
  }

  #removing(id: ImageId, count: number, deleted: string[]): Step {
    const { store, inventory, events } = this.#options;
    const image = inventory.images.byId(id);
    return {
      name: count === 1 || !image ? 'remove' : `remove ${image.version}`,
      do: async () => {
        if (!image || !inventory.images.byId(id)) return;
        await store.remove(id);
        const { name, version } = image;
        const deadAliases = inventory.db.soon(() => {
          const dead = inventory.images.delete(id);
          inventory.ledger.release({ kind: 'image', id });
          events.emit({ event: 'IMAGE_CHANGED', data: { image: id, name, version, change: 'deleted' } });
          return dead;
        });
        if (deadAliases.length > 0) await this.#records.keep(name);
        deleted.push(imageLabel(image));
      },
      isDone: () => !image || !inventory.images.byId(id),
    };
  }

  #chosen(args: CommandArguments<'image-delete'>, image: ImageRecord): readonly ImageRecord[] {
    const versions = this.#options.inventory.images.versions(image.name);
    if (this.#catalogue.isAlias(args.image))
      throw new RoostError('InvalidArgument', `${args.image} is an alias of ${image.name}`, {
        data: { alias: args.image, means: imageLabel(image) },
        hint: 'Delete the image that it means, or the alias alone with image-alias-delete.',
      });
    if (args.allVersions) return versions;
    if (versions.length > 1 && args.image === image.name)
      throw new RoostError('FailedPrecondition', `Image ${image.name} has ${versions.length} versions`, {
        data: {
          image: image.name,
          versions: versions.slice(0, MAX_NAMED_VERSIONS).map(({ version }) => version),
        },
        hint: `Name one, as ${imageLabel(image)}, or ask for all of them.`,
      });
    return [image];
  }

  /** In one transaction: every version is free and marked, or none. */
  async #accept(
    kind: 'image-delete' | 'image-prune',
    args: CommandArguments<'image-delete'> | CommandArguments<'image-prune'>,
    actor: Actor,
    choose: (image: ImageRecord) => readonly ImageRecord[],
  ): Promise<OperationRecord> {
    const { inventory, operations } = this.#options;
    const { idempotencyKey } = args;
    return await inventory.db.durably(() => {
      const repeated = operations.repeated(idempotencyKey, kind, parseImageReference(args.image).name);
      if (repeated) return repeated;
      const image = this.#catalogue.find(args.image);
      const chosen = choose(image);
      for (const each of chosen) {
        this.#catalogue.refuseWhileImported(each);
        this.#catalogue.refuseWhileUsed(each);
      }
      const marked = chosen.filter(({ state }) => state === 'ready');
      for (const { id } of marked) inventory.images.setState(id, 'deleting');
      return operations.insert({
        kind,
        subject: { kind: 'image', id: image.id, name: image.name },
        actor,
        arguments: { ...args, ids: chosen.map(({ id }) => id), marked: marked.map(({ id }) => id) },
        idempotencyKey,
        already: chosen.length === 0,
      });
    });
  }
}
