/**
 * A pool in memory, for tests of what uses one: keeps the contract's rules and touches no disk. It outlives the daemon
 * under test when the same pool is given to the next one. `before` runs ahead of each effect, so that a test can hold
 * it up or let it fail.
 */
import { createHash } from 'node:crypto';
import type { Work } from '../../lib/work.ts';
import type { BlockSource } from '../../protocol/block-source.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { HostObject } from '../../protocol/host-object.ts';
import type { RootSource } from '../../protocol/root-source.ts';
import type { GuestId } from '../../protocol/types.ts';
import type {
  FirmwareVariables,
  KeptRecord,
  Pool,
  PoolUsage,
  RootSpec,
  SeedSpec,
  VolumeFile,
  VolumeOwner,
  VolumeSpec,
} from '../pool.ts';

export type PoolEffect =
  | 'prepareGuest'
  | 'createVolume'
  | 'growVolume'
  | 'shareVolume'
  | 'passVolume'
  | 'reclaimVolume'
  | 'deleteVolume'
  | 'prepareRoot'
  | 'cloneRoot'
  | 'saveRoot'
  | 'removeRoot'
  | 'leaseRoot'
  | 'createFirmwareVariables'
  | 'writeSeed'
  | 'deleteSeed'
  | 'writeRecord'
  | 'removeGuest'
  | 'lease';

export interface FakePoolOptions {
  readonly name?: string;
  readonly path?: string;
  readonly before?: (effect: PoolEffect, guest: GuestId) => Promise<void> | void;
  readonly usage?: PoolUsage;
  /** Is told the path of each root that was saved. */
  readonly saved?: (path: string) => void;
}

interface GuestPlace {
  readonly volumes: Map<string, VolumeSpec>;
  record: { readonly generation: number } | undefined;
  seed: SeedSpec | undefined;
  hasRoot: boolean;
}

const fileOf = ({ name, layer }: Pick<VolumeFile, 'name' | 'layer'>): string =>
  layer === undefined ? name : `${name}.${layer}`;

const GIBIBYTE = 1024 ** 3;
/** Of every volume, as if it was just made. */
const ALLOCATED_BYTES = 196_608;

export class FakePool implements Pool {
  readonly name: string;
  readonly kind = 'fake';
  readonly path: string;
  /** Every effect asked for, in order, as `effect guest-id [disk]`. */
  readonly calls: string[] = [];
  /** Paths that `lease` is to miss. */
  readonly missing = new Set<string>();
  readonly #guests = new Map<GuestId, GuestPlace>();
  readonly #before: NonNullable<FakePoolOptions['before']>;
  readonly #usage: PoolUsage;
  readonly #saved: NonNullable<FakePoolOptions['saved']>;
  /** Why roots cannot be saved here, if they cannot. */
  unsaveable: string | undefined;

  constructor(options: FakePoolOptions = {}) {
    this.name = options.name ?? 'default';
    this.path = options.path ?? '/nonexistent/pool';
    this.#before = options.before ?? (() => undefined);
    this.#saved = options.saved ?? (() => undefined);
    this.#usage = options.usage ?? { totalBytes: 100 * GIBIBYTE, freeBytes: 50 * GIBIBYTE };
  }

