/**
 * Images of an archive that `docker save` made: its layers are named by paths, so a manifest is written here that names
 * them by their digests. Source: Docker image specification 1.2, "Combined Image JSON + Filesystem Changeset Format".
 */
import { createHash, randomUUID } from 'node:crypto';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { Work } from '../../../lib/work.ts';
import { digestOf } from '../../images/image-source.ts';
import { digest } from '../digest.ts';
import { parseImageConfig } from '../image-config.ts';
import type { ImageOrigin, TopDocument } from '../image-origin.ts';
import { type Descriptor, MAX_MANIFEST_BYTES, malformed, parseJson } from '../manifest.ts';
import { OCI_CONFIG, OCI_LAYER, OCI_MANIFEST } from '../media-types.ts';
import { chooseByName } from './layout-origin.ts';
import type { LocalFiles } from './local-files.ts';

const path = z.string().min(1).max(4096);
const archiveForm = z
  .array(
    z.object({
      Config: path,
      RepoTags: z.array(z.string()).nullish(),
      Layers: z.array(path).max(512).nullish(),
    }),
  )
  .max(10_000);

const sha256 = (bytes: Buffer): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

class DockerArchiveImages implements ImageOrigin {
  readonly #files: LocalFiles;
  readonly #directory: string;
  readonly #reference: string | undefined;
  /** Names in the archive, by digest. */
  readonly #paths = new Map<string, string>();

  constructor(files: LocalFiles, directory: string, reference: string | undefined) {
    this.#files = files;
    this.#directory = directory;
    this.#reference = reference;
  }

  async top(work: Work): Promise<TopDocument> {
    if ((await this.#files.sizeOf('manifest.json')) === undefined)
      throw malformed('there is no manifest.json in it, so docker save did not make it');
    const text = await this.#files.read('manifest.json', MAX_MANIFEST_BYTES);
    const found = archiveForm.safeParse(parseJson(text, 'its manifest')).data;
    if (!found) throw malformed('its manifest is malformed');
    const images = found.map((image) => ({ names: image.RepoTags ?? [], image }));
    const [image, further] = chooseByName(images, this.#reference);
    if (!image || further) throw malformed('two images in it have the same name');
    const bytes = Buffer.from(JSON.stringify(await this.#manifest(image.Config, image.Layers ?? [], work)));
    return { bytes, mediaType: OCI_MANIFEST };
  }

  async blob(descriptor: Descriptor, _isManifest: boolean, work: Work): Promise<string> {
    // Where the manifest was chosen by an earlier run, the archive has not been looked at in this one.
    if (!this.#paths.has(descriptor.digest)) await this.top(work);
    const name = this.#paths.get(descriptor.digest);
    if (name === undefined) throw malformed(`there is no ${descriptor.digest} in it`);
    return await this.#copy(name, work);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#files[Symbol.asyncDispose]();
  }

  async #copy(name: string, work: Work): Promise<string> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const copy = join(this.#directory, randomUUID());
    await this.#files.copy(name, copy, work);
    return copy;
  }

  /**
   * The layers' digests are those of the config, if they are plain archives, and are held against them like any other;
   * a layer that was packed has another one, and is only known by the end of it.
   */
  async #manifest(config: string, layers: readonly string[], work: Work): Promise<unknown> {
    const bytes = await this.#files.read(config, MAX_MANIFEST_BYTES);
    const { diffIds } = parseImageConfig(bytes);
    if (diffIds.length !== layers.length) throw malformed('its config speaks of other layers than there are');
    const configDigest = sha256(bytes);
    this.#paths.set(configDigest, config);
    const descriptors: unknown[] = [];
    for (const [index, name] of layers.entries()) {
      const size = await this.#files.sizeOf(name);
      if (size === undefined) throw malformed(`there is no ${name.slice(0, 256)} in it`);
      const { layerDigest, suffix } = await this.#layer(name, diffIds[index], work);
      this.#paths.set(layerDigest, name);
      descriptors.push({ mediaType: `${OCI_LAYER}${suffix}`, digest: layerDigest, size });
    }
    return {
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: { mediaType: OCI_CONFIG, digest: configDigest, size: bytes.length },
      layers: descriptors,
    };
  }

  async #layer(
    name: string,
    diffId: string | undefined,
    work: Work,
  ): Promise<{ readonly layerDigest: string; readonly suffix: string }> {
    const copy = await this.#copy(name, work);
    const layerDigest = digest.parse(`sha256:${await digestOf(copy, 'sha256', work.signal)}`);
    await rm(copy, { force: true });
    // The unpacked archive is held against the config's digest in the end, whatever unpacks it.
    return { layerDigest, suffix: layerDigest === diffId ? '' : '+gzip' };
  }
}

export const dockerArchiveImages = (
  files: LocalFiles,
  directory: string,
  reference: string | undefined,
): ImageOrigin => new DockerArchiveImages(files, directory, reference);
