/**
 * OCI images, from registries and from files. Three steps: find out what the reference means, fetch what is not here yet,
 * make a disk of the layers; then the disk is taken in like any other file. Each goes on after a crash where it was.
 *
 * Credentials that a pull was given are in this process's memory and nowhere else. A daemon that takes a pull up without
 * them goes on as far as the registry lets anybody.
 */
import { arch } from 'node:process';
import type { CommandArguments, CommandReturn } from '../protocol/commands.ts';
import { RoostError } from '../protocol/errors.ts';
import type { OciFacts } from '../protocol/oci.ts';
import { imageNameOf, ociReferenceText, parseOciReference } from '../protocol/oci-reference.ts';
import type { Accepted } from '../protocol/operation.ts';
import { type Actor, type ImageId, imageName } from '../protocol/types.ts';
import type { OciImages, OciOrigin, RegistryCredentials } from '../storage/pool.ts';
import type { ReadyImage } from './image-catalogue.ts';
import type { FinishedFile, Images } from './images.ts';
import type { OperationRecord } from './inventory/operation-table.ts';
import type { OperationWork } from './operations/enqueue.ts';
import type { Finish } from './operations/operations.ts';
import type { Step } from './operations/steps.ts';

type ImportArguments = CommandArguments<'image-import'>;

/** What the journal keeps of a pull. */
type PullRecord = Omit<CommandArguments<'image-pull'>, 'credentials'> & {
  /** Whether it was given credentials. */
  readonly withCredentials?: boolean;
};

/** GOARCH of each of Node's names that differs. */
const architectures: Readonly<Partial<Record<NodeJS.Architecture, string>>> = {
  x64: 'amd64',
  ia32: '386',
  ppc64: 'ppc64le',
};

const hostPlatform = `linux/${architectures[arch] ?? arch}`;

const DENIED: ReadonlySet<unknown> = new Set([401, 403]);

/** Errors: InvalidArgument. */
const referenceOf = (text: string): NonNullable<ReturnType<typeof parseOciReference>> => {
  const reference = parseOciReference(text);
  if (reference) return reference;
  throw new RoostError('InvalidArgument', `${JSON.stringify(text)} is no reference to an image`, {
    hint: 'Give it as debian:12, ghcr.io/team/app:v1 or registry.example:5000/app@sha256:…, in lower case.',
  });
};

export class ImagePulls {
  readonly #images: Images;
  readonly #oci: OciImages;
  readonly #credentials = new Map<ImageId, RegistryCredentials>();

  constructor(images: Images, oci: OciImages) {
    this.#images = images;
    this.#oci = oci;
    images.addWork('image-pull', (record) => this.#bringing(record, () => this.#registryOf(record)));
    images.addWork('image-import', (record) => {
      const args = record.arguments as ImportArguments;
      return args.kind === 'oci' ? this.#bringing(record, () => fileOf(args)) : undefined;
    });
  }

  /** Errors: InvalidArgument for the reference; Unsupported; those of `Images.accept`. */
  async pull(args: CommandArguments<'image-pull'>, actor: Actor): Promise<Accepted> {
    const { credentials, ...shown } = args;
    if (credentials && args.authFile !== undefined)
      throw new RoostError('InvalidArgument', 'Credentials are given twice', {
        hint: 'Give either a file that has them, or name and password.',
      });
    const reference = referenceOf(args.reference);
    const name = args.name ?? imageNameOf(reference);
    if (!imageName.safeParse(name).success)
      throw new RoostError('InvalidArgument', `${name} is no name that an image can have here`, {
        data: { name },
        hint: 'Give it a name of its own.',
      });
    await this.#oci.refuseUnmergeable();
    return await this.#images.accept({
      name,
      version: args.version,
      kind: 'oci',
      source: { kind: 'registry', reference: ociReferenceText(reference) },
      onAccepted: (id) => void (credentials && this.#credentials.set(id, credentials)),
      operation: {
        kind: 'image-pull',
        actor,
        arguments: { ...shown, withCredentials: credentials !== undefined },
        idempotencyKey: args.idempotencyKey,
      },
    });
  }

