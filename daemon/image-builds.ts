/**
 * Images that are built here. A build works in the image's own workplace. After a crash it goes on where a finished file
 * lies there; else it is begun again from nothing, because what a builder left half done is worth nothing.
 */
import type { CommandArguments } from '../protocol/commands.ts';
import { RoostError } from '../protocol/errors.ts';
import type { ImageKind } from '../protocol/image.ts';
import type { Accepted } from '../protocol/operation.ts';
import type { Actor, ImageId } from '../protocol/types.ts';
import type { BuiltFile, ImageBuilder } from '../storage/pool.ts';
import type { Images } from './images.ts';
import type { OperationRecord } from './inventory/operation-table.ts';
import type { OperationWork } from './operations/enqueue.ts';
import type { Step } from './operations/steps.ts';

/** What comes of each recipe. */
const kinds: Readonly<Record<CommandArguments<'image-build'>['recipe'], ImageKind>> = {
  debian: 'disk',
  'debian-root': 'root',
  'microvm-kernel': 'kernel',
  'microvm-init': 'initrd',
  'microvm-upper': 'disk',
};

export class ImageBuilds {
  readonly #images: Images;
  readonly #builder: ImageBuilder;

  constructor(images: Images, builder: ImageBuilder) {
    this.#images = images;
    this.#builder = builder;
    images.addWork('image-build', (record) => this.#building(record));
  }

  /** Errors: Unsupported where this host cannot build it; those of `Images.accept`. */
  async accept(args: CommandArguments<'image-build'>, actor: Actor, signal: AbortSignal): Promise<Accepted> {
    const { recipe, suite, idempotencyKey } = args;
    await this.#builder.refuseUnbuildable(recipe, signal);
    return await this.#images.accept({
      name: args.name ?? recipe,
      version: args.version,
      kind: kinds[recipe],
      source: { kind: 'build', recipe, details: { suite } },
      operation: { kind: 'image-build', actor, arguments: args, idempotencyKey },
    });
  }

  #building(record: OperationRecord): OperationWork {
    const { store } = this.#images;
    const { recipe, suite } = record.arguments as CommandArguments<'image-build'>;
    const id = record.subject.id as ImageId;
    let built: BuiltFile | undefined;
    const build: Step = {
      name: 'build',
      do: async (work) => {
        built = await this.#builder.build({ recipe, suite, directory: await store.workplace(id) }, work);
      },
      undo: async () => {
        await this.#builder.clear(await store.workplace(id));
        await store.remove(id);
      },
    };
    const file = (): BuiltFile => {
      if (built) return built;
      throw new RoostError('Internal', 'An image was to be taken in before it was built');
    };
    return {
      steps: [build, this.#images.takeIn(record, file)],
      options: { finish: this.#images.settling(record) },
    };
  }
}
