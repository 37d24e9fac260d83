/**
 * Makes one read-only disk, a squashfs, out of the layers of an image; an archive that is the whole of one is its only
 * layer, under rules of its own. The layers are unpacked to archives, their headers read here, and the merged tree given
 * as one archive to sqfstar: no file of the image is ever made on this host, and no byte of one passes through this
 * process.
 *
 * Below the directory, which belongs to an identity that owns nothing else: `<n>.layer`, a link to the blob;
 * `<n>.tar`, its archive; `headers` and `plan`; `disk`, the result.
 */
import { constants, type Stats } from 'node:fs';
import { chown, link, mkdir, open, rm, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { ExecError } from '../../../lib/exec-result.ts';
import { runTool } from '../../../lib/run-tool.ts';
import type { Work } from '../../../lib/work.ts';
import { RoostError } from '../../../protocol/errors.ts';
import { type Confinement, confined } from '../../files/confined-tool.ts';
import { removeDirectory, settleFile } from '../../files/durable-files.ts';
import { failureFacts, saysFull } from '../../files/storage-errors.ts';
import { type Digest, refuseOtherDigest } from '../digest.ts';
import { ArchivePlan, keptTime } from './archive-plan.ts';
import { LayerTree, type TreeEntry, type WhiteoutMeaning } from './layer-tree.ts';
import { setSquashfsRoot } from './squashfs-root.ts';
import { type TarEntry, tarEntries } from './tar-entries.ts';

export interface MergeLayer {
  /** The blob, verified. */
  readonly path: string;
  /** By gzip, zstd or xz. */
  readonly isPacked: boolean;
  /** Of the archive; absent where nobody named it. */
  readonly diffId?: Digest;
}

/** Says what of a tree comes into the disk; each may refuse it with InvalidArgument. */
export interface TreeRules {
  readonly whiteouts: WhiteoutMeaning;
  /** The entry as it is to be kept, or undefined to leave it out; of a hard link as of the file. */
  keep(entry: TreeEntry): TreeEntry | undefined;
  /** After the last entry, before anything is packed. */
  end(): void;
}

const layerRules: TreeRules = {
  whiteouts: 'whiteouts',
  keep: (entry) => entry,
  end: () => undefined,
};

export interface MergeLimits {
  /** Bytes of all archives together. */
  readonly maxUnpackedBytes: number;
  /** Files of all layers together. */
  readonly maxEntries: number;
  /** Bytes of their names and extended attributes. */
  readonly maxNameBytes: number;
}

/** 256 GiB, and what a million files can be called. */
export const mergeLimits: MergeLimits = {
  maxUnpackedBytes: 256 * 1024 ** 3,
  maxEntries: 1_000_000,
  maxNameBytes: 256 * 1024 ** 2,
};

export interface MergeOptions {
  readonly confinement: Confinement;
  /** Path of roost-splice. */
  readonly splicePath: string;
  readonly limits: MergeLimits;
  /** Those of the layers of an OCI image unless given. */
  readonly rules?: TreeRules;
}

/** An image must not fill the host. */
const MAX_PART_OF_FREE_SPACE = 0.9;
/** Entries of the tree that are put into words at a time. */
const PIECE_ENTRIES = 2000;
/** Below this exit code the tool speaks, not the launcher or env(1). */
const LAUNCH_FAILED = 125;
/** Address space of what unpacks: a dictionary of xz may want gigabytes. */
const UNPACK_MEMORY_BYTES = 2 * 1024 ** 3;
/** Memory of sqfstar's caches; its own choice is a quarter of the host's. */
const CACHE_MEMORY = '256M';

const tooLarge = (what: string): RoostError =>
  new RoostError('ResourceExhausted', `The image is not unpacked: ${what}`, {
    data: { flaw: 'too-large' },
    hint: 'If it is not hostile, free space in the state directory, or build it smaller.',
  });

const roomIn = async (directory: string): Promise<number> => {
  const { bavail, bsize } = await statfs(directory);
  return Math.floor(bavail * bsize * MAX_PART_OF_FREE_SPACE);
};

class Merge {
  readonly #directory: string;
  readonly #options: MergeOptions;
  readonly #work: Work;
  readonly #rules: TreeRules;
  readonly #tree: LayerTree;
  /** Owners and groups of all files but the root. */
  readonly #ids = new Set<number>();
  #unpackedBytes = 0;
  #entries = 0;
  #nameBytes = 0;

  constructor(directory: string, options: MergeOptions, work: Work) {
    this.#directory = directory;
    this.#options = options;
    this.#rules = options.rules ?? layerRules;
    this.#tree = new LayerTree(this.#rules.whiteouts);
    this.#work = work;
  }

  async run(layers: readonly MergeLayer[]): Promise<string> {
    const { identity } = this.#options.confinement;
    await removeDirectory(this.#directory);
    await mkdir(this.#directory, { mode: 0o700 });
    if (identity) await chown(this.#directory, identity.uid, identity.gid);
    const steps = layers.length + 1;
    for (const [index, layer] of layers.entries()) {
      const message = `Unpacking ${layerName(index, layers.length)}`;
      this.#work.progress({ done: index, total: steps, unit: 'steps', message });
      await this.#addLayer(index, layer, layerName(index, layers.length));
    }
    this.#work.progress({ done: layers.length, total: steps, unit: 'steps', message: 'Packing' });
    await this.#writePlan();
    await this.#pack(layers.length);
    return join(this.#directory, 'disk');
  }

  async #addLayer(index: number, layer: MergeLayer, name: string): Promise<void> {
    const archive = join(this.#directory, `${index}.tar`);
    await link(layer.path, join(this.#directory, `${index}.layer`));
    if (layer.isPacked) await this.#unpack(index, name);
    else await link(layer.path, archive);
    await rm(join(this.#directory, `${index}.layer`));
    const { size } = await this.#settle(archive, !layer.isPacked);
    this.#unpackedBytes += size;
    if (this.#unpackedBytes > this.#options.limits.maxUnpackedBytes)
      throw tooLarge(`its archives have more than ${this.#options.limits.maxUnpackedBytes} bytes`);
    if (layer.diffId !== undefined)
      await refuseOtherDigest(archive, layer.diffId, `${name}, unpacked,`, this.#work.signal);
    this.#tree.addLayer(await this.#list(archive, size));
  }

  /** What the tool wrote is nobody's to change from here on. A blob that is no archive to unpack is ours already. */
  async #settle(archive: string, isBlob: boolean): Promise<Stats> {
    const { identity } = this.#options.confinement;
    if (!isBlob) {
      const owner = { uid: process.geteuid?.() ?? 0, gid: identity?.gid ?? process.getegid?.() ?? 0 };
      await settleFile(archive, { mode: 0o440, owner });
    }
    return await stat(archive);
  }

  async #unpack(index: number, name: string): Promise<void> {
    const limit = this.#options.limits.maxUnpackedBytes - this.#unpackedBytes;
    const maxFileBytes = Math.max(Math.min(limit, await roomIn(this.#directory)), 1);
    try {
      await this.#run(
        ['zstd', '--decompress', '--quiet', '--no-progress', '-o', `${index}.tar`, `${index}.layer`],
        maxFileBytes,
        UNPACK_MEMORY_BYTES,
      );
    } catch (error) {
      if (saysFull(error)) throw tooLarge(`${name} has more than ${maxFileBytes} bytes, unpacked`);
      throw blamesImage(error) ? damagedLayer(name, error) : error;
    }
  }

  async #list(archive: string, sizeBytes: number): Promise<readonly TarEntry[]> {
    const { maxEntries, maxNameBytes } = this.#options.limits;
    const entries: TarEntry[] = [];
    await using file = await open(archive, constants.O_RDONLY | constants.O_NOFOLLOW);
    for await (const entry of tarEntries(file, sizeBytes)) {
      this.#work.signal.throwIfAborted();
      this.#entries += 1;
      this.#nameBytes += entry.name.length + entry.linkName.length + 16 * entry.data.length;
      for (const [name, value] of entry.xattrs) this.#nameBytes += name.length + value.length;
      if (this.#entries > maxEntries) throw tooLarge(`it holds more than ${maxEntries} files`);
      if (this.#nameBytes > maxNameBytes) throw tooLarge(`its names have more than ${maxNameBytes} bytes`);
      entries.push(entry);
    }
    return entries;
  }

  async #writePlan(): Promise<void> {
    const plan = new ArchivePlan();
    await using headers = await open(join(this.#directory, 'headers'), 'wx', 0o444);
    await using records = await open(join(this.#directory, 'plan'), 'wx', 0o444);
    const write = async (entries: readonly TreeEntry[]): Promise<void> => {
      const piece = plan.piece(entries);
      await headers.appendFile(piece.headers);
      await records.appendFile(piece.plan);
      this.#work.signal.throwIfAborted();
    };
    let waiting: TreeEntry[] = [];
    for (const found of this.#tree.entries()) {
      const entry = this.#rules.keep(found);
      if (!entry || entry.path === '') continue;
      waiting.push(entry);
      this.#ids.add(entry.file.uid).add(entry.file.gid);
      if (waiting.length < PIECE_ENTRIES) continue;
      await write(waiting);
      waiting = [];
    }
    this.#rules.end();
    await write(waiting);
    await records.appendFile(plan.end());
  }

  async #pack(layers: number): Promise<void> {
    const archives = Array.from({ length: layers }, (_, index) => `${index}.tar`);
    const { splicePath } = this.#options;
    const sqfstar = ['/usr/bin/env', 'sqfstar', ...sqfstarOptions];
    try {
      await this.#run(
        [splicePath, 'plan', 'headers', ...archives, '--', ...sqfstar, 'disk'],
        await roomIn(this.#directory),
      );
    } catch (error) {
      if (saysFull(error)) throw tooLarge('there is no room for its disk');
      throw error;
    }
    const [root] = this.#tree.entries();
    if (!root) return;
    const { mode, uid, gid, mtime } = root.file;
    const attributes = { mode, uid, gid, mtime: keptTime(mtime) };
    await setSquashfsRoot(join(this.#directory, 'disk'), attributes, this.#ids);
  }

  async #run(
    argv: readonly [string, ...string[]],
    maxFileBytes: number,
    maxMemoryBytes?: number,
  ): Promise<void> {
    const program = argv[0].startsWith('/') ? argv : (['/usr/bin/env', ...argv] as const);
    await runTool(confined([...program], this.#options.confinement, maxFileBytes, { maxMemoryBytes }), {
      signal: this.#work.signal,
      cwd: this.#directory,
      env: { LC_ALL: 'C', PATH: '/usr/local/bin:/usr/bin:/bin' },
      timeoutMs: 0,
    });
  }
}

/** The same tree makes the same disk, byte for byte; for what is not compressed see `setSquashfsRoot`. */
const sqfstarOptions = [
  '-comp',
  'lz4',
  '-noI',
  '-noId',
  '-mkfs-time',
  '0',
  '-mem',
  CACHE_MEMORY,
  '-no-progress',
  '-quiet',
  '-exit-on-error',
];

/** The tool ran and stumbled over the layer; whatever else went wrong is the host's matter. */
const blamesImage = (error: unknown): error is ExecError =>
  error instanceof ExecError && error.exitCode !== undefined && error.exitCode < LAUNCH_FAILED;

/** In the middle of a sentence. */
const layerName = (index: number, count: number): string =>
  count === 1 ? 'its archive' : `layer ${index + 1} of ${count}`;

const damagedLayer = (name: string, cause: ExecError): RoostError =>
  new RoostError('InvalidArgument', `The image cannot be read: ${name} cannot be unpacked`, {
    data: { ...failureFacts(cause), flaw: 'damaged' },
    hint: 'Build the image again, or fetch it anew if it should be sound.',
    cause,
  });

/**
 * Gives the path of the disk below `directory`, which is made anew. Errors: InvalidArgument for layers that are damaged,
 * malformed or other than they claim; ResourceExhausted; Unsupported.
 */
export const mergeLayers = (
  directory: string,
  layers: readonly MergeLayer[],
  options: MergeOptions,
  work: Work,
): Promise<string> => new Merge(directory, options, work).run(layers);
