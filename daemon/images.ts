/**
 * Images of the inventory: made in order, never removed while a guest needs them.
 *
 * Whoever makes an image of its own, as a builder does, uses three methods, and gets versions, ledger, journal,
 * cancelling, undo and recovery with them:
 * - `addWork(kind, work)` once, before the daemon recovers: how operations of that kind are carried out. `work` is
 *   called again after a crash, with the record alone; its steps are done again from the first.
 * - `accept(request)` in its command's handler: a new version of a name in the state `importing`, and its operation.
 * - `takeIn(record, file)` as the last of its steps, after which the image is complete, and `settling(record)` as its
 *   `finish`. Files on the way go to `store.workplace(id)`, which is in the ledger already and removed with the image.
 */
import { randomUUID } from 'node:crypto';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { Mailbox } from '../lib/mailbox.ts';
import type { Work } from '../lib/work.ts';
import type { BlockSource } from '../protocol/block-source.ts';
import type { CommandArguments } from '../protocol/commands.ts';
import { RoostError } from '../protocol/errors.ts';
import {
  type ImageKind,
  type ImageSource,
  type ImageSourceFormat,
  type ImageView,
  imageSourceFormat,
} from '../protocol/image.ts';
import { imageLabel } from '../protocol/image-reference.ts';
import type { Accepted } from '../protocol/operation.ts';
import type { Actor, ImageId, InstanceId } from '../protocol/types.ts';
import type { ImageImport, ImageOrigin, ImageStore, StoredImage } from '../storage/pool.ts';
import type { EventLog } from './event-log.ts';
import { ImageAliases } from './image-aliases.ts';
import { datedVersion, ImageCatalogue, type ReadyImage } from './image-catalogue.ts';
import { ImageDeletions } from './image-deletions.ts';
import { parseImageUrl } from './image-url.ts';
import type { Inventory } from './inventory/inventory.ts';
import type { OperationRecord } from './inventory/operation-table.ts';
import { enqueue, type OperationWork } from './operations/enqueue.ts';
import type { Limits } from './operations/limits.ts';
import type { Finish, Operations } from './operations/operations.ts';
import type { Step } from './operations/steps.ts';
import { ImageRecords } from './records/image-records.ts';

export interface ImagesOptions {
  readonly inventory: Inventory;
  readonly operations: Operations;
  readonly limits: Limits;
  readonly events: EventLog;
  readonly store: ImageStore;
  readonly instance: InstanceId;
  readonly clock: Clock;
  readonly log: Log;
}

/** A new version of a name, asked for by a command. */
export interface NewVersion {
  readonly name: string;
  /** Dated unless given. */
  readonly version?: string | undefined;
  readonly kind: ImageKind;
  readonly source: ImageSource;
  /** Where it is to be downloaded, with whatever is secret in it. */
  readonly url?: string | undefined;
  /** Told the image's id before any work on it begins; not of an operation that has ended already. */
  readonly onAccepted?: ((id: ImageId) => void) | undefined;
  readonly operation: {
    readonly kind: string;
    readonly actor: Actor;
    readonly arguments: Readonly<Record<string, unknown>>;
    readonly idempotencyKey?: string | undefined;
  };
}

/** A finished file, for the store to take in; distrusted like any other. */
export interface FinishedFile {
  readonly path: string;
  readonly format: ImageSourceFormat;
  readonly sha256?: string | undefined;
  readonly oci?: ImageImport['oci'];
}

/** As what an import of a kind is taken; undefined when that kind cannot have the format that was named. */
const formatOf = ({ kind, format }: CommandArguments<'image-import'>): ImageImport['format'] | undefined => {
  if (kind === 'root') return format === undefined || format === 'tar' ? 'tar' : undefined;
  const { data: given } = imageSourceFormat.optional().safeParse(format);
  if (given === undefined && format !== undefined) return undefined;
  return kind === 'disk' ? (given ?? 'qcow2') : 'raw';
};

type Fetched = Pick<ImageImport, 'from' | 'format' | 'sha256' | 'sha512' | 'oci'>;

export class Images {
  readonly #options: ImagesOptions;
  readonly #catalogue: ImageCatalogue;
  readonly #deletions: ImageDeletions;
  readonly aliases: ImageAliases;
  readonly records: ImageRecords;
  /** One for each operation that has not ended: they wait for nothing but the host's limit. */
  readonly #mailboxes = new Set<Mailbox>();
  readonly #works = new Map<string, readonly ((record: OperationRecord) => OperationWork | undefined)[]>();
  /** What the work on an operation took in, for the end of it. */
  readonly #taken = new WeakMap<OperationRecord, StoredImage>();

