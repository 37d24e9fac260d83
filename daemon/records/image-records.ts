/** The records of images, beside their files; each with the aliases of its name. One is written after the other. */
import { Mailbox } from '../../lib/mailbox.ts';
import type { ImageId } from '../../protocol/types.ts';
import type { StoredImage } from '../../storage/pool.ts';
import type { ImagesOptions } from '../images.ts';
import { recordOfImage, saysTheSame } from './record-of.ts';

export class ImageRecords {
  readonly #options: Pick<ImagesOptions, 'inventory' | 'store' | 'instance' | 'clock' | 'log'>;
  readonly #mailbox = new Mailbox();

  constructor(options: ImagesOptions) {
    this.#options = options;
  }

  /** The record of an image that is ready, or about to be. Rejects as the store does. */
  async write(id: ImageId, stored?: StoredImage): Promise<void> {
    await this.#mailbox.post(() => this.#write(id, stored));
  }

  /** Of every version of a name, after its aliases have changed; to miss one is no failure of the change. */
  async keep(name: string): Promise<void> {
    const { inventory, log } = this.#options;
    try {
      for (const { id } of inventory.images.versions(name)) await this.write(id);
    } catch (error) {
      log.warn({ err: error, image: name }, 'the record of an image could not be written');
    }
  }

  /** Images of before there were records get theirs, and so do those whose record says something else. */
  async keepAll(): Promise<void> {
    const { inventory, store, instance, log } = this.#options;
    const found = new Map((await store.readRecords()).records.map((record) => [record['id'], record]));
    for (const image of inventory.images.all()) {
      const record = found.get(image.id);
      if (record && saysTheSame(record, recordOfImage(instance, inventory, image))) continue;
      await this.write(image.id).catch((error: unknown) =>
        log.warn({ err: error, image: image.name }, 'the record of an image could not be written'),
      );
    }
  }

  async idle(): Promise<void> {
    await this.#mailbox.idle();
  }

  async #write(id: ImageId, stored?: StoredImage): Promise<void> {
    const { inventory, store, instance, clock } = this.#options;
    const image = inventory.images.byId(id);
    if (!image || (image.state !== 'ready' && stored === undefined)) return;
    const record = recordOfImage(instance, inventory, image, stored);
    await store.writeRecord(id, { ...record, writtenAt: clock.now() });
  }
}
