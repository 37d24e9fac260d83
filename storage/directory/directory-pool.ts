/**
 * A pool in a directory: `<path>/guests/<guest id>/` with `<disk name>.qcow2` for each volume and `record.json`, the
 * guest's record, `firmware-variables.fd` where it starts by UEFI, and `seed-<digest>.iso`, its seed. A volume is a qcow2
 * overlay on its base, or an empty qcow2 file without one. A container has `root` instead, see root-directory.ts.
 *
 * With privileges a volume is 0600 of the guest's uid, but the directory stays the daemon's and is only passable for
 * the guest's group: a guest that broke out of QEMU can neither touch its record nor put a link in the daemon's way.
 * What is half made is called `.partial-…` and is removed by whoever does it again.
 */
import { constants, type StatsFs } from 'node:fs';
import { chmod, chown, copyFile, link, readFile, rm, stat, statfs } from 'node:fs/promises';
import { basename, dirname, join, relative } from 'node:path';
import { z } from 'zod';
import { waitOrAbort } from '../../lib/abort.ts';
import { ExecError } from '../../lib/exec-result.ts';
import { UndoStack } from '../../lib/undo-stack.ts';
import type { Work } from '../../lib/work.ts';
import type { BlockSource } from '../../protocol/block-source.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { HostObject } from '../../protocol/host-object.ts';
import type { RootSource } from '../../protocol/root-source.ts';
import { deviceName, type GuestId, guestId } from '../../protocol/types.ts';
import {
  ensureDirectory,
  isMissing,
  makeDirectories,
  namesIn,
  orIfMissing,
  removeDirectory,
  removeFiles,
  renameDurably,
  replaceFile,
  settleFile,
  syncDirectory,
} from '../files/durable-files.ts';
import { readRecordsIn } from '../files/record-files.ts';
import { withStorageErrors } from '../files/storage-errors.ts';
import type {
  FirmwareVariables,
  KeptRecords,
  Pool,
  PoolUsage,
  RootSpec,
  SeedSpec,
  VolumeFile,
  VolumeOwner,
  VolumeSpec,
} from '../pool.ts';
import { createQcow2, resizeQcow2 } from '../qcow2/qemu-img.ts';
import { clearCopy, copyDirectory, requireCopyable } from './copied-directory.ts';
import { cloneRoot, prepareRoot, ROOT, removeRoot, requireRoot } from './root-directory.ts';
import { type RootPacking, requirePacking, saveRoot } from './saved-root.ts';
import { PARTIAL, removeSeeds, seedName, seedSizeBytes, writeSeed } from './seed-file.ts';

const RECORD = 'record.json';
/** Begins the name of an empty volume that is kept to be copied. */
const EMPTY = '.empty-';
const FIRMWARE_VARIABLES = 'firmware-variables.fd';
/** Unit of st_blocks, stat(2). */
const BLOCK_BYTES = 512;
/** As good as none: how large a volume may become is the file system's matter. */
const MAX_FILE_BYTES = 2 ** 53 - 1;

const guestRecord = z.looseObject({ generation: z.int().nonnegative() });
type GuestRecord = Readonly<z.infer<typeof guestRecord>>;