  constructor(options: ImagesOptions) {
    this.#options = options;
    this.#catalogue = new ImageCatalogue(options.inventory.images);
    this.records = new ImageRecords(options);
    this.#deletions = new ImageDeletions(options, this.#catalogue, this.records);
    this.aliases = new ImageAliases(options, this.#catalogue, this.records);
    this.addWork('image-import', (record) => this.#importing(record));
    this.addWork('image-delete', (record) => this.#deletions.work(record));
    this.addWork('image-prune', (record) => this.#deletions.work(record));
  }

  /** See the head of this file. Of several for a kind the last added is asked first; undefined leaves it to the others. */
  addWork(kind: string, work: (record: OperationRecord) => OperationWork | undefined): void {
    this.#works.set(kind, [work, ...(this.#works.get(kind) ?? [])]);
  }

  get store(): ImageStore {
    return this.#options.store;
  }

  /** Errors: NotFound; FailedPrecondition while it is imported; InvalidArgument for another kind. */
  require(reference: string, kind?: ImageKind): ReadyImage {
    return this.#catalogue.require(reference, kind);
  }

  source(id: ImageId): BlockSource {
    return this.#options.store.source(id, this.require(id).stored);
  }

  /** Errors: NotFound; those of `ImageStore.unpack`. */
  unpack(id: ImageId, work: Work): Promise<void> {
    return this.#options.store.unpack(id, this.require(id).stored, work);
  }

  /** One image as it is told. Errors: NotFound. */
  view(reference: string): ImageView {
    const { id } = this.#catalogue.find(reference);
    const [view] = this.#catalogue.views([id]);
    if (view) return view;
    throw new RoostError('NotFound', `There is no image called ${reference}`);
  }

  /** The newest version of a name that is complete. */
  newest(name: string): ReadyImage | undefined {
    return this.#catalogue.newestReady(name);
  }

  /** By name, the newest version first, each once; those behind a place in that order. */
  views(references?: readonly string[], after?: string): readonly ImageView[] {
    return this.#catalogue.views(references, after);
  }

  placeOf(view: ImageView): string {
    return this.#catalogue.placeOf(view);
  }

  /** Errors: AlreadyExists for a version that is there or a name that is an alias; InvalidArgument for another kind. */
  async accept(request: NewVersion): Promise<Accepted> {
    const { inventory, operations, clock, store } = this.#options;
    const { operation, name, kind, source, url } = request;
    const record = await inventory.db.durably(() => {
      const repeated = operations.repeated(operation.idempotencyKey, operation.kind, name);
      if (repeated) return repeated;
      const version = this.#versionFor(request);
      const id = randomUUID() as ImageId;
      inventory.images.insert({ id, name, version, kind, source, url, createdAt: clock.now() });
      inventory.ledger.record({ kind: 'image', id }, 'existence', store.plan(id), clock.now());
      return operations.insert({ ...operation, subject: { kind: 'image', id, name } });
    });
    if (record.endedAt === undefined) request.onAccepted?.(record.subject.id as ImageId);
    return this.#enqueue(record);
  }

  /** A step that takes a finished file in as the image that the operation is about. */
  takeIn(record: OperationRecord, file: () => FinishedFile | Promise<FinishedFile>): Step {
    return this.#taking(record, async () => {
      const { path, ...rest } = await file();
      return { ...rest, from: { kind: 'file', path } };
    });
  }

  #taking(record: OperationRecord, fileOf: () => Promise<Fetched> | Fetched): Step {
    const { store } = this.#options;
    const id = record.subject.id as ImageId;
    return {
      name: 'copy',
      do: async (work) => {
        const file = await fileOf();
        const stored = await store.import({ id, kind: this.#kindOf(id), ...file }, work);
        this.#taken.set(record, stored);
        await this.records.write(id, stored);
      },
      undo: () => store.remove(id),
    };
  }

  #kindOf(id: ImageId): ImageKind {
    return this.#options.inventory.images.byId(id)?.kind ?? 'disk';
  }

  /** Ends an operation that was to make an image: it is ready, or there is none. */
  settling(record: OperationRecord): Finish {
    const { inventory, events } = this.#options;
    const id = record.subject.id as ImageId;
    return (state, clean) => {
      const image = inventory.images.byId(id);
      const stored = this.#taken.get(record);
      if (state === 'succeeded' && stored && image) {
        const { name, version } = image;
        inventory.images.ready(id, stored);
        events.emit({ event: 'IMAGE_CHANGED', data: { image: id, name, version, change: 'imported' } });
        return { image: id, name, version };
      }
      inventory.images.delete(id);
      if (clean) inventory.ledger.release({ kind: 'image', id });
      return undefined;
    };
  }

  async import(args: CommandArguments<'image-import'>, actor: Actor): Promise<Accepted> {
    const { name, version, kind, path, idempotencyKey } = args;
    const url = args.url === undefined ? undefined : parseImageUrl(args.url);
    if ((path === undefined) === (url === undefined))
      throw new RoostError('InvalidArgument', 'An import needs either a path or a URL', {
        hint: 'Give one of the two.',
      });
    if (formatOf(args) === undefined)
      throw new RoostError('InvalidArgument', `A ${kind} cannot be a ${args.format}`, {
        data: { kind, format: args.format ?? '' },
        hint: 'Formats of disks are qcow2, raw, vmdk and vhdx; a root is a tar, an oci an oci-layout or docker-archive.',
      });
    await this.#options.store.refuseUnimportable(kind);
    const source: ImageSource = url ? { kind: 'url', url: url.shownAs } : { kind: 'file', path: path ?? '' };
    const shown = url ? { ...args, url: url.shownAs } : args;
    const operation = { kind: 'image-import', actor, arguments: shown, idempotencyKey };
    return await this.accept({ name, version, kind, source, url: url?.url, operation });
  }

  async delete(args: CommandArguments<'image-delete'>, actor: Actor): Promise<Accepted> {
    return this.#enqueue(await this.#deletions.delete(args, actor));
  }

  async prune(args: CommandArguments<'image-prune'>, actor: Actor): Promise<Accepted> {
    return this.#enqueue(await this.#deletions.prune(args, actor));
  }

  /** Takes up what an earlier daemon left. */
  recover(leftovers: readonly OperationRecord[]): void {
    for (const record of leftovers) this.#enqueue(record);
  }

  async idle(): Promise<void> {
    await Promise.all([...this.#mailboxes].map((mailbox) => mailbox.idle()));
    await this.records.idle();
  }

  #versionFor({ name, version, kind }: NewVersion): string {
    const { inventory, clock } = this.#options;
    if (this.#catalogue.isAlias(name))
      throw new RoostError('AlreadyExists', `${name} is an alias`, {
        data: { name, means: imageLabel(this.#catalogue.find(name)) },
        hint: 'Import to the name that it stands for, or delete it with image-alias-delete first.',
      });
    const versions = inventory.images.versions(name);
    const other = versions.find((image) => image.kind !== kind);
    if (other)
      throw new RoostError('InvalidArgument', `The versions of image ${name} are of kind ${other.kind}`, {
        data: { name, kind: other.kind, given: kind },
        hint: 'Choose another name.',
      });
    const taken = versions.map((image) => image.version);
    if (version !== undefined && taken.includes(version))
      throw new RoostError('AlreadyExists', `There is an image called ${name}@${version}`, {
        data: { name, version },
        hint: 'Choose another version, or delete that one first.',
      });
    return version ?? datedVersion(clock.now(), taken);
  }

  #enqueue(record: OperationRecord): Accepted {
    return enqueue(
      this.#options.operations,
      record,
      () => this.#ownMailbox(),
      (each) => this.#workOf(each),
      (id, work) => this.#options.limits.inTurn('diskCopies', id, work),
    );
  }

  #ownMailbox(): Mailbox {
    const mailbox = new Mailbox();
    this.#mailboxes.add(mailbox);
    // After the operation, which is posted next, in the same breath.
    queueMicrotask(() => void mailbox.idle().then(() => this.#mailboxes.delete(mailbox)));
    return mailbox;
  }

  #workOf(record: OperationRecord): OperationWork {
    for (const work of this.#works.get(record.kind) ?? []) {
      const found = work(record);
      if (found) return found;
    }
    throw new RoostError('Internal', `Nobody carries out ${record.kind}`);
  }

  #importing(record: OperationRecord): OperationWork {
    const { store } = this.#options;
    const id = record.subject.id as ImageId;
    const args = record.arguments as CommandArguments<'image-import'>;
    const file: Fetched = {
      from: this.#originOf(id, args),
      format: formatOf(args) ?? 'raw',
      sha256: args.sha256,
      sha512: args.sha512,
    };
    const download: Step = {
      name: 'download',
      do: (work) => store.download({ id, kind: args.kind, ...file }, work),
      undo: () => store.remove(id),
    };
    const copy = this.#taking(record, () => file);
    return {
      steps: file.from.kind === 'url' ? [download, copy] : [copy],
      options: { finish: this.settling(record) },
    };
  }

  #originOf(id: ImageId, args: CommandArguments<'image-import'>): ImageOrigin {
    if (args.url === undefined) return { kind: 'file', path: args.path ?? '' };
    const url = this.#options.inventory.images.urlOf(id) ?? args.url;
    return { kind: 'url', url, shownAs: args.url, authorities: args.certificateAuthorities };
  }
}