  /** Errors: as `pull`. */
  async import(args: ImportArguments, actor: Actor): Promise<Accepted> {
    const { name, version, idempotencyKey } = args;
    const unfit = unfitArgument(args);
    if (unfit !== undefined)
      throw new RoostError('InvalidArgument', `An image of kind oci is not imported with ${unfit}`, {
        hint: 'Give the path of an OCI layout or of an archive of docker save; image-pull fetches from a registry.',
      });
    await this.#oci.refuseUnmergeable();
    return await this.#images.accept({
      name,
      version,
      kind: 'oci',
      source: { kind: 'file', path: args.path ?? '' },
      operation: { kind: 'image-import', actor, arguments: args, idempotencyKey },
    });
  }

  /** An image, and what an OCI image wants run. Errors: NotFound, FailedPrecondition when its files are gone. */
  async show(reference: string): Promise<CommandReturn<'query-image'>> {
    const view = this.#images.view(reference);
    if (view.kind !== 'oci' || view.state !== 'ready') return view;
    return { ...view, config: await this.#images.store.ociConfig(view.id) };
  }

  #registryOf(record: OperationRecord): OciOrigin {
    const args = record.arguments as PullRecord;
    return {
      kind: 'registry',
      reference: ociReferenceText(referenceOf(args.reference)),
      credentials: this.#credentials.get(record.subject.id as ImageId),
      authFile: args.authFile,
      authorities: args.certificateAuthorities,
      plainHttp: args.plainHttp,
    };
  }

  #bringing(record: OperationRecord, originOf: () => OciOrigin): OperationWork {
    const { store } = this.#images;
    const id = record.subject.id as ImageId;
    const { platform = hostPlatform, version } = record.arguments as PullRecord;
    let facts: OciFacts | undefined;
    let same: ReadyImage | undefined;
    let disk: FinishedFile | undefined;
    const undo = (): Promise<void> => store.remove(id);
    const request = async (): Promise<Parameters<OciImages['resolve']>[0]> => ({
      from: originOf(),
      platform,
      directory: await store.workplace(id),
    });
    const step = (name: string, act: (work: Parameters<Step['do']>[0]) => Promise<void>): Step => ({
      name,
      do: async (work) => {
        if (!same && !disk) await this.#toldOfLostCredentials(record, () => act(work));
      },
      undo,
    });
    const resolve = step('resolve', async (work) => {
      // An earlier daemon took the disk in, and ended before it could say so.
      if (await store.stored(id)) {
        disk = { path: '', format: 'raw' };
        return;
      }
      facts = await this.#oci.resolve(await request(), work);
      same = version === undefined ? this.#sameAs(record.subject.name, facts) : undefined;
    });
    const fetch = step('fetch', async (work) => await this.#oci.fetch(await request(), work));
    const merge = step('merge', async (work) => {
      const { layout, ...file } = await this.#oci.merge(await request(), work);
      if (facts) disk = { ...file, oci: { ...facts, layout } };
    });
    const copy = this.#images.takeIn(record, () => {
      if (disk) return disk;
      throw new RoostError('Internal', 'An image was to be taken in before its disk was made');
    });
    const take: Step = { ...copy, do: async (work) => await (same ? undo() : copy.do(work)) };
    const settle = this.#images.settling(record);
    const finish: Finish = (state, clean) => {
      this.#credentials.delete(id);
      const result = settle(state, clean);
      if (state !== 'succeeded' || !same) return result;
      return { image: same.id, name: same.name, version: same.version, upToDate: true };
    };
    return { steps: [resolve, fetch, merge, take], options: { finish } };
  }

  /** The newest version of a name, if it is this very image. */
  #sameAs(name: string, { digest, platform }: OciFacts): ReadyImage | undefined {
    const newest = this.#images.newest(name);
    const oci = newest?.stored.oci;
    return oci?.digest === digest && oci.platform === platform ? newest : undefined;
  }

  async #toldOfLostCredentials(record: OperationRecord, act: () => Promise<void>): Promise<void> {
    const { withCredentials, reference } = record.arguments as PullRecord;
    const areLost = withCredentials === true && !this.#credentials.has(record.subject.id as ImageId);
    try {
      await act();
    } catch (error) {
      if (!areLost || !(error instanceof RoostError) || !DENIED.has(error.data?.['status'])) throw error;
      throw new RoostError('FailedPrecondition', `The credentials for ${reference} are gone`, {
        data: error.data ?? {},
        hint: 'They were with the daemon that was given them, which has ended. Pull the image again.',
        cause: error,
      });
    }
  }
}

/** What of an import makes no sense here. */
const unfitArgument = (args: ImportArguments): string | undefined => {
  if (args.url !== undefined) return 'a URL';
  if (args.path === undefined) return 'no path';
  if (args.sha256 !== undefined || args.sha512 !== undefined)
    return 'a digest, since every part of it is held against its own';
  const isOci = args.format === undefined || args.format === 'oci-layout' || args.format === 'docker-archive';
  return isOci ? undefined : `the format ${args.format}`;
};

const fileOf = ({ path = '', format, reference }: ImportArguments): OciOrigin => ({
  kind: format === 'docker-archive' ? 'docker-archive' : 'oci-layout',
  path,
  reference,
});