const readRecord = (text: string): GuestRecord | undefined => {
  try {
    return guestRecord.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
};

const exists = async (path: string): Promise<boolean> =>
  (await orIfMissing(stat(path), undefined)) !== undefined;

/** A file of the chain is there and is a file. */
const requireFile = async (
  link: Pick<BlockSource, 'path'>,
  signal: AbortSignal,
  needer = 'a disk',
): Promise<void> => {
  const found = await waitOrAbort(orIfMissing(stat(link.path), undefined), signal);
  if (found?.isFile()) return;
  const what = found === undefined ? 'is missing' : 'is not a regular file';
  throw new RoostError('FailedPrecondition', `${link.path}, which ${needer} needs, ${what}`, {
    data: { path: link.path },
    hint: 'Put the file back from a backup, or mount what it was on; nothing was changed.',
  });
};

const requireChain = async (source: BlockSource | undefined, signal: AbortSignal): Promise<void> => {
  for (let link = source; link !== undefined; link = link.backing) await requireFile(link, signal);
};

const requireRoomForBase = (volume: VolumeSpec): void => {
  const { base, name, sizeBytes } = volume;
  if (base === undefined || sizeBytes >= base.sizeBytes) return;
  throw new RoostError(
    'InvalidArgument',
    `Disk ${name} of ${sizeBytes} bytes is smaller than its image of ${base.sizeBytes}`,
    {
      data: { disk: name, sizeBytes, baseSizeBytes: base.sizeBytes },
      hint: 'Give a size of at least that of the image, or none.',
    },
  );
};

/** The file system that `path` is on, or will be. */
const statfsAbove = async (path: string): Promise<StatsFs> => {
  for (let place = path; ; place = dirname(place)) {
    try {
      return await statfs(place);
    } catch (error) {
      if (!isMissing(error) || dirname(place) === place) throw error;
    }
  }
};

export interface DirectoryPoolOptions {
  readonly name: string;
  /** Absolute path of the pool; made when needed. */
  readonly path: string;
  /** Path of roost-launcher, which becomes a volume's owner; needed where volumes have one. */
  readonly launcherPath?: string;
  /** Needed where roots are saved; without it none can be. */
  readonly rootPacking?: RootPacking;
}

class DirectoryPool implements Pool {
  readonly name: string;
  readonly kind = 'directory';
  readonly path: string;
  readonly #guests: string;
  readonly #launcherPath: string | undefined;
  readonly #rootPacking: RootPacking | undefined;

  constructor(options: DirectoryPoolOptions) {
    this.name = options.name;
    this.path = options.path;
    this.#guests = join(options.path, 'guests');
    this.#launcherPath = options.launcherPath;
    this.#rootPacking = options.rootPacking;
  }

  plan(guest: GuestId): readonly HostObject[] {
    return [{ kind: 'directory', name: this.#guestDirectory(guest) }];
  }

  async prepareGuest(guest: GuestId, owner: VolumeOwner | undefined): Promise<void> {
    const directory = this.#guestDirectory(guest);
    await withStorageErrors(`make ${directory}`, async () => {
      // Those who own something come by here, whether this guest is one of them or not.
      const passable = process.geteuid?.() === 0 ? 0o711 : 0o700;
      for (const parent of [this.path, this.#guests]) await ensureDirectory(parent, passable);
      await makeDirectories(directory, 0o700);
      if (owner) await chown(directory, process.geteuid?.() ?? 0, owner.gid);
      await chmod(directory, owner ? 0o710 : 0o700);
      await syncDirectory(this.#guests);
    });
  }

  requireCopyable(directory: string): Promise<void> {
    return withStorageErrors(`look at ${directory}`, () => requireCopyable(directory, this.path));
  }

  async createVolume(volume: VolumeSpec, work: Work): Promise<void> {
    requireRoomForBase(volume);
    const path = this.#volumePath(volume);
    await withStorageErrors(`make ${path}`, () => this.#createVolume(volume, path, work));
  }

  async growVolume(volume: VolumeSpec, work: Work): Promise<void> {
    const path = this.#volumePath(volume);
    await withStorageErrors(`resize ${path}`, async () => {
      await requireFile(this.source(volume), work.signal);
      await this.#growVolume(path, volume, work);
    });
  }

  async allocatedBytes(volume: VolumeFile): Promise<number | undefined> {
    const path = this.#volumePath(volume);
    const found = await withStorageErrors(`measure ${path}`, () => orIfMissing(stat(path), undefined));
    return found && found.blocks * BLOCK_BYTES;
  }

  /** The guest's own uid may not write it any more either; what has it open is done with it. */
  async shareVolume(...[volume, { readers, over }, work]: Parameters<Pool['shareVolume']>): Promise<void> {
    const path = this.#volumePath(volume);
    await withStorageErrors(`share ${path}`, async () => {
      await requireFile({ path }, work.signal);
      await this.#keepEmpty(volume, over, work);
      if (readers === undefined) return await chmod(path, 0o400);
      await chown(path, process.geteuid?.() ?? 0, readers);
      await chmod(path, 0o440);
      await chmod(dirname(path), 0o711);
    });
  }

  /** A further name for the same file. */
  async passVolume(volume: VolumeFile, to: VolumeSpec): Promise<void> {
    const path = this.#volumePath(volume);
    const target = this.#volumePath(to);
    await withStorageErrors(`pass ${path} on`, async () => {
      if (!(await exists(target))) {
        await requireFile({ path }, AbortSignal.any([]));
        await link(path, target);
        await syncDirectory(dirname(target));
      }
      await chmod(target, 0o600);
      if (to.owner) await chown(target, to.owner.uid, to.owner.gid);
    });
  }

  /** What is written goes to the end of the file first. */
  async isPristine({ guest, name, layer, like }: VolumeSpec): Promise<boolean> {
    if (like === undefined) return false;
    const sizeOf = async (path: string): Promise<number | undefined> =>
      (await orIfMissing(stat(path), undefined))?.size;
    return await withStorageErrors(`look at disk ${name}`, async () => {
      const size = await sizeOf(this.#volumePath({ guest, name, ...(layer === undefined ? {} : { layer }) }));
      return size !== undefined && size === (await sizeOf(this.#emptyPath(like, name)));
    });
  }

  async reclaimVolume(volume: VolumeSpec): Promise<void> {
    const path = this.#volumePath(volume);
    const { owner } = volume;
    await withStorageErrors(`give ${path} back`, async () => {
      await removeFiles(dirname(path), [basename(this.#emptyPath(volume.guest, volume.name))]);
      if (!(await exists(path))) return;
      await chmod(path, 0o600);
      if (owner) await chown(path, owner.uid, owner.gid);
      await chmod(dirname(path), owner ? 0o710 : 0o700);
    });
  }

  async deleteVolume(volume: VolumeFile): Promise<void> {
    const path = this.#volumePath(volume);
    const file = basename(path);
    await withStorageErrors(`remove ${path}`, () => removeFiles(dirname(path), [`${PARTIAL}${file}`, file]));
  }

  source(volume: VolumeSpec): BlockSource {
    return {
      format: 'qcow2',
      path: this.#volumePath(volume),
      readOnly: volume.readOnly,
      sizeBytes: volume.sizeBytes,
      ...(volume.base === undefined ? {} : { backing: volume.base }),
    };
  }

  async lease(volume: VolumeSpec, signal: AbortSignal): Promise<BlockSource> {
    const source = this.source(volume);
    await withStorageErrors(`use ${source.path}`, () => requireChain(source, signal));
    return source;
  }

  async prepareRoot({ guest, image }: RootSpec, { signal }: Work): Promise<void> {
    const directory = this.#guestDirectory(guest);
    await withStorageErrors(`make a root in ${directory}`, async () => {
      await requireFile(image, signal, 'a root');
      await prepareRoot(directory, signal);
    });
  }

  async cloneRoot(from: GuestId, { guest, image }: RootSpec, { signal }: Work): Promise<void> {
    const directory = this.#guestDirectory(guest);
    await withStorageErrors(`copy a root to ${directory}`, async () => {
      await requireFile(image, signal, 'a root');
      await cloneRoot(this.#guestDirectory(from), directory, signal);
    });
  }

  async requireSaveable(): Promise<void> {
    await requirePacking(this.#rootPacking);
  }

  async saveRoot(root: RootSpec, path: string, work: Work): Promise<void> {
    const packing = await requirePacking(this.#rootPacking);
    await withStorageErrors(`save the root of guest ${root.guest}`, async () => {
      await requireFile(root.image, work.signal, 'a root');
      await saveRoot(this.rootSource(root), path, packing, work);
    });
  }

  async removeRoot(guest: GuestId): Promise<void> {
    const directory = this.#guestDirectory(guest);
    await withStorageErrors(`remove the root in ${directory}`, () => removeRoot(directory));
  }

  rootSource({ guest, image }: RootSpec): RootSource {
    return { directory: join(this.#guestDirectory(guest), ROOT), image };
  }

  async leaseRoot(root: RootSpec, signal: AbortSignal): Promise<RootSource> {
    const source = this.rootSource(root);
    await withStorageErrors(`use ${source.directory}`, async () => {
      await requireFile(source.image, signal, 'a root');
      await requireRoot(source.directory, signal);
    });
    return source;
  }

  firmwareVariablesPath(guest: GuestId): string {
    return join(this.#guestDirectory(guest), FIRMWARE_VARIABLES);
  }

  async createFirmwareVariables({ guest, templatePath, owner }: FirmwareVariables): Promise<void> {
    const path = this.firmwareVariablesPath(guest);
    const partial = join(dirname(path), `${PARTIAL}${FIRMWARE_VARIABLES}`);
    await withStorageErrors(`make ${path}`, async () => {
      await rm(partial, { force: true });
      if (await exists(path)) return;
      await copyFile(templatePath, partial);
      await settleFile(partial, { mode: 0o600, owner });
      await renameDurably(partial, path);
    });
  }

  async writeSeed(seed: SeedSpec, work: Work): Promise<BlockSource> {
    const directory = this.#guestDirectory(seed.guest);
    await withStorageErrors(`make the seed in ${directory}`, () => writeSeed(directory, seed, work.signal));
    return this.seedSource(seed);
  }

  seedSource(seed: SeedSpec): BlockSource {
    return {
      format: 'raw',
      path: join(this.#guestDirectory(seed.guest), seedName(seed)),
      readOnly: true,
      sizeBytes: seedSizeBytes(seed),
    };
  }

  async deleteSeed(guest: GuestId): Promise<void> {
    const directory = this.#guestDirectory(guest);
    await withStorageErrors(`remove the seed in ${directory}`, () => removeSeeds(directory));
  }

  /** Not for two calls for one guest at once: they come from its mailbox, one after the other. */
  async writeRecord(guest: GuestId, record: GuestRecord): Promise<void> {
    const directory = this.#guestDirectory(guest);
    const path = join(directory, RECORD);
    await withStorageErrors(`write ${path}`, async () => {
      const current = readRecord(await orIfMissing(readFile(path, 'utf8'), ''));
      if (current !== undefined && current.generation > record.generation) return;
      const text = `${JSON.stringify(record, null, 2)}\n`;
      await replaceFile(path, text, { mode: 0o600, partialPath: join(directory, `${PARTIAL}${RECORD}`) });
    });
  }

  async readRecords(): Promise<KeptRecords> {
    return await readRecordsIn(await this.#guestDirectories(), RECORD);
  }

  async removeGuest(guest: GuestId): Promise<void> {
    const directory = this.#guestDirectory(guest);
    await withStorageErrors(`remove ${directory}`, async () => {
      await removeRoot(directory);
      await removeDirectory(directory);
    });
  }

  usage(): Promise<PoolUsage> {
    return withStorageErrors(`measure ${this.path}`, async () => {
      const { blocks, bavail, bsize } = await statfsAbove(this.path);
      return { totalBytes: blocks * bsize, freeBytes: bavail * bsize };
    });
  }

  async inspect(): Promise<readonly HostObject[]> {
    return (await this.#guestDirectories()).map((name) => ({ kind: 'directory', name }));
  }

  /** An id that is no UUID never becomes a path, least of all one to remove. */
  #guestDirectory(guest: GuestId): string {
    return join(this.#guests, guestId.parse(guest));
  }

  #volumePath({ guest, name, layer }: VolumeFile): string {
    const file = [deviceName.parse(name), ...(layer === undefined ? [] : [layer]), 'qcow2'].join('.');
    return join(this.#guestDirectory(guest), file);
  }

  async #guestDirectories(): Promise<readonly string[]> {
    const names = await withStorageErrors(`list ${this.#guests}`, () => namesIn(this.#guests));
    return names.filter((name) => guestId.safeParse(name).success).map((name) => join(this.#guests, name));
  }

  /** The file was last written by the guest's process: it is opened as the guest, who could do no harm by it. */
  async #growVolume(path: string, { owner, sizeBytes }: VolumeSpec, { signal }: Work): Promise<void> {
    const launcherPath = this.#launcherPath;
    const confinement = owner && launcherPath !== undefined ? { launcherPath, identity: owner } : undefined;
    try {
      await resizeQcow2(
        { path: basename(path), sizeBytes },
        { signal, confinement, cwd: dirname(path), maxFileBytes: MAX_FILE_BYTES },
      );
    } catch (error) {
      if (!(error instanceof ExecError) || !error.stderr.includes('--shrink')) throw error;
      throw new RoostError('FailedPrecondition', `${path} is larger than ${sizeBytes} bytes already`, {
        cause: error,
        data: { path, sizeBytes },
        hint: 'A disk never shrinks: ask for more.',
      });
    }
  }

  /** Its base is called as from a guest's directory beside this one, where its copies will be; from here it is the same. */
  async #keepEmpty(
    { guest, name }: Pick<VolumeSpec, 'guest' | 'name'>,
    over: VolumeSpec,
    work: Work,
  ): Promise<void> {
    const path = this.#emptyPath(guest, name);
    const partial = join(dirname(path), `${PARTIAL}${basename(path)}`);
    await rm(partial, { force: true });
    if (await exists(path)) return;
    await makeOverlay(partial, over, { from: join(this.#guests, 'beside'), work });
    await renameDurably(partial, path);
  }

  #emptyPath(guest: GuestId, name: string): string {
    return join(this.#guestDirectory(guest), `${EMPTY}${deviceName.parse(name)}.qcow2`);
  }

  /** In a tenth of a millisecond instead of ten. */
  async #copyEmpty({ like, name }: VolumeSpec, path: string): Promise<boolean> {
    if (like === undefined) return false;
    try {
      await copyFile(this.#emptyPath(like, name), path, constants.COPYFILE_FICLONE);
      return true;
    } catch (error) {
      if (!isMissing(error)) throw error;
      return false;
    }
  }

  async #createVolume(volume: VolumeSpec, path: string, work: Work): Promise<void> {
    const directory = dirname(path);
    const partial = join(directory, `${PARTIAL}${basename(path)}`);
    work.signal.throwIfAborted();
    await rm(partial, { force: true });
    const { base, owner, copyOf } = volume;
    if (copyOf !== undefined) await clearCopy(partial);
    if (await exists(path)) return;
    await requireChain(base, work.signal);
    await using undo = new UndoStack();
    undo.add(() => rm(partial, { force: true }));
    if (copyOf !== undefined) {
      undo.add(() => clearCopy(partial));
      const launcherPath = this.#launcherPath;
      const confinement = launcherPath === undefined ? undefined : { launcherPath, identity: owner };
      const { sizeBytes } = volume;
      await copyDirectory({ directory: copyOf, path: partial, sizeBytes, confinement }, work);
    } else if (!(await this.#copyEmpty(volume, partial)))
      await makeOverlay(partial, volume, { from: directory, work });
    await settleFile(partial, { mode: 0o600, owner });
    work.signal.throwIfAborted();
    await renameDurably(partial, path);
    undo.succeed();
  }
}

/** `from`: the directory from which the base is called. */
const makeOverlay = async (
  path: string,
  { base, sizeBytes }: VolumeSpec,
  { from, work }: { readonly from: string; readonly work: Work },
): Promise<void> => {
  const backing = base && { name: relative(from, base.path), format: base.format };
  await createQcow2({ path, sizeBytes, ...(backing && { backing }) }, { signal: work.signal });
};

export const directoryPool = (options: DirectoryPoolOptions): Pool => new DirectoryPool(options);
