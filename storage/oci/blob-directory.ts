/**
 * The blobs of one image, named by their digests, in an OCI image layout of its own: `oci-layout`, `index.json` and
 * `blobs/<algorithm>/<digits>`. A blob that another image has is taken from there, as a further link to the same file:
 * the file system counts who has it, and frees it with the last of them, whatever becomes of the daemon.
 * Source: OCI image specification 1.1, image-layout.md.
 */
import { link, lstat, mkdir, readdir, readFile, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import {
  ensureDirectory,
  orIfMissing,
  replaceFile,
  settleFile,
  syncDirectory,
} from '../files/durable-files.ts';
import { type Digest, digestParts, refuseOtherDigest } from './digest.ts';
import { type Descriptor, descriptorForm, malformed, parseJson } from './manifest.ts';

export const LAYOUT = 'oci';

const layoutForm = z.object({ manifests: z.tuple([descriptorForm]) });

export interface BlobAccess {
  /** Absolute path of the directory that all images are in. */
  readonly imagesPath: string;
  /** Group of whoever reads strangers' images. */
  readonly gid?: number | undefined;
}

const blobName = (value: Digest): string => {
  const { algorithm, hex } = digestParts(value);
  return join('blobs', algorithm, hex);
};

export class BlobDirectory {
  readonly path: string;
  readonly #access: BlobAccess;

  /** `directory`: that of the image, complete or on its way. */
  constructor(directory: string, access: BlobAccess) {
    this.path = join(directory, LAYOUT);
    this.#access = access;
  }

  pathOf(value: Digest): string {
    return join(this.path, blobName(value));
  }

  async has(value: Digest): Promise<boolean> {
    return (await orIfMissing(lstat(this.pathOf(value)), undefined)) !== undefined;
  }

  /** Whether another image had it. */
  async adopt(value: Digest): Promise<boolean> {
    const others = await orIfMissing(readdir(this.#access.imagesPath), []);
    for (const other of others) {
      const theirs = join(this.#access.imagesPath, other, LAYOUT, blobName(value));
      if (theirs === this.pathOf(value)) continue;
      if ((await orIfMissing(lstat(theirs), undefined)) === undefined) continue;
      await this.#makePlace(value);
      // Whoever had it may be deleted in this very moment.
      if (
        await orIfMissing(
          link(theirs, this.pathOf(value)).then(() => true),
          false,
        )
      )
        return true;
    }
    return false;
  }

  /** Takes a file in as a blob, if that is what it is; the file is moved. Errors: InvalidArgument. */
  async take(
    file: string,
    descriptor: Pick<Descriptor, 'digest' | 'size'>,
    signal: AbortSignal,
  ): Promise<void> {
    const { digest, size } = descriptor;
    const owner = { uid: process.geteuid?.() ?? 0, gid: this.#access.gid ?? process.getegid?.() ?? 0 };
    await settleFile(file, { mode: 0o440, owner });
    const found = await lstat(file);
    if (found.size !== size) {
      await rm(file, { force: true });
      throw malformed(`a blob has ${found.size} bytes where ${size} were announced`);
    }
    try {
      await refuseOtherDigest(file, digest, `blob ${digest}`, signal);
    } catch (error) {
      await rm(file, { force: true });
      throw error;
    }
    await this.#makePlace(digest);
    await rename(file, this.pathOf(digest));
    await syncDirectory(dirname(this.pathOf(digest)));
  }

  async read(value: Digest): Promise<Buffer> {
    return await readFile(this.pathOf(value));
  }

  /** The manifest that was chosen; undefined before it was. */
  async chosen(): Promise<Descriptor | undefined> {
    const text = await orIfMissing(readFile(join(this.path, 'index.json')), undefined);
    return text && layoutForm.safeParse(parseJson(text, 'its layout')).data?.manifests[0];
  }

  async choose(descriptor: Descriptor): Promise<void> {
    await this.#write('oci-layout', { imageLayoutVersion: '1.0.0' });
    await this.#write('index.json', { schemaVersion: 2, manifests: [descriptor] });
  }

  async #write(name: string, content: unknown): Promise<void> {
    await this.#makeRoot();
    const text = `${JSON.stringify(content)}\n`;
    await replaceFile(join(this.path, name), text, { mode: 0o440, partialPath: join(this.path, `.${name}`) });
  }

  async #makeRoot(): Promise<void> {
    await ensureDirectory(this.path, 0o700);
  }

  async #makePlace(value: Digest): Promise<void> {
    await this.#makeRoot();
    await ensureDirectory(dirname(this.pathOf(value)), 0o700);
  }
}

/** Puts the files of a layout under `to` as well, which is made anew; gives the bytes that they take. */
export const linkLayout = async (from: string, to: string): Promise<number> => {
  await rm(to, { recursive: true, force: true });
  await mkdir(to, { mode: 0o700 });
  let bytes = 0;
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) bytes += await linkLayout(source, target);
    else if (entry.isFile()) {
      await link(source, target);
      bytes += (await lstat(target)).blocks * 512;
    }
  }
  await syncDirectory(to);
  return bytes;
};
