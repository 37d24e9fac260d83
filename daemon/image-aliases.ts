/**
 * Further names of images. A change of one touches no image: it is done in the transaction that accepts it, and written
 * into the records beside the images before it is answered.
 */
import type { CommandArguments } from '../protocol/commands.ts';
import { RoostError } from '../protocol/errors.ts';
import type { Accepted } from '../protocol/operation.ts';
import type { Actor } from '../protocol/types.ts';
import type { ImageCatalogue } from './image-catalogue.ts';
import type { ImagesOptions } from './images.ts';
import type { ImageRecord } from './inventory/image-table.ts';
import type { ImageRecords } from './records/image-records.ts';

interface AliasChange {
  readonly image: ImageRecord;
  readonly change: 'alias-set' | 'alias-deleted';
}

export class ImageAliases {
  readonly #options: ImagesOptions;
  readonly #catalogue: ImageCatalogue;
  readonly #records: ImageRecords;

  constructor(options: ImagesOptions, catalogue: ImageCatalogue, records: ImageRecords) {
    this.#options = options;
    this.#catalogue = catalogue;
    this.#records = records;
  }

  /** Errors: NotFound for the image, AlreadyExists when an image has that name. */
  async set(args: CommandArguments<'image-alias-set'>, actor: Actor): Promise<Accepted> {
    const { inventory, clock } = this.#options;
    return await this.#change('image-alias-set', args, actor, () => {
      const { alias } = args;
      if (inventory.images.versions(alias).length > 0)
        throw new RoostError('AlreadyExists', `There is an image called ${alias}`, {
          data: { alias },
          hint: 'Choose another alias, or delete that image first.',
        });
      const image = this.#catalogue.find(args.image);
      const { name, version } = image.id === args.image ? image : this.#catalogue.partsOf(args.image);
      const target = version === undefined ? { name } : { name, version };
      inventory.images.setAlias({ alias, ...target, createdAt: clock.now() });
      return { image, change: 'alias-set' };
    });
  }

  /** Errors: NotFound. */
  async delete(args: CommandArguments<'image-alias-delete'>, actor: Actor): Promise<Accepted> {
    return await this.#change('image-alias-delete', args, actor, () => {
      const { alias } = args;
      if (!this.#catalogue.isAlias(alias))
        throw new RoostError('NotFound', `There is no alias called ${alias}`, {
          data: { alias },
          hint: 'query-images shows the aliases of each image.',
        });
      const image = this.#catalogue.find(alias);
      this.#options.inventory.images.deleteAlias(alias);
      return { image, change: 'alias-deleted' };
    });
  }

  async #change(
    kind: 'image-alias-set' | 'image-alias-delete',
    args: { readonly alias: string; readonly idempotencyKey?: string | undefined },
    actor: Actor,
    apply: () => AliasChange,
  ): Promise<Accepted> {
    const { inventory, operations, events } = this.#options;
    const { alias, idempotencyKey } = args;
    const names = new Set<string>();
    const record = await inventory.db.durably(() => {
      const repeated = operations.repeated(idempotencyKey, kind, alias);
      if (repeated) return repeated;
      for (const each of inventory.images.aliases()) if (each.alias === alias) names.add(each.name);
      const { image, change } = apply();
      const { id, name, version } = image;
      names.add(name);
      events.emit({ event: 'IMAGE_CHANGED', data: { image: id, name, version, change, alias } });
      const subject = { kind: 'image', id, name: alias } as const;
      return operations.insert({ kind, subject, actor, arguments: args, idempotencyKey, already: true });
    });
    for (const name of names) await this.#records.keep(name);
    return { operation: record.id, id: record.subject.id };
  }
}
