/** Images of an OCI image layout, a directory or an archive of one. Source: OCI image specification 1.1, image-layout.md. */
import { randomUUID } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { Work } from '../../../lib/work.ts';
import { RoostError } from '../../../protocol/errors.ts';
import { digestParts } from '../digest.ts';
import type { ImageOrigin, TopDocument } from '../image-origin.ts';
import { type Descriptor, descriptorForm, MAX_MANIFEST_BYTES, malformed, parseJson } from '../manifest.ts';
import { OCI_INDEX } from '../media-types.ts';
import type { LocalFiles } from './local-files.ts';

const REF_NAME = 'org.opencontainers.image.ref.name';
/** What `docker save` and containerd add: the reference in full. */
const FULL_NAME = 'io.containerd.image.name';

const indexForm = z.object({ manifests: z.array(descriptorForm).max(10_000) });

const namesOf = ({ annotations }: Descriptor): readonly string[] =>
  [annotations?.[REF_NAME], annotations?.[FULL_NAME]].filter((name) => name !== undefined);

/** Names that an error tells. */
const MAX_NAMED = 40;

/** The one that is meant. Errors: NotFound, InvalidArgument, both naming those that there are. */
export const chooseByName = <T>(
  images: readonly { readonly names: readonly string[]; readonly image: T }[],
  reference: string | undefined,
): readonly T[] => {
  const names = images.flatMap((image) => image.names).slice(0, MAX_NAMED);
  if (reference === undefined) {
    const distinct = new Set(images.map((image) => image.names.join(' ')));
    if (images.length > 0 && distinct.size === 1) return images.map(({ image }) => image);
    throw new RoostError('InvalidArgument', `There are ${images.length} images in it`, {
      data: { names },
      hint: 'Say which one, by one of the names shown.',
    });
  }
  const found = images.filter((image) => image.names.includes(reference));
  if (found.length > 0) return found.map(({ image }) => image);
  throw new RoostError('NotFound', `There is no image called ${reference} in it`, {
    data: { names },
    hint: 'Give one of the names shown.',
  });
};

class LayoutImages implements ImageOrigin {
  readonly #files: LocalFiles;
  readonly #directory: string;
  readonly #reference: string | undefined;

  constructor(files: LocalFiles, directory: string, reference: string | undefined) {
    this.#files = files;
    this.#directory = directory;
    this.#reference = reference;
  }

  /** The layout's own index, with the entries of that name alone. */
  async top(): Promise<TopDocument> {
    if ((await this.#files.sizeOf('oci-layout')) === undefined)
      throw malformed(
        'there is no oci-layout in it, so it is no OCI layout; docker save makes a docker-archive',
      );
    const bytes = await this.#files.read('index.json', MAX_MANIFEST_BYTES);
    const index = indexForm.safeParse(parseJson(bytes, 'its index')).data;
    if (!index) throw malformed('its index is malformed');
    const images = index.manifests.map((image) => ({ names: namesOf(image), image }));
    const manifests = chooseByName(images, this.#reference);
    return { bytes: Buffer.from(JSON.stringify({ schemaVersion: 2, manifests })), mediaType: OCI_INDEX };
  }

  async blob({ digest }: Descriptor, _isManifest: boolean, work: Work): Promise<string> {
    const { algorithm, hex } = digestParts(digest);
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const copy = join(this.#directory, randomUUID());
    await this.#files.copy(`blobs/${algorithm}/${hex}`, copy, work);
    return copy;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#files[Symbol.asyncDispose]();
  }
}

export const layoutImages = (
  files: LocalFiles,
  directory: string,
  reference: string | undefined,
): ImageOrigin => new LayoutImages(files, directory, reference);
