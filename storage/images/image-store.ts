/**
 * The images of this host, one directory each: `<path>/<id>/` with `image.qcow2` (a disk) or `image.raw` (all else; a
 * root file system as a squashfs),
 * `image.json`, its facts, and `record.json`, the daemon's own record; in `oci/` the blobs that an OCI image was made
 * of, in `tree/` what is in it where that was asked for (image-tree.ts). Made under `.importing-<id>` and renamed when all of it is on disk,
 * so that a directory under its own name is always complete. With privileges all is root's, readable for the group
 * of the guests and written by nobody. What is on its way to become an image lies in `.working-<id>`, and outlives a
 * crash there.
 */
import { chmod, chown, mkdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { Lanes } from '../../lib/lanes.ts';
import { UndoStack } from '../../lib/undo-stack.ts';
import type { Work } from '../../lib/work.ts';
import type { BlockSource } from '../../protocol/block-source.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { HostObject } from '../../protocol/host-object.ts';
import type { ImageKind } from '../../protocol/image.ts';
import { type OciConfig, ociFacts } from '../../protocol/oci.ts';
import { type ImageId, imageId } from '../../protocol/types.ts';
import type { Confinement, Identity } from '../files/confined-tool.ts';
import {
  ensureDirectory,
  type FileAccess,
  namesIn,
  orIfMissing,
  removeDirectory,
  renameDurably,
  replaceFile,
  settleFile,
} from '../files/durable-files.ts';
import { readRecordsIn } from '../files/record-files.ts';
import { withStorageErrors } from '../files/storage-errors.ts';
import { LAYOUT, linkLayout } from '../oci/blob-directory.ts';
import { configIn } from '../oci/image-config-file.ts';
import { type MergeLimits, type MergeOptions, mergeLimits } from '../oci/tree/merge.ts';
import { refuseMissingMergePrograms } from '../oci/tree/merge-programs.ts';
import type { ImageImport, ImageStore, KeptRecord, KeptRecords, StoredImage } from '../pool.ts';
import { convertDisk, type DiskSource, MAX_DISK_FILE_BYTES } from './disk-conversion.ts';
import { download } from './download/download.ts';
import { copySource, digestOf } from './image-source.ts';
import { isUnpacked, removeImageTree, treePath, unpackImage } from './image-tree.ts';
import { packRoot } from './root-archive.ts';

/** No kernel or initial ramdisk is larger; they are loaded into the guest's memory whole. */
export const MAX_KERNEL_BYTES = 1024 ** 3;

const IMPORTING = '.importing-';
const WORKING = '.working-';
const unfinished = /^\.(importing|working)-/;
const FACTS = 'image.json';
const RECORD = 'record.json';

const storedImage = z.strictObject({
  format: z.enum(['qcow2', 'raw']),
  sizeBytes: z.int().nonnegative(),
  virtualSizeBytes: z.int().nonnegative(),
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  oci: ociFacts.optional(),
});

export interface ImageStoreOptions {
  /** Absolute path of the directory of images; made when needed. */
  readonly path: string;
  /** Group of the guests, when the daemon has privileges. */
  readonly imagesGid?: number;
  /** Path of roost-launcher. */
  readonly launcherPath: string;
  readonly splicePath: string;
  /** Of archives of root file systems; `mergeLimits` unless given. */
  readonly limits?: MergeLimits;
  /** Who fetches and reads strangers' images; without it the daemon itself does. */
  readonly importer?: Identity;
  /** Path of roost-warden, where the daemon may mount an image; without it none is unpacked. */
  readonly wardenPath?: string;
  /** See `DownloadOptions`; one second and one minute unless given. */
  readonly retryDelayMs?: number;
  readonly stallSeconds?: number;
}

const readFacts = (text: string): StoredImage | undefined => {
  try {
    return storedImage.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
};

const mayNotUnpack = (): RoostError =>
  new RoostError('Unsupported', 'This daemon may not mount an image, which unpacking it needs', {
    hint: 'Run it as root.',
  });

const shownAs = ({ from }: ImageImport): string => (from.kind === 'file' ? from.path : from.shownAs);

/** Errors: InvalidArgument when the file has another digest than the one given. */
const holdAgainst = (
  request: ImageImport,
  name: string,
  expected: string | undefined,
  actual: string,
): void => {
  if (expected === undefined || expected.toLowerCase() === actual) return;
  throw new RoostError(
    'InvalidArgument',
    `${shownAs(request)} has another ${name} digest than the one given`,
    {
      data: { path: shownAs(request), expected, actual },
      hint: 'Fetch the file again, or give the digest of this one if you trust it.',
    },
  );
};

const isFormatOf = ({ kind, format }: ImageImport): boolean => {
  if (kind === 'disk') return format !== 'tar';
  return format === 'raw' || (kind === 'root' && format === 'tar');
};

const maxBytesOf = ({ kind }: ImageImport): number =>
  kind === 'kernel' || kind === 'initrd' ? MAX_KERNEL_BYTES : MAX_DISK_FILE_BYTES;

class DirectoryImageStore implements ImageStore {
  readonly #path: string;
  readonly #gid: number | undefined;
  readonly #confinement: Confinement;
  readonly #packing: Omit<MergeOptions, 'rules'>;
  readonly #retryDelayMs: number;
  readonly #stallSeconds: number;
  readonly #wardenPath: string | undefined;
  /** Two containers of one image want it unpacked once. */
  readonly #unpacking = new Lanes(1);

  constructor(options: ImageStoreOptions) {
    this.#path = options.path;
    this.#gid = options.imagesGid;
    this.#confinement = { launcherPath: options.launcherPath, identity: options.importer };
    const { splicePath, limits = mergeLimits } = options;
    this.#packing = { confinement: this.#confinement, splicePath, limits };
    this.#retryDelayMs = options.retryDelayMs ?? 1000;
    this.#stallSeconds = options.stallSeconds ?? 60;
    this.#wardenPath = options.wardenPath;
  }

  async refuseUnimportable(kind: ImageKind): Promise<void> {
    if (kind === 'root') await refuseMissingMergePrograms();
  }

  plan(id: ImageId): readonly HostObject[] {
    return [{ kind: 'directory', name: this.#directory(id) }];
  }

  source(id: ImageId, image: Pick<StoredImage, 'format' | 'virtualSizeBytes'>): BlockSource {
    const path = join(this.#directory(id), `image.${image.format}`);
    return { format: image.format, path, readOnly: true, sizeBytes: image.virtualSizeBytes };
  }

  download(request: ImageImport, work: Work): Promise<void> {
    return withStorageErrors(`download ${shownAs(request)}`, async () => {
      work.signal.throwIfAborted();
      if ((await this.#stored(request.id)) === undefined) await this.#obtain(request, work);
    });
  }

  import(request: ImageImport, work: Work): Promise<StoredImage> {
    return withStorageErrors(`import ${shownAs(request)}`, () => this.#import(request, work));
  }

  workplace(id: ImageId): Promise<string> {
    return withStorageErrors(`make a place for the image ${id}`, async () => {
      await this.#makeRoot();
      await ensureDirectory(this.#working(id), 0o700);
      return this.#working(id);
    });
  }

  unpack(...[id, image, work]: Parameters<ImageStore['unpack']>): Promise<void> {
    return withStorageErrors(`unpack the image ${id}`, async () => {
      const wardenPath = this.#wardenPath;
      // Nobody waits for another image's.
      if (await isUnpacked(this.#directory(id))) return;
      if (wardenPath === undefined) throw mayNotUnpack();
      const leave = await this.#unpacking.enter(id, work.signal);
      try {
        await unpackImage(this.#directory(id), this.source(id, image).path, wardenPath, work);
      } finally {
        leave();
      }
    });
  }

  treePath(id: ImageId): string {
    return treePath(this.#directory(id));
  }

  remove(id: ImageId): Promise<void> {
    return withStorageErrors(`remove the image ${id}`, async () => {
      await removeDirectory(this.#working(id));
      await removeDirectory(this.#staging(id));
      await removeImageTree(this.#directory(id));
      await removeDirectory(this.#directory(id));
    });
  }

  async check(id: ImageId, image: Pick<StoredImage, 'format' | 'virtualSizeBytes'>): Promise<void> {
    const { path } = this.source(id, image);
    const found = await withStorageErrors(`look at ${path}`, () => orIfMissing(stat(path), undefined));
    if (found?.isFile()) return;
    throw new RoostError('FailedPrecondition', `${path}, which is the image, is missing`, {
      data: { path },
      hint: 'Put the file back from a backup, or delete the image and import it again.',
    });
  }

  async writeRecord(id: ImageId, record: KeptRecord): Promise<void> {
    const directory = this.#directory(id);
    const partialPath = join(directory, `.${RECORD}`);
    await withStorageErrors(`write the record of the image ${id}`, async () => {
      if ((await this.#stored(id)) === undefined) return;
      const text = `${JSON.stringify(record, null, 2)}\n`;
      await replaceFile(join(directory, RECORD), text, { mode: 0o600, partialPath });
    });
  }

  async readRecords(): Promise<KeptRecords> {
    const ids = (await namesIn(this.#path)).filter((name) => imageId.safeParse(name).success);
    return await readRecordsIn(
      ids.map((id) => join(this.#path, id)),
      RECORD,
    );
  }

  stored(id: ImageId): Promise<StoredImage | undefined> {
    return withStorageErrors(`look at the image ${id}`, () => this.#stored(id));
  }

  ociConfig(id: ImageId): Promise<OciConfig> {
    const directory = this.#directory(id);
    return withStorageErrors(`read the config of the image ${id}`, async () => {
      const config = await configIn(directory);
      if (config) return config;
      throw new RoostError('FailedPrecondition', `${directory} does not hold the config of the image`, {
        data: { path: directory },
        hint: 'Put the files back from a backup, or delete the image and pull it again.',
      });
    });
  }

  /** An import that was cut short stands under the name that it would have got, because `remove` removes it. */
  async inspect(): Promise<readonly HostObject[]> {
    const ids = (await namesIn(this.#path))
      .map((name) => name.replace(unfinished, ''))
      .filter((name) => imageId.safeParse(name).success);
    return [...new Set(ids)].sort().map((id) => ({ kind: 'directory', name: join(this.#path, id) }));
  }

  #directory(id: ImageId): string {
    return join(this.#path, imageId.parse(id));
  }

  #staging(id: ImageId): string {
    return join(this.#path, `${IMPORTING}${imageId.parse(id)}`);
  }

  #working(id: ImageId): string {
    return join(this.#path, `${WORKING}${imageId.parse(id)}`);
  }

  async #makeRoot(): Promise<void> {
    await ensureDirectory(this.#path, this.#gid === undefined ? 0o700 : 0o711);
  }

  /** Facts of a complete image; undefined when there is none, or none that can be read. */
  async #stored(id: ImageId): Promise<StoredImage | undefined> {
    const text = await orIfMissing(readFile(join(this.#directory(id), FACTS), 'utf8'), undefined);
    return text === undefined ? undefined : readFacts(text);
  }

  async #import(request: ImageImport, work: Work): Promise<StoredImage> {
    work.signal.throwIfAborted();
    if (!isFormatOf(request))
      throw new RoostError('InvalidArgument', `A ${request.kind} cannot be imported as ${request.format}`);
    const staging = this.#staging(request.id);
    await removeDirectory(staging);
    const stored = await this.#stored(request.id);
    if (stored) {
      await removeDirectory(this.#working(request.id));
      return stored;
    }
    await this.#makeRoot();
    await using undo = new UndoStack();
    undo.add(() => removeDirectory(staging));
    await this.#makeStaging(staging);
    const image = await this.#fill(staging, request, work);
    await this.#publish(staging, request.id, image, work);
    undo.succeed();
    await removeDirectory(this.#working(request.id));
    return image;
  }

  /** Path of the file on this host, downloaded if it has to be. */
  async #obtain(request: ImageImport, work: Work): Promise<string> {
    const { from } = request;
    if (from.kind === 'file') return from.path;
    const place = await this.workplace(request.id);
    const hasDigest = request.sha256 !== undefined || request.sha512 !== undefined;
    const wanted = { ...from, maxBytes: maxBytesOf(request), hasDigest };
    const confinement = this.#confinement;
    const options = { confinement, retryDelayMs: this.#retryDelayMs, stallSeconds: this.#stallSeconds };
    return await download(place, wanted, options, work);
  }

  /** The importer may pass through and read the copy by its group, and change nothing. */
  async #makeStaging(staging: string): Promise<void> {
    await mkdir(staging, { mode: 0o700 });
    const { identity } = this.#confinement;
    if (!identity) return;
    await chown(staging, process.geteuid?.() ?? 0, identity.gid);
    await chmod(staging, 0o710);
  }

  /** Leaves the image's one file in `staging`, under its own name. */
  async #fill(staging: string, request: ImageImport, work: Work): Promise<StoredImage> {
    const copy = join(staging, 'source');
    const source = { path: await this.#obtain(request, work), shownAs: shownAs(request) };
    const sizeBytes = await copySource(source, copy, maxBytesOf(request), work);
    const sha256 = await this.#digest(request, copy, sizeBytes, work);
    const format = request.kind === 'disk' ? 'qcow2' : 'raw';
    const result = join(staging, `image.${format}`);
    const made = await this.#make(result, { ...source, path: copy, sizeBytes }, request, work);
    const { hostBytes } = await settleFile(result, this.#access());
    const virtualSizeBytes = made ?? (await stat(result)).size;
    if (!request.oci) return { format, sizeBytes: hostBytes, virtualSizeBytes, sha256 };
    const { layout, ...oci } = request.oci;
    const blobBytes = await linkLayout(layout, join(staging, LAYOUT));
    return { format, sizeBytes: hostBytes + blobBytes, virtualSizeBytes, sha256, oci };
  }

  /** Makes the image's file of the copy, which is used up. Gives the size of the disk where it is another than the file's. */
  async #make(
    result: string,
    source: Pick<DiskSource, 'path' | 'shownAs' | 'sizeBytes'>,
    { kind, format }: ImageImport,
    work: Work,
  ): Promise<number | undefined> {
    const copy = source.path;
    if (kind !== 'disk' && format !== 'tar') {
      await rename(copy, result);
      return undefined;
    }
    const { identity } = this.#confinement;
    if (identity) await chown(copy, process.geteuid?.() ?? 0, identity.gid);
    await chmod(copy, 0o440);
    const sizeBytes =
      format === 'tar'
        ? await packRoot(source, result, this.#packing, work)
        : await convertDisk({ ...source, format }, result, this.#confinement, work);
    await rm(copy);
    return sizeBytes;
  }

  /** SHA-256, and refused when a digest that was given is another one. */
  async #digest(request: ImageImport, copy: string, sizeBytes: number, work: Work): Promise<string> {
    work.progress({ done: 0, total: sizeBytes, unit: 'bytes', message: 'Computing the digest' });
    const sha256 = await digestOf(copy, 'sha256', work.signal);
    holdAgainst(request, 'SHA-256', request.sha256, sha256);
    if (request.sha512 !== undefined)
      holdAgainst(request, 'SHA-512', request.sha512, await digestOf(copy, 'sha512', work.signal));
    return sha256;
  }

  async #publish(staging: string, id: ImageId, image: StoredImage, work: Work): Promise<void> {
    const access = this.#access();
    const facts = `${JSON.stringify(image, null, 2)}\n`;
    await replaceFile(join(staging, FACTS), facts, { ...access, partialPath: join(staging, `.${FACTS}`) });
    if (access.owner) await chown(staging, access.owner.uid, access.owner.gid);
    await chmod(staging, this.#gid === undefined ? 0o700 : 0o750);
    work.signal.throwIfAborted();
    await removeImageTree(this.#directory(id));
    await removeDirectory(this.#directory(id));
    await renameDurably(staging, this.#directory(id));
  }

  #access(): FileAccess {
    return this.#gid === undefined
      ? { mode: 0o400 }
      : { mode: 0o440, owner: { uid: process.geteuid?.() ?? 0, gid: this.#gid } };
  }
}

export const imageStore = (options: ImageStoreOptions): ImageStore => new DirectoryImageStore(options);
