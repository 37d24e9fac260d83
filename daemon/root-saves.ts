/**
 * Containers that are saved as images. Their root is packed in the image's own workplace, in the turn of the container: what was
 * asked of it before is done, and what is asked later waits. After a crash it is packed anew, unless the image was
 * complete.
 */
import { join } from 'node:path';
import type { CommandArguments } from '../protocol/commands.ts';
import { RoostError } from '../protocol/errors.ts';
import type { ImageSource } from '../protocol/image.ts';
import { imageLabel } from '../protocol/image-reference.ts';
import type { Accepted } from '../protocol/operation.ts';
import type { Actor, GuestId, ImageId } from '../protocol/types.ts';
import { admit } from './guests/admit.ts';
import { requireRooted, whileAtRest } from './guests/at-rest.ts';
import type { Guest } from './guests/guest.ts';
import type { House } from './guests/house.ts';
import { rootSpec } from './guests/launch-of.ts';
import type { GuestRegistry } from './guests/registry.ts';
import type { OperationRecord } from './inventory/operation-table.ts';
import type { OperationWork } from './operations/enqueue.ts';
import type { Step } from './operations/steps.ts';

/** What the journal keeps besides the request. */
interface SaveRecord {
  readonly of: GuestId;
}

const FILE = 'root.squashfs';

type SavingHouse = Pick<House, 'images' | 'inventory' | 'operations' | 'pool' | 'guestById'>;

export class RootSaves {
  readonly #house: SavingHouse;
  readonly #registry: GuestRegistry;

  constructor(house: SavingHouse, registry: GuestRegistry) {
    this.#house = house;
    this.#registry = registry;
    house.images.addWork('guest-save', (record) => this.#saving(record));
  }

  /**
   * Errors: Unsupported for a machine, or where this host cannot; FailedPrecondition while the container runs; those of
   * `Images.accept`.
   */
  async accept(args: CommandArguments<'guest-save'>, actor: Actor): Promise<Accepted> {
    const { images, operations, pool } = this.#house;
    const { version, idempotencyKey } = args;
    const before = operations.repeated(idempotencyKey, 'guest-save', args.name);
    if (before) return { operation: before.id, id: before.subject.id };
    const guest = this.#registry.find(args.guest);
    requireRooted(
      guest,
      'saved as an image',
      'template-create keeps a machine as it is. Of a disk of it, converted by qemu-img to a file, image-import makes an image.',
    );
    const verdict = admit('guest-save', guest.standing);
    if (verdict.kind === 'deny') throw verdict.error;
    await pool.requireSaveable();
    const kept: SaveRecord = { of: guest.id };
    return await images.accept({
      name: args.name ?? guest.name,
      version,
      kind: 'root',
      source: this.#sourceOf(guest),
      operation: { kind: 'guest-save', actor, arguments: { ...args, ...kept }, idempotencyKey },
    });
  }

  #sourceOf({ id, name, record }: Guest): ImageSource {
    const { boot } = record.spec;
    const under = boot.kind === 'root' ? this.#house.inventory.images.byId(boot.image) : undefined;
    return { kind: 'guest', guest: name, id, ...(under ? { image: imageLabel(under) } : {}) };
  }

  #saving(record: OperationRecord): OperationWork {
    const { images, pool, guestById } = this.#house;
    const { store } = images;
    const id = record.subject.id as ImageId;
    const { of } = record.arguments as unknown as SaveRecord;
    let path = '';
    const save: Step = {
      name: 'save',
      do: async (work) => {
        if (await store.stored(id)) return;
        const guest = guestById(of);
        const root = guest && rootSpec(guest);
        if (!guest || !root)
          throw new RoostError(
            'NotFound',
            `The container that was to be saved as ${record.subject.name} is gone`,
          );
        await whileAtRest(guest, { operation: record.id, signal: work.signal }, async () => {
          path = join(await store.workplace(id), FILE);
          await pool.saveRoot(root, path, work);
        });
      },
      undo: () => store.remove(id),
    };
    return {
      steps: [save, images.takeIn(record, () => ({ path, format: 'raw' }))],
      options: { finish: images.settling(record) },
    };
  }
}
