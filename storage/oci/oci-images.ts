/**
 * OCI images, from wherever they are to a disk, in the directory of one image:
 *   oci/         its blobs, as a layout of their own (blob-directory.ts); kept with the image
 *   fetch/       what is on its way
 *   merge/       the layers, unpacked, while the disk is made of them
 *   disk         the disk, once it is complete
 */
import { createHash } from 'node:crypto';
import { access, rename, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Lanes } from '../../lib/lanes.ts';
import type { Work } from '../../lib/work.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { OciFacts } from '../../protocol/oci.ts';
import type { Identity } from '../files/confined-tool.ts';
import { ensureDirectory, orIfMissing, removeDirectory } from '../files/durable-files.ts';
import { withStorageErrors } from '../files/storage-errors.ts';
import type { BuiltFile, OciImages, OciRequest } from '../pool.ts';
import { BlobDirectory } from './blob-directory.ts';
import { type Digest, digest } from './digest.ts';
import { type ImageConfig, parseImageConfig } from './image-config.ts';
import type { ImageOrigin } from './image-origin.ts';
import { dockerArchiveImages } from './local/docker-archive-origin.ts';
import { layoutImages } from './local/layout-origin.ts';
import { localFiles } from './local/local-files.ts';
import {
  choosePlatform,
  type Descriptor,
  MAX_MANIFEST_BYTES,
  type ManifestDocument,
  malformed,
  parseManifest,
  parsePlatform,
  platformText,
  runsOn,
} from './manifest.ts';
import { isIndex, isManifest, layerCompression, OCI_MANIFEST } from './media-types.ts';
import type { RegistrySettings } from './registry/endpoints.ts';
import { registryImages } from './registry/registry-origin.ts';
import { type MergeLimits, type MergeOptions, mergeLayers, mergeLimits } from './tree/merge.ts';
import { refuseMissingMergePrograms } from './tree/merge-programs.ts';

export interface OciImagesOptions {
  /** Absolute path of the directory that all images are in, where blobs are shared. */
  readonly imagesPath: string;
  readonly launcherPath: string;
  readonly splicePath: string;
  /** Who fetches and reads strangers' images; without it the daemon itself does. */
  readonly importer?: Identity | undefined;
  readonly registries?: readonly RegistrySettings[];
  /** See `DownloadOptions`; one second and one minute unless given. */
  readonly retryDelayMs?: number;
  readonly stallSeconds?: number;
  readonly limits?: MergeLimits;
}

type Manifest = ManifestDocument & { readonly kind: 'manifest' };

/** Indexes in indexes; one in another is already rare. */
const MAX_DEPTH = 4;
const FETCH_LANES = 3;
/** An image must not fill the host. */
const MAX_PART_OF_FREE_SPACE = 0.9;

const DISK = 'disk';

class RegistryAndLayoutImages implements OciImages {
  readonly #options: OciImagesOptions;
  readonly #merge: MergeOptions;