  /** Names of a guest's volumes, sorted; with its layer where there is one. */
  volumesOf(guest: GuestId): readonly string[] {
    return [...(this.#guests.get(guest)?.volumes.keys() ?? [])].sort();
  }

  plan(guest: GuestId): readonly HostObject[] {
    return [{ kind: 'directory', name: this.#directory(guest) }];
  }

  async prepareGuest(guest: GuestId, _owner: VolumeOwner | undefined): Promise<void> {
    await this.#effect('prepareGuest', guest);
    if (!this.#guests.has(guest))
      this.#guests.set(guest, { volumes: new Map(), record: undefined, seed: undefined, hasRoot: false });
  }

  requireCopyable(): Promise<void> {
    return Promise.resolve();
  }

  async createVolume(volume: VolumeSpec, work: Work): Promise<void> {
    const { base, guest, name, sizeBytes } = volume;
    const file = fileOf(volume);
    work.signal.throwIfAborted();
    if (base !== undefined && sizeBytes < base.sizeBytes) {
      throw new RoostError('InvalidArgument', `Disk ${name} is smaller than its image`);
    }
    await this.#effect('createVolume', guest, name);
    work.signal.throwIfAborted();
    const { volumes } = this.#place(guest);
    for (let link = base; link !== undefined; link = link.backing) this.#require(link.path);
    if (!volumes.has(file)) volumes.set(file, volume);
  }

  async growVolume(volume: VolumeSpec, work: Work): Promise<void> {
    const { guest, name, sizeBytes } = volume;
    work.signal.throwIfAborted();
    await this.#effect('growVolume', guest, name);
    this.#require(this.source(volume).path);
    const volumes = this.#guests.get(guest)?.volumes;
    const before = volumes?.get(fileOf(volume));
    if (!before || before.sizeBytes > sizeBytes)
      throw new RoostError('FailedPrecondition', `Disk ${name} is missing or larger`, {
        data: { disk: name },
      });
    volumes?.set(fileOf(volume), { ...before, sizeBytes });
  }

  allocatedBytes(file: VolumeFile): Promise<number | undefined> {
    const volume = this.#guests.get(file.guest)?.volumes.get(fileOf(file));
    const isThere = volume !== undefined && !this.missing.has(this.source(volume).path);
    return Promise.resolve(isThere ? ALLOCATED_BYTES : undefined);
  }

  async shareVolume(file: VolumeFile): Promise<void> {
    await this.#effect('shareVolume', file.guest, file.name);
    this.#volume(file);
  }

  async passVolume(file: VolumeFile, to: VolumeSpec): Promise<void> {
    await this.#effect('passVolume', file.guest, file.name);
    const { volumes } = this.#place(to.guest);
    if (!volumes.has(fileOf(to))) volumes.set(fileOf(to), { ...this.#volume(file), ...to });
  }

  isPristine(): Promise<boolean> {
    return Promise.resolve(false);
  }

  async reclaimVolume({ guest, name }: VolumeSpec): Promise<void> {
    await this.#effect('reclaimVolume', guest, name);
  }

  async deleteVolume(file: VolumeFile): Promise<void> {
    await this.#effect('deleteVolume', file.guest, file.name);
    this.#guests.get(file.guest)?.volumes.delete(fileOf(file));
  }

  source(volume: VolumeSpec): BlockSource {
    return {
      format: 'qcow2',
      path: `${this.#directory(volume.guest)}/${fileOf(volume)}.qcow2`,
      readOnly: volume.readOnly,
      sizeBytes: volume.sizeBytes,
      ...(volume.base === undefined ? {} : { backing: volume.base }),
    };
  }

  async lease(volume: VolumeSpec, signal: AbortSignal): Promise<BlockSource> {
    signal.throwIfAborted();
    await this.#effect('lease', volume.guest, volume.name);
    const source = this.source(volume);
    if (!this.#guests.get(volume.guest)?.volumes.has(fileOf(volume))) this.#refuse(source.path);
    for (let link: BlockSource | undefined = source; link !== undefined; link = link.backing) {
      this.#require(link.path);
    }
    return source;
  }

  async prepareRoot({ guest, image }: RootSpec, work: Work): Promise<void> {
    work.signal.throwIfAborted();
    await this.#effect('prepareRoot', guest);
    work.signal.throwIfAborted();
    this.#require(image.path);
    this.#place(guest).hasRoot = true;
  }

  async cloneRoot(from: GuestId, { guest, image }: RootSpec, work: Work): Promise<void> {
    work.signal.throwIfAborted();
    await this.#effect('cloneRoot', guest);
    work.signal.throwIfAborted();
    this.#require(image.path);
    const place = this.#place(guest);
    if (!place.hasRoot) this.#requireRoot({ guest: from, image });
    place.hasRoot = true;
  }

  async requireSaveable(): Promise<void> {
    if (this.unsaveable !== undefined) throw new RoostError('Unsupported', this.unsaveable);
  }

  async saveRoot(root: RootSpec, path: string, work: Work): Promise<void> {
    work.signal.throwIfAborted();
    work.progress({ done: 0, total: 100, unit: 'percent' });
    await this.#effect('saveRoot', root.guest);
    work.signal.throwIfAborted();
    this.#require(root.image.path);
    this.#requireRoot(root);
    this.#saved(path);
  }

  async removeRoot(guest: GuestId): Promise<void> {
    await this.#effect('removeRoot', guest);
    const place = this.#guests.get(guest);
    if (place) place.hasRoot = false;
  }

  rootSource({ guest, image }: RootSpec): RootSource {
    return { directory: `${this.#directory(guest)}/root`, image };
  }

  async leaseRoot(root: RootSpec, signal: AbortSignal): Promise<RootSource> {
    signal.throwIfAborted();
    await this.#effect('leaseRoot', root.guest);
    this.#require(root.image.path);
    this.#requireRoot(root);
    return this.rootSource(root);
  }

  /** Whether a guest has a root. */
  hasRoot(guest: GuestId): boolean {
    return this.#guests.get(guest)?.hasRoot === true;
  }

  firmwareVariablesPath(guest: GuestId): string {
    return `${this.#directory(guest)}/firmware-variables.fd`;
  }

  async createFirmwareVariables({ guest }: FirmwareVariables): Promise<void> {
    await this.#effect('createFirmwareVariables', guest);
    this.#place(guest);
  }

  async writeSeed(seed: SeedSpec, work: Work): Promise<BlockSource> {
    work.signal.throwIfAborted();
    await this.#effect('writeSeed', seed.guest);
    work.signal.throwIfAborted();
    this.#place(seed.guest).seed = structuredClone(seed);
    return this.seedSource(seed);
  }

  seedSource(seed: SeedSpec): BlockSource {
    const digest = createHash('sha256')
      .update(JSON.stringify([seed.label, seed.files]))
      .digest('hex');
    const path = `${this.#directory(seed.guest)}/seed-${digest.slice(0, 16)}.iso`;
    const content = Object.values(seed.files).join('').length;
    return { format: 'raw', path, readOnly: true, sizeBytes: content + 512 - (content % 512) };
  }

  async deleteSeed(guest: GuestId): Promise<void> {
    await this.#effect('deleteSeed', guest);
    const place = this.#guests.get(guest);
    if (place) place.seed = undefined;
  }

  /** The seed of a guest as it lies there. */
  seedOf(guest: GuestId): SeedSpec | undefined {
    return this.#guests.get(guest)?.seed;
  }

  async writeRecord(guest: GuestId, record: { readonly generation: number }): Promise<void> {
    await this.#effect('writeRecord', guest);
    const place = this.#place(guest);
    if (place.record !== undefined && place.record.generation > record.generation) return;
    place.record = structuredClone(record);
  }

  /** Somebody writes a record behind the pool's back, or takes it away. */
  setRecord(guest: GuestId, record: KeptRecord | undefined): void {
    this.#place(guest).record = record as GuestPlace['record'];
  }

  readRecords(): ReturnType<Pool['readRecords']> {
    const records = [...this.#guests.values()].flatMap(({ record }) =>
      record === undefined ? [] : [record],
    );
    return Promise.resolve({ records: structuredClone(records), unreadable: [] });
  }

  async removeGuest(guest: GuestId): Promise<void> {
    await this.#effect('removeGuest', guest);
    this.#guests.delete(guest);
  }

  usage(): Promise<PoolUsage> {
    return Promise.resolve(this.#usage);
  }

  inspect(): Promise<readonly HostObject[]> {
    return Promise.resolve([...this.#guests.keys()].flatMap((guest) => this.plan(guest)));
  }

  #directory(guest: GuestId): string {
    return `${this.path}/guests/${guest}`;
  }

  #place(guest: GuestId): GuestPlace {
    const place = this.#guests.get(guest);
    if (place === undefined) throw new RoostError('HostError', `There is no ${this.#directory(guest)}`);
    return place;
  }

  #volume(file: VolumeFile): VolumeSpec {
    const volume = this.#guests.get(file.guest)?.volumes.get(fileOf(file));
    if (volume) return volume;
    throw new RoostError('FailedPrecondition', `Disk ${file.name} is missing`, { data: { disk: file.name } });
  }

  #requireRoot(root: RootSpec): void {
    const { directory } = this.rootSource(root);
    if (!this.hasRoot(root.guest)) this.#refuse(directory);
    this.#require(directory);
  }

  #require(path: string): void {
    if (this.missing.has(path)) this.#refuse(path);
  }

  #refuse(path: string): never {
    throw new RoostError('FailedPrecondition', `${path}, which a disk needs, is missing`, { data: { path } });
  }

  async #effect(effect: PoolEffect, guest: GuestId, disk?: string): Promise<void> {
    this.calls.push([effect, guest, ...(disk === undefined ? [] : [disk])].join(' '));
    await this.#before(effect, guest);
  }
}
