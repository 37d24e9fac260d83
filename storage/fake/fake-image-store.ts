/**
 * Images in memory, for tests of what uses an image store. Sources are declared by path or URL with `offer`; nothing is
 * read. `before` runs ahead of an import, so that a test can hold it up or let it fail.
 */
import { createHash } from 'node:crypto';
import type { Work } from '../../lib/work.ts';
import type { BlockSource } from '../../protocol/block-source.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { HostObject } from '../../protocol/host-object.ts';
import type { OciConfig } from '../../protocol/oci.ts';
import type { ImageId } from '../../protocol/types.ts';
import type { ImageImport, ImageStore, KeptRecord, KeptRecords, StoredImage } from '../pool.ts';

export interface FakeImageStoreOptions {
  readonly path?: string;
  readonly before?: (request: ImageImport, work: Work) => Promise<void> | void;
}

export class FakeImageStore implements ImageStore {
  readonly #path: string;
  readonly #before: NonNullable<FakeImageStoreOptions['before']>;
  readonly #offered = new Map<string, number>();
  readonly #images = new Map<ImageId, StoredImage>();
  readonly #workplaces = new Set<ImageId>();
  readonly #unpacked = new Set<ImageId>();
  /** Records as they lie there; a test may damage them. */
  readonly records = new Map<ImageId, KeptRecord>();
  readonly #downloaded = new Set<ImageId>();
  /** Why this host cannot import, if it cannot. */
  unimportable: string | undefined;
  /** Downloads that came to their end. */
  downloads = 0;
  /** Runs ahead of each removal. */
  beforeRemove: (id: ImageId) => Promise<void> | void = () => undefined;

  constructor(options: FakeImageStoreOptions = {}) {
    this.#path = options.path ?? '/nonexistent/images';
    this.#before = options.before ?? (() => undefined);
  }

  /** Makes an import of a path or URL find a file of that size; its digests are those of the path. */
  offer(path: string, sizeBytes: number): void {
    this.#offered.set(path, sizeBytes);
  }

  async download(request: ImageImport, work: Work): Promise<void> {
    const { from, id } = request;
    work.signal.throwIfAborted();
    if (from.kind === 'file' || this.#images.has(id) || this.#downloaded.has(id)) return;
    this.#workplaces.add(id);
    const total = this.#offered.get(from.url);
    if (total === undefined) throw new RoostError('NotFound', `Could not download ${from.shownAs}`);
    work.progress({ done: 0, total, unit: 'bytes', ratePerSecond: 1 });
    await this.#before(request, work);
    work.signal.throwIfAborted();
    work.progress({ done: total, total, unit: 'bytes' });
    this.downloads += 1;
    this.#downloaded.add(id);
  }

  refuseUnimportable(): Promise<void> {
    return this.unimportable === undefined
      ? Promise.resolve()
      : Promise.reject(new RoostError('Unsupported', this.unimportable));
  }

  plan(id: ImageId): readonly HostObject[] {
    return [{ kind: 'directory', name: `${this.#path}/${id}` }];
  }

  async import(request: ImageImport, work: Work): Promise<StoredImage> {
    work.signal.throwIfAborted();
    const stored = this.#images.get(request.id);
    if (stored) return stored;
    const { from } = request;
    const name = from.kind === 'file' ? from.path : from.url;
    await this.download(request, work);
    const sizeBytes = this.#offered.get(name);
    if (sizeBytes === undefined) throw new RoostError('NotFound', `There is no file ${name}`);
    const digestOf = (algorithm: string): string => createHash(algorithm).update(name).digest('hex');
    const sha256 = digestOf('sha256');
    const given = [request.sha256 ?? sha256, request.sha512 ?? digestOf('sha512')];
    if (given[0] !== sha256 || given[1] !== digestOf('sha512'))
      throw new RoostError('InvalidArgument', `${name} has another digest than the one given`);
    work.progress({ done: 0, total: sizeBytes, unit: 'bytes' });
    await this.#before(request, work);
    work.progress({ done: sizeBytes, total: sizeBytes, unit: 'bytes' });
    work.signal.throwIfAborted();
    const format = request.kind === 'disk' ? 'qcow2' : 'raw';
    const { layout: _layout, ...oci } = request.oci ?? { layout: '' };
    const image = {
      format,
      sizeBytes,
      virtualSizeBytes: Math.ceil(sizeBytes / 512) * 512,
      sha256,
      ...(request.oci ? { oci: { ...oci } as StoredImage['oci'] } : {}),
    } as const;
    this.#images.set(request.id, image);
    this.#workplaces.delete(request.id);
    return image;
  }

  workplace(id: ImageId): Promise<string> {
    this.#workplaces.add(id);
    return Promise.resolve(`${this.#path}/.working-${id}`);
  }

  async unpack(...[id, image, { signal }]: Parameters<ImageStore['unpack']>): Promise<void> {
    signal.throwIfAborted();
    if (this.#unpacked.has(id)) return;
    await this.check(id, image);
    this.#unpacked.add(id);
  }

  treePath(id: ImageId): string {
    return `${this.#path}/${id}/tree/root`;
  }

  /** Images that are unpacked. */
  get unpacked(): ReadonlySet<ImageId> {
    return this.#unpacked;
  }

  async remove(id: ImageId): Promise<void> {
    await this.beforeRemove(id);
    this.#unpacked.delete(id);
    this.#workplaces.delete(id);
    this.#downloaded.delete(id);
    this.#images.delete(id);
    this.records.delete(id);
  }

  ociConfig(id: ImageId): Promise<OciConfig> {
    if (this.#images.get(id)?.oci)
      return Promise.resolve({
        entrypoint: [],
        cmd: ['/bin/true'],
        env: [],
        exposedPorts: [],
        volumes: [],
        labels: {},
      });
    return Promise.reject(new RoostError('FailedPrecondition', `There is no config of the image ${id}`));
  }

  /** Somebody removes an image's files behind the store's back. */
  lose(id: ImageId): void {
    this.#images.delete(id);
  }

  check(id: ImageId, image: Pick<StoredImage, 'format' | 'virtualSizeBytes'>): Promise<void> {
    if (this.#images.has(id)) return Promise.resolve();
    const { path } = this.source(id, image);
    const missing = new RoostError('FailedPrecondition', `${path}, which is the image, is missing`, {
      data: { path },
    });
    return Promise.reject(missing);
  }

  async writeRecord(id: ImageId, record: KeptRecord): Promise<void> {
    if (this.#images.has(id)) this.records.set(id, structuredClone(record));
  }

  async readRecords(): Promise<KeptRecords> {
    return { records: structuredClone([...this.records.values()]), unreadable: [] };
  }

  async stored(id: ImageId): Promise<StoredImage | undefined> {
    return this.#images.get(id);
  }

  source(id: ImageId, image: Pick<StoredImage, 'format' | 'virtualSizeBytes'>): BlockSource {
    const path = `${this.#path}/${id}/image.${image.format}`;
    return { format: image.format, path, readOnly: true, sizeBytes: image.virtualSizeBytes };
  }

  inspect(): Promise<readonly HostObject[]> {
    const ids = new Set([...this.#images.keys(), ...this.#workplaces]);
    return Promise.resolve([...ids].flatMap((id) => this.plan(id)));
  }
}