  constructor(options: OciImagesOptions) {
    this.#options = options;
    this.#merge = {
      confinement: { launcherPath: options.launcherPath, identity: options.importer },
      splicePath: options.splicePath,
      limits: options.limits ?? mergeLimits,
    };
  }

  async refuseUnmergeable(): Promise<void> {
    await refuseMissingMergePrograms();
  }

  resolve(request: OciRequest, work: Work): Promise<OciFacts> {
    return withStorageErrors('read the image', async () => {
      const blobs = this.#blobs(request);
      const known = await blobs.chosen();
      if (known) return await this.#facts(request, blobs, known);
      await using origin = await this.#origin(request, work);
      const { descriptor, manifest } = await this.#select(request, origin, blobs, work);
      await this.#obtain(manifest.config, origin, blobs, work);
      refuseOtherImage(
        parseImageConfig(await blobs.read(manifest.config.digest)),
        manifest,
        request.platform,
      );
      await this.#refuseWithoutRoom(request.directory, manifest);
      await blobs.choose(descriptor);
      return await this.#facts(request, blobs, descriptor);
    });
  }

  fetch(request: OciRequest, work: Work): Promise<void> {
    return withStorageErrors('fetch the image', async () => {
      const blobs = this.#blobs(request);
      const { manifest } = await this.#chosen(blobs);
      const layers = [...new Map(manifest.layers.map((layer) => [layer.digest, layer])).values()];
      const missing: Descriptor[] = [];
      for (const layer of layers)
        if (!(await blobs.has(layer.digest)) && !(await blobs.adopt(layer.digest))) missing.push(layer);
      if (missing.length > 0) {
        await using origin = await this.#origin(request, work);
        await this.#fetchAll(missing, origin, blobs, work);
      }
      await removeDirectory(join(request.directory, 'fetch'));
    });
  }

  merge(request: OciRequest, work: Work): Promise<BuiltFile & { readonly layout: string }> {
    return withStorageErrors('make a disk of the image', async () => {
      const { directory } = request;
      const blobs = this.#blobs(request);
      const result = { path: join(directory, DISK), format: 'raw', layout: blobs.path } as const;
      if (
        await orIfMissing(
          access(result.path).then(() => true),
          false,
        )
      )
        return result;
      const { manifest, config } = await this.#chosen(blobs);
      const layers = manifest.layers.map(({ digest, mediaType }, index) => ({
        path: blobs.pathOf(digest),
        isPacked: (layerCompression(mediaType) ?? 'none') !== 'none',
        diffId: config.diffIds[index] ?? digest,
      }));
      const disk = await mergeLayers(join(directory, 'merge'), layers, this.#merge, work);
      await rename(disk, result.path);
      await removeDirectory(join(directory, 'merge'));
      return result;
    });
  }

  #blobs({ directory }: OciRequest): BlobDirectory {
    return new BlobDirectory(directory, {
      imagesPath: this.#options.imagesPath,
      gid: this.#options.importer?.gid,
    });
  }

  async #origin({ from, directory }: OciRequest, work: Work): Promise<ImageOrigin> {
    const place = join(directory, 'fetch');
    await ensureDirectory(place, 0o700);
    switch (from.kind) {
      case 'registry':
        return await registryImages(from, {
          directory: place,
          settings: this.#options.registries ?? [],
          download: {
            confinement: this.#merge.confinement,
            retryDelayMs: this.#options.retryDelayMs ?? 1000,
            stallSeconds: this.#options.stallSeconds ?? 60,
          },
        });
      case 'oci-layout':
        return layoutImages(await localFiles(from.path, work), place, from.reference);
      case 'docker-archive':
        return dockerArchiveImages(await localFiles(from.path, work), place, from.reference);
    }
  }

  /** Through indexes to the manifest for the platform. */
  async #select(
    request: OciRequest,
    origin: ImageOrigin,
    blobs: BlobDirectory,
    work: Work,
  ): Promise<{ readonly descriptor: Descriptor; readonly manifest: Manifest }> {
    const top = await origin.top(work);
    let document = parseManifest(top.bytes, top.mediaType);
    if (document.kind === 'manifest') {
      const descriptor = await this.#keep(request, top.bytes, top.mediaType ?? '', blobs, work);
      return { descriptor, manifest: document };
    }
    for (let depth = 1; depth <= MAX_DEPTH; depth += 1) {
      const descriptor = choosePlatform(document.manifests, parsePlatform(request.platform));
      if (!isIndex(descriptor.mediaType) && !isManifest(descriptor.mediaType))
        throw malformed(`its index leads to ${descriptor.mediaType}, which is no manifest`);
      if (descriptor.size > MAX_MANIFEST_BYTES) throw malformed(`its manifest has ${descriptor.size} bytes`);
      await this.#obtain(descriptor, origin, blobs, work, true);
      document = parseManifest(await blobs.read(descriptor.digest), descriptor.mediaType);
      if (document.kind === 'manifest') return { descriptor, manifest: document };
    }
    throw malformed('its indexes lead to indexes without end');
  }

  /** A manifest that was sent whole, as a blob like those that are named. */
  async #keep(
    { directory }: OciRequest,
    bytes: Buffer,
    mediaType: string,
    blobs: BlobDirectory,
    work: Work,
  ): Promise<Descriptor> {
    const hex = createHash('sha256').update(bytes).digest('hex');
    const descriptor = {
      mediaType: mediaType || OCI_MANIFEST,
      digest: digest.parse(`sha256:${hex}`),
      size: bytes.length,
    };
    const file = join(directory, 'fetch', 'manifest');
    await writeFile(file, bytes, { mode: 0o400 });
    await blobs.take(file, descriptor, work.signal);
    return descriptor;
  }

  async #obtain(
    descriptor: Descriptor,
    origin: ImageOrigin,
    blobs: BlobDirectory,
    work: Work,
    isManifestDocument = false,
  ): Promise<void> {
    const { digest: wanted } = descriptor;
    if ((await blobs.has(wanted)) || (await blobs.adopt(wanted))) return;
    await blobs.take(await origin.blob(descriptor, isManifestDocument, work), descriptor, work.signal);
  }

  async #chosen(
    blobs: BlobDirectory,
  ): Promise<{ readonly manifest: Manifest; readonly config: ImageConfig }> {
    const descriptor = await blobs.chosen();
    const document = descriptor && parseManifest(await blobs.read(descriptor.digest), descriptor.mediaType);
    if (document?.kind !== 'manifest') throw malformed('its manifest is not there any more');
    return { manifest: document, config: parseImageConfig(await blobs.read(document.config.digest)) };
  }

  async #facts({ from }: OciRequest, blobs: BlobDirectory, descriptor: Descriptor): Promise<OciFacts> {
    const { manifest, config } = await this.#chosen(blobs);
    const reference = from.reference === undefined ? {} : { reference: from.reference };
    return {
      digest: descriptor.digest,
      platform: platformText(config.platform),
      ...reference,
      layers: manifest.layers.length,
    };
  }

  async #refuseWithoutRoom(directory: string, { layers }: Manifest): Promise<void> {
    const wanted = layers.reduce((sum, { size }) => sum + size, 0);
    const { bavail, bsize } = await statfs(directory);
    const room = Math.floor(bavail * bsize * MAX_PART_OF_FREE_SPACE);
    if (wanted <= room) return;
    throw new RoostError(
      'ResourceExhausted',
      `There is no room for the image: its layers have ${wanted} bytes`,
      {
        data: { wanted, room },
        hint: 'Free space in the state directory.',
      },
    );
  }

  /** A few at a time; the first that fails ends the others. */
  async #fetchAll(
    layers: readonly Descriptor[],
    origin: ImageOrigin,
    blobs: BlobDirectory,
    work: Work,
  ): Promise<void> {
    const failed = new AbortController();
    const signal = AbortSignal.any([work.signal, failed.signal]);
    const progress = new SharedProgress(layers, work);
    const lanes = new Lanes(FETCH_LANES);
    const fetchOne = async (layer: Descriptor): Promise<void> => {
      const leave = await lanes.enter(layer.digest, signal);
      try {
        const each = { signal, progress: progress.of(layer.digest) };
        await blobs.take(await origin.blob(layer, false, each), layer, signal);
        progress.done(layer);
      } finally {
        leave();
      }
    };
    const fetching = layers.map((layer) =>
      fetchOne(layer).catch((error: unknown) => {
        failed.abort(error);
        throw error;
      }),
    );
    const ends = await Promise.allSettled(fetching);
    work.signal.throwIfAborted();
    // What the others say is only that they were ended.
    if (ends.some(({ status }) => status === 'rejected')) throw failed.signal.reason;
  }
}

