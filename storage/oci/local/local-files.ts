/**
 * The files of a directory, or of a tar archive of one, by their names in it. A stranger made it: no symbolic link of a
 * directory is followed, a link in an archive leads to another file of the archive, and bytes are copied by a tool.
 */
import { constants } from 'node:fs';
import { type FileHandle, lstat, open, stat } from 'node:fs/promises';
import { isAbsolute, join } from 'node:path';
import { runTool } from '../../../lib/run-tool.ts';
import type { Work } from '../../../lib/work.ts';
import { RoostError } from '../../../protocol/errors.ts';
import { orIfMissing } from '../../files/durable-files.ts';
import { malformed } from '../manifest.ts';
import { partsOf } from '../tree/layer-tree.ts';
import { type TarEntry, tarEntries } from '../tree/tar-entries.ts';

export interface LocalFiles extends AsyncDisposable {
  /** Undefined when there is no such file. */
  sizeOf(name: string): Promise<number | undefined>;
  /** A small file. Errors: InvalidArgument when it is missing or larger than `maxBytes`. */
  read(name: string, maxBytes: number): Promise<Buffer>;
  /** Copies a file to a new one. Errors: InvalidArgument when it is missing. */
  copy(name: string, to: string, work: Work): Promise<void>;
}

/** Files of an archive; an image has a few a layer. */
const MAX_FILES = 100_000;
/** Links from one name to another in an archive. */
const MAX_LINKS = 8;

const missing = (name: string): RoostError => malformed(`there is no ${name.slice(0, 256)} in it`);

/** One file of the host, or a part of one. */
interface Place {
  readonly offset: number;
  readonly length: number;
}

const readPlace = async (file: FileHandle, { offset, length }: Place, maxBytes: number): Promise<Buffer> => {
  if (length > maxBytes) throw malformed(`a document in it has ${length} bytes`);
  const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, offset);
  return buffer.subarray(0, bytesRead);
};

const copyPlace = async (file: FileHandle, place: Place, to: string, work: Work): Promise<void> => {
  const opened = `/proc/${process.pid}/fd/${file.fd}`;
  const range = [`skip=${place.offset}`, `count=${place.length}`, 'iflag=skip_bytes,count_bytes,fullblock'];
  await runTool(['dd', `if=${opened}`, `of=${to}`, 'bs=1M', 'status=none', 'conv=excl', ...range], {
    signal: work.signal,
    timeoutMs: 0,
  });
};

class DirectoryFiles implements LocalFiles {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  async sizeOf(name: string): Promise<number | undefined> {
    const found = await orIfMissing(lstat(this.#pathOf(name)), undefined);
    return found?.isFile() === true ? found.size : undefined;
  }

  async read(name: string, maxBytes: number): Promise<Buffer> {
    await using file = await this.#open(name);
    return await readPlace(file, { offset: 0, length: (await file.stat()).size }, maxBytes);
  }

  async copy(name: string, to: string, work: Work): Promise<void> {
    await using file = await this.#open(name);
    await copyPlace(file, { offset: 0, length: (await file.stat()).size }, to, work);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Nothing is open.
  }

  async #open(name: string): Promise<FileHandle> {
    if ((await this.sizeOf(name)) === undefined) throw missing(name);
    return await open(this.#pathOf(name), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  }

  #pathOf(name: string): string {
    return join(this.#path, ...partsOf(name));
  }
}

class ArchiveFiles implements LocalFiles {
  readonly #file: FileHandle;
  readonly #entries: ReadonlyMap<string, TarEntry>;

  constructor(file: FileHandle, entries: ReadonlyMap<string, TarEntry>) {
    this.#file = file;
    this.#entries = entries;
  }

  async sizeOf(name: string): Promise<number | undefined> {
    return this.#place(name)?.length;
  }

  async read(name: string, maxBytes: number): Promise<Buffer> {
    return await readPlace(this.#file, this.#required(name), maxBytes);
  }

  async copy(name: string, to: string, work: Work): Promise<void> {
    await copyPlace(this.#file, this.#required(name), to, work);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
  }

  #required(name: string): Place {
    const place = this.#place(name);
    if (!place) throw missing(name);
    return place;
  }

  /** `docker save` of old writes a layer once, and links to it. */
  #place(name: string): Place | undefined {
    let path = partsOf(name).join('/');
    for (let links = 0; links <= MAX_LINKS; links += 1) {
      const entry = this.#entries.get(path);
      if (entry?.type === 'file') {
        const [first, further] = entry.data;
        if (further !== undefined) throw malformed('its archive is a sparse one');
        return { offset: first?.offset ?? 0, length: first?.length ?? 0 };
      }
      if (entry?.type === 'link') path = partsOf(entry.linkName).join('/');
      else if (entry?.type === 'symlink') path = beside(path, entry.linkName);
      else return undefined;
    }
    return undefined;
  }
}

/** Target of a symbolic link in an archive, which ends at the archive's root. */
const beside = (path: string, target: string): string => {
  const parts = path.split('/').slice(0, -1);
  for (const part of target.split('/')) {
    if (part === '..') parts.pop();
    else if (part !== '' && part !== '.') parts.push(part);
  }
  return parts.join('/');
};

const archiveFiles = async (path: string, work: Work): Promise<LocalFiles> => {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const found = await file.stat();
    if (!found.isFile()) throw malformed(`${path} is neither a directory nor a file`);
    const entries = new Map<string, TarEntry>();
    for await (const entry of tarEntries(file, found.size)) {
      work.signal.throwIfAborted();
      entries.set(partsOf(entry.name).join('/'), entry);
      if (entries.size > MAX_FILES) throw malformed('its archive holds too many files');
    }
    return new ArchiveFiles(file, entries);
  } catch (error) {
    await file.close();
    throw error;
  }
};

/** Errors: NotFound; InvalidArgument for an archive that is none. */
export const localFiles = async (path: string, work: Work): Promise<LocalFiles> => {
  if (!isAbsolute(path)) throw new RoostError('InvalidArgument', `${path} is not an absolute path`);
  const found = await orIfMissing(stat(path), undefined);
  if (!found)
    throw new RoostError('NotFound', `There is nothing at ${path}`, {
      data: { path },
      hint: "Give the path as it is on the daemon's host.",
    });
  if (!found.isDirectory() && !found.isFile()) throw malformed(`${path} is neither a directory nor a file`);
  return found.isDirectory() ? new DirectoryFiles(path) : await archiveFiles(path, work);
};