/** One figure for several downloads. */
class SharedProgress {
  readonly #work: Work;
  readonly #total: number;
  readonly #bytes = new Map<Digest, number>();
  readonly #startedAt = performance.now();
  #before = 0;

  constructor(layers: readonly Descriptor[], work: Work) {
    this.#work = work;
    this.#total = layers.reduce((sum, { size }) => sum + size, 0);
    this.#tell();
  }

  of(layer: Digest): Work['progress'] {
    return ({ done }) => {
      // What is there already was not got now.
      if (!this.#bytes.has(layer)) this.#before += done;
      this.#bytes.set(layer, done);
      this.#tell();
    };
  }

  done({ digest: layer, size }: Descriptor): void {
    this.#bytes.set(layer, size);
    this.#tell();
  }

  #tell(): void {
    const done = [...this.#bytes.values()].reduce((sum, bytes) => sum + bytes, 0);
    const seconds = (performance.now() - this.#startedAt) / 1000;
    const rate = Math.round((done - this.#before) / seconds);
    this.#work.progress({
      done: Math.min(done, this.#total),
      total: this.#total,
      unit: 'bytes',
      message: 'Downloading',
      ...(Number.isFinite(rate) && rate > 0 ? { ratePerSecond: rate } : {}),
    });
  }
}

/** Errors: InvalidArgument. */
const refuseOtherImage = (config: ImageConfig, { layers }: Manifest, platform: string): void => {
  if (config.diffIds.length !== layers.length)
    throw malformed('its config speaks of other layers than its manifest');
  if (runsOn(parsePlatform(platform), config.platform)) return;
  throw new RoostError('InvalidArgument', `The image is for ${platformText(config.platform)}`, {
    data: { wanted: platform, platforms: [platformText(config.platform)] },
    hint: 'Name that platform if it can be run here.',
  });
};

export const ociImages = (options: OciImagesOptions): OciImages => new RegistryAndLayoutImages(options);
