/**
 * The rules of `storage/pool.ts`, held against any pool. A harness stands for the world around the pool: it can look
 * at files and break them, or say that there are none.
 */
import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Work } from '../../lib/work.ts';
import type { BlockSource } from '../../protocol/block-source.ts';
import { type HostObject, hostObjectKey } from '../../protocol/host-object.ts';
import { type GuestId, guestId } from '../../protocol/types.ts';
import type { Pool, SeedSpec, VolumeOwner, VolumeSpec } from '../../storage/pool.ts';

export interface PoolHarness extends AsyncDisposable {
  readonly pool: Pool;
  readonly owner: VolumeOwner | undefined;
  /** A new base with something in it. */
  makeBase(sizeBytes: number): Promise<BlockSource>;
  /** Makes the file of a volume or base be gone. */
  lose(path: string): Promise<void>;
  /** Whether it can tell at all what nothing was written to. */
  readonly tellsPristine: boolean;
  /** Writes into a finished volume, as its guest would. */
  writeInto(path: string): Promise<void>;
  /** What changes when the content of a volume or base does. */
  fingerprint(path: string): Promise<string>;
  /** Leaves what a crash in the middle of making this volume, or this guest's record, would leave. */
  leaveHalfMade(volume: VolumeSpec): Promise<void>;
  /** Leaves what a crash in the middle of making this guest's seed would leave. */
  leaveHalfMadeSeed(guest: GuestId): Promise<void>;
  /** Label and files of a seed, as its guest would read them; undefined when it is not there. */
  readSeed(
    guest: GuestId,
    source: BlockSource,
  ): Promise<{ readonly label: string; readonly files: Readonly<Record<string, string>> } | undefined>;
  /** Everything below the place of a guest that is not a finished volume or the record. */
  strays(guest: GuestId): Promise<readonly string[]>;
}

const MEBIBYTE = 1024 ** 2;

export const work = (signal: AbortSignal = new AbortController().signal): Work => ({
  signal,
  progress: () => undefined,
});

const keys = (objects: readonly HostObject[]): readonly string[] => objects.map(hostObjectKey).toSorted();

export const newGuest = (): GuestId => guestId.parse(randomUUID());

export const poolConformance = (name: string, makeHarness: () => Promise<PoolHarness>): void => {
  describe(`${name} keeps the contract of a pool`, () => {
    let harness: PoolHarness;
    let pool: Pool;
    let guest: GuestId;

    beforeEach(async () => {
      harness = await makeHarness();
      pool = harness.pool;
      guest = newGuest();
    });
    afterEach(() => harness[Symbol.asyncDispose]());

    const volumeOf = (changes: Partial<VolumeSpec> = {}): VolumeSpec => ({
      guest,
      name: 'disk0',
      sizeBytes: 4 * MEBIBYTE,
      readOnly: false,
      ...(harness.owner === undefined ? {} : { owner: harness.owner }),
      ...changes,
    });
    const lease = (volume: VolumeSpec): Promise<BlockSource> => pool.lease(volume, work().signal);
    const create = async (volume: VolumeSpec): Promise<VolumeSpec> => {
      await pool.prepareGuest(volume.guest, harness.owner);
      await pool.createVolume(volume, work());
      return volume;
    };

    describe('variables of firmware', () => {
      it('are made once, kept when they are made again, and gone with the guest', async () => {
        const { path: templatePath } = await harness.makeBase(MEBIBYTE);
        const variables = {
          guest,
          templatePath,
          ...(harness.owner === undefined ? {} : { owner: harness.owner }),
        };
        await pool.prepareGuest(guest, harness.owner);
        await pool.createFirmwareVariables(variables);
        const path = pool.firmwareVariablesPath(guest);
        await harness.writeInto(path);
        const written = await harness.fingerprint(path);
        await pool.createFirmwareVariables(variables);
        expect(await harness.fingerprint(path)).toBe(written);
        expect(keys(await pool.inspect())).toEqual(keys(pool.plan(guest, [])));
        await pool.removeGuest(guest);
        expect(await pool.inspect()).toEqual([]);
      });
    });

    describe('plan and inspect', () => {
      it('makes nothing by planning', async () => {
        expect(pool.plan(guest, [volumeOf()])).toHaveLength(1);
        expect(await pool.inspect()).toEqual([]);
      });

      it('finds exactly what was planned once it is made', async () => {
        const volumes = [volumeOf(), volumeOf({ name: 'disk1' })];
        for (const volume of volumes) await create(volume);
        await pool.writeRecord(guest, { generation: 1 });
        expect(keys(await pool.inspect())).toEqual(keys(pool.plan(guest, volumes)));
      });

      it('finds what a crash left in the middle', async () => {
        await pool.prepareGuest(guest, harness.owner);
        await harness.leaveHalfMade(volumeOf());
        expect(keys(await pool.inspect())).toEqual(keys(pool.plan(guest, [volumeOf()])));
      });

      it('plans different objects for different guests', () => {
        expect(keys(pool.plan(guest, []))).not.toEqual(keys(pool.plan(newGuest(), [])));
      });
    });

    describe('createVolume', () => {
      it('makes a volume that can be leased', async () => {
        const volume = await create(volumeOf());
        expect(await lease(volume)).toEqual(pool.source(volume));
      });

      it('changes nothing when done again', async () => {
        const volume = await create(volumeOf({ base: await harness.makeBase(MEBIBYTE) }));
        await harness.writeInto(pool.source(volume).path);
        const before = await harness.fingerprint(pool.source(volume).path);
        await create(volume);
        expect(await harness.fingerprint(pool.source(volume).path)).toBe(before);
      });

      it('never writes its base, which two volumes may share', async () => {
        const base = await harness.makeBase(2 * MEBIBYTE);
        const before = await harness.fingerprint(base.path);
        const first = await create(volumeOf({ base }));
        const second = await create(volumeOf({ base, guest: newGuest() }));
        expect((await lease(first)).backing).toEqual(base);
        expect((await lease(second)).backing).toEqual(base);
        expect(pool.source(first).path).not.toBe(pool.source(second).path);
        expect(await harness.fingerprint(base.path)).toBe(before);
      });

      it('may be as large as its base, and no smaller', async () => {
        const base = await harness.makeBase(2 * MEBIBYTE);
        await create(volumeOf({ base, sizeBytes: 2 * MEBIBYTE }));
        const small = volumeOf({ base, name: 'disk1', sizeBytes: 2 * MEBIBYTE - 512 });
        await expect(create(small)).rejects.toMatchObject({ class: 'InvalidArgument' });
        await expect(lease(small)).rejects.toMatchObject({ class: 'FailedPrecondition' });
      });

      it('refuses a base that is not there', async () => {
        const base = await harness.makeBase(MEBIBYTE);
        await harness.lose(base.path);
        await expect(create(volumeOf({ base }))).rejects.toMatchObject({
          class: 'FailedPrecondition',
          data: { path: base.path },
        });
        expect(await harness.strays(guest)).toEqual([]);
      });

      it('gives out nothing half made, and finishes it when done again', async () => {
        const volume = volumeOf();
        await pool.prepareGuest(guest, harness.owner);
        await harness.leaveHalfMade(volume);
        await expect(lease(volume)).rejects.toMatchObject({ class: 'FailedPrecondition' });
        await pool.createVolume(volume, work());
        expect(await lease(volume)).toEqual(pool.source(volume));
        await pool.writeRecord(guest, { generation: 1 });
        expect(await harness.strays(guest)).toEqual([]);
      });

      it('leaves nothing when it is aborted', async () => {
        await pool.prepareGuest(guest, harness.owner);
        const reason = new Error('given up');
        const controller = new AbortController();
        const creating = pool.createVolume(volumeOf(), work(controller.signal));
        controller.abort(reason);
        await expect(creating).rejects.toBe(reason);
        await expect(pool.createVolume(volumeOf(), work(AbortSignal.abort(reason)))).rejects.toBe(reason);
        expect(await harness.strays(guest)).toEqual([]);
        await expect(lease(volumeOf())).rejects.toMatchObject({ class: 'FailedPrecondition' });
      });
    });

    describe('source and lease', () => {
      it('says where a volume is without looking', () => {
        const volume = volumeOf({ readOnly: true });
        expect(pool.source(volume)).toMatchObject({ readOnly: true, sizeBytes: volume.sizeBytes });
        expect(pool.source(volume)).not.toHaveProperty('backing');
      });

      it('names the missing file, of the volume or of any link under it', async () => {
        const base = await harness.makeBase(MEBIBYTE);
        const volume = await create(volumeOf({ base }));
        await harness.lose(base.path);
        await expect(lease(volume)).rejects.toMatchObject({
          class: 'FailedPrecondition',
          data: { path: base.path },
        });
        const never = volumeOf({ name: 'disk9' });
        await expect(lease(never)).rejects.toMatchObject({ data: { path: pool.source(never).path } });
      });

      it('stops for its signal', async () => {
        const volume = await create(volumeOf());
        const reason = new Error('given up');
        await expect(pool.lease(volume, AbortSignal.abort(reason))).rejects.toBe(reason);
      });
    });

    describe('growVolume', () => {
      it('makes a volume larger, also twice, and never smaller', async () => {
        const base = await harness.makeBase(2 * MEBIBYTE);
        const baseBefore = await harness.fingerprint(base.path);
        const volume = await create(volumeOf({ base }));
        const larger = { ...volume, sizeBytes: 6 * MEBIBYTE };
        await pool.growVolume(larger, work());
        await pool.growVolume(larger, work());
        const smaller = { ...volume, sizeBytes: 6 * MEBIBYTE - 512 };
        await expect(pool.growVolume(smaller, work())).rejects.toMatchObject({
          class: 'FailedPrecondition',
        });
        expect(await lease(larger)).toEqual(pool.source(larger));
        expect(await harness.fingerprint(base.path)).toBe(baseBefore);
        expect(await harness.strays(guest)).toEqual([]);
      });

      it('refuses a volume that never was, or is lost', async () => {
        await expect(pool.growVolume(volumeOf(), work())).rejects.toMatchObject({
          class: 'FailedPrecondition',
        });
        const volume = await create(volumeOf());
        await harness.lose(pool.source(volume).path);
        await expect(pool.growVolume({ ...volume, sizeBytes: 6 * MEBIBYTE }, work())).rejects.toMatchObject({
          class: 'FailedPrecondition',
        });
      });

      it('changes nothing when its signal has ended before', async () => {
        const volume = await create(volumeOf());
        const before = await harness.fingerprint(pool.source(volume).path);
        const reason = new Error('given up');
        const larger = { ...volume, sizeBytes: 6 * MEBIBYTE };
        await expect(pool.growVolume(larger, work(AbortSignal.abort(reason)))).rejects.toBe(reason);
        expect(await harness.fingerprint(pool.source(volume).path)).toBe(before);
        await pool.growVolume(volume, work());
      });
    });

    describe('allocatedBytes', () => {
      it('tells of a volume that is there, and of no other', async () => {
        expect(await pool.allocatedBytes(volumeOf())).toBeUndefined();
        const volume = await create(volumeOf({ base: await harness.makeBase(MEBIBYTE) }));
        expect(await pool.allocatedBytes(volume)).toBeGreaterThan(0);
        expect(await pool.allocatedBytes(volumeOf({ name: 'disk1' }))).toBeUndefined();
        await pool.deleteVolume(volume);
        expect(await pool.allocatedBytes(volume)).toBeUndefined();
      });

      it('tells of none whose file is lost', async () => {
        const volume = await create(volumeOf());
        await harness.lose(pool.source(volume).path);
        expect(await pool.allocatedBytes(volume)).toBeUndefined();
      });
    });

    describe('shareVolume', () => {
      it('lets volumes lie on it, also when it is done again, and those that ask for a copy of an empty one', async () => {
        const below = await create(volumeOf({ base: await harness.makeBase(MEBIBYTE) }));
        const over = volumeOf({ guest: newGuest(), base: { ...pool.source(below), readOnly: true } });
        await pool.shareVolume(below, { readers: undefined, over }, work());
        await pool.shareVolume(below, { readers: undefined, over }, work());
        const before = await harness.fingerprint(pool.source(below).path);
        for (const like of [{}, { like: below.guest }, { like: newGuest() }]) {
          const volume = await create({ ...over, ...like, guest: newGuest() });
          expect((await lease(volume)).backing?.path).toBe(pool.source(below).path);
        }
        expect(await harness.fingerprint(pool.source(below).path)).toBe(before);
      });

      it('knows of a copy of an empty one whether it was written to', async () => {
        const below = await create(volumeOf({ base: await harness.makeBase(MEBIBYTE) }));
        const base = { ...pool.source(below), readOnly: true };
        const over = volumeOf({ guest: newGuest(), base, like: below.guest });
        expect(await pool.isPristine(over)).toBe(false);
        await pool.shareVolume(below, { readers: undefined, over }, work());
        const volume = await create(over);
        expect(await pool.isPristine(volume)).toBe(harness.tellsPristine);
        await harness.writeInto(pool.source(volume).path);
        expect(await pool.isPristine(volume)).toBe(false);
      });

      it('can be given back to its guest', async () => {
        const below = await create(volumeOf());
        await pool.shareVolume(below, { readers: undefined, over: volumeOf({ guest: newGuest() }) }, work());
        await pool.reclaimVolume(below);
        await pool.reclaimVolume(below);
        await pool.reclaimVolume(volumeOf({ name: 'none' }));
        expect(await lease(below)).toEqual(pool.source(below));
      });

      it('leaves nothing when its guest is removed', async () => {
        const below = await create(volumeOf());
        await pool.shareVolume(below, { readers: undefined, over: volumeOf({ guest: newGuest() }) }, work());
        await pool.removeGuest(below.guest);
        expect(await pool.inspect()).toEqual([]);
      });

      it('refuses what is not there', async () => {
        await pool.prepareGuest(guest, harness.owner);
        await expect(
          pool.shareVolume(volumeOf(), { readers: undefined, over: volumeOf() }, work()),
        ).rejects.toMatchObject({ class: 'FailedPrecondition' });
      });
    });

    describe('passVolume', () => {
      it('makes the file of one guest that of another too, also twice, for a new layer to lie on it', async () => {
        const volume = await create(volumeOf({ base: await harness.makeBase(MEBIBYTE) }));
        await harness.writeInto(pool.source(volume).path);
        const passed = { ...volume, guest: newGuest() };
        await pool.prepareGuest(passed.guest, harness.owner);
        await pool.passVolume(volume, passed);
        await pool.passVolume(volume, passed);
        expect(await lease(passed)).toEqual(pool.source(passed));
        expect(await pool.allocatedBytes(passed)).toBe(await pool.allocatedBytes(volume));
        await pool.shareVolume(passed, { readers: undefined, over: volume }, work());
        const over = await create({
          ...volume,
          layer: 1,
          base: { ...pool.source(passed), readOnly: true },
          like: passed.guest,
        });
        expect(pool.source(over).path).not.toBe(pool.source(volume).path);
        expect((await lease(over)).backing?.path).toBe(pool.source(passed).path);
        await pool.deleteVolume(volume);
        expect(await lease(over)).toEqual(pool.source(over));
      });

      it('can be taken back: the guest has its volume alone again', async () => {
        const volume = await create(volumeOf());
        const passed = { ...volume, guest: newGuest() };
        await pool.prepareGuest(passed.guest, harness.owner);
        await pool.passVolume(volume, passed);
        await pool.removeGuest(passed.guest);
        await pool.reclaimVolume(volume);
        expect(await lease(volume)).toEqual(pool.source(volume));
      });

      it('refuses what is not there', async () => {
        await pool.prepareGuest(guest, harness.owner);
        const to = volumeOf({ guest: newGuest() });
        await pool.prepareGuest(to.guest, harness.owner);
        await expect(pool.passVolume(volumeOf(), to)).rejects.toMatchObject({ class: 'FailedPrecondition' });
      });
    });

    describe('deleteVolume and removeGuest', () => {
      it('removes a volume, also twice, and no other', async () => {
        const base = await harness.makeBase(MEBIBYTE);
        const kept = await create(volumeOf({ name: 'disk1', base }));
        const volume = await create(volumeOf({ base }));
        await pool.deleteVolume(volume);
        await pool.deleteVolume(volume);
        await expect(lease(volume)).rejects.toMatchObject({ class: 'FailedPrecondition' });
        expect(await lease(kept)).toEqual(pool.source(kept));
      });

      it('removes what is half made too', async () => {
        await pool.prepareGuest(guest, harness.owner);
        await harness.leaveHalfMade(volumeOf());
        await pool.deleteVolume(volumeOf());
        await pool.writeRecord(guest, { generation: 1 });
        expect(await harness.strays(guest)).toEqual([]);
      });

      it('deletes what never was', async () => {
        await pool.deleteVolume(volumeOf());
        await pool.removeGuest(guest);
        expect(await pool.inspect()).toEqual([]);
      });

      it('removes a guest with all that is its own, also twice, but neither base nor neighbour', async () => {
        const base = await harness.makeBase(MEBIBYTE);
        const baseBefore = await harness.fingerprint(base.path);
        const neighbour = await create(volumeOf({ base, guest: newGuest() }));
        await create(volumeOf({ base }));
        await pool.writeRecord(guest, { generation: 1 });
        await harness.leaveHalfMade(volumeOf({ name: 'disk1' }));
        await pool.removeGuest(guest);
        await pool.removeGuest(guest);
        expect(keys(await pool.inspect())).toEqual(keys(pool.plan(neighbour.guest, [])));
        expect(await pool.readRecords()).toEqual({ records: [], unreadable: [] });
        expect(await harness.fingerprint(base.path)).toBe(baseBefore);
        expect(await lease(neighbour)).toEqual(pool.source(neighbour));
      });
    });

    describe('seeds', () => {
      const files = { 'user-data': '#cloud-config\n{}\n', 'meta-data': 'instance-id: "ä"\n' };
      const seedOf = (changes: Partial<SeedSpec> = {}): SeedSpec => ({
        guest,
        label: 'cidata',
        files,
        ...(harness.owner === undefined ? {} : { owner: harness.owner }),
        ...changes,
      });
      beforeEach(() => pool.prepareGuest(guest, harness.owner));

      it('makes one that a guest can read, where it said it would be', async () => {
        const source = await pool.writeSeed(seedOf(), work());
        expect(source).toEqual(pool.seedSource(seedOf()));
        expect(source).toMatchObject({ format: 'raw', readOnly: true });
        expect(await harness.readSeed(guest, source)).toEqual({ label: 'cidata', files });
      });

      it('says where it is without making it', async () => {
        const source = pool.seedSource(seedOf());
        expect(await harness.readSeed(guest, source)).toBeUndefined();
      });

      it('changes nothing when done again', async () => {
        const source = await pool.writeSeed(seedOf(), work());
        const before = await harness.fingerprint(source.path);
        expect(await pool.writeSeed(seedOf(), work())).toEqual(source);
        expect(await harness.fingerprint(source.path)).toBe(before);
      });

      it('makes a changed one anew, and leaves only that', async () => {
        const before = await pool.writeSeed(seedOf(), work());
        const changed = seedOf({ files: { ...files, 'user-data': '#!/bin/sh\n' } });
        const after = await pool.writeSeed(changed, work());
        expect(after.path).not.toBe(before.path);
        expect(await harness.readSeed(guest, after)).toMatchObject({ files: changed.files });
        expect(await harness.readSeed(guest, before)).toBeUndefined();
      });

      it('holds as much as it is given', async () => {
        const large = { ...files, 'user-data': `#!/bin/sh\n${'#'.repeat(3 * MEBIBYTE)}\n` };
        const source = await pool.writeSeed(seedOf({ files: large }), work());
        expect(source.sizeBytes).toBeGreaterThan(3 * MEBIBYTE);
        expect((await harness.readSeed(guest, source))?.files).toEqual(large);
      });

      it('finishes what a crash left in the middle', async () => {
        await harness.leaveHalfMadeSeed(guest);
        const source = await pool.writeSeed(seedOf(), work());
        expect(await harness.readSeed(guest, source)).toEqual({ label: 'cidata', files });
        expect(await harness.strays(guest)).toEqual([]);
      });

      it('leaves nothing when it is aborted', async () => {
        const reason = new Error('given up');
        const controller = new AbortController();
        const writing = pool.writeSeed(seedOf(), work(controller.signal));
        controller.abort(reason);
        await expect(writing).rejects.toBe(reason);
        expect(await harness.strays(guest)).toEqual([]);
        expect(await harness.readSeed(guest, pool.seedSource(seedOf()))).toBeUndefined();
      });

      it('takes it away, also twice, with what is half made, and nothing else', async () => {
        const volume = await create(volumeOf());
        const source = await pool.writeSeed(seedOf(), work());
        await harness.leaveHalfMadeSeed(guest);
        await pool.deleteSeed(guest);
        await pool.deleteSeed(guest);
        expect(await harness.readSeed(guest, source)).toBeUndefined();
        expect(await harness.strays(guest)).toEqual([]);
        expect(await lease(volume)).toEqual(pool.source(volume));
        await pool.deleteSeed(newGuest());
      });

      it('goes with its guest', async () => {
        const source = await pool.writeSeed(seedOf(), work());
        await pool.removeGuest(guest);
        expect(await harness.readSeed(guest, source)).toBeUndefined();
        expect(await pool.inspect()).toEqual([]);
      });
    });

    describe('records', () => {
      beforeEach(() => pool.prepareGuest(guest, harness.owner));

      it('gives back what was written', async () => {
        const record = { generation: 3, name: 'web', nested: { list: [1, 'two', null] } };
        await pool.writeRecord(guest, record);
        await pool.writeRecord(guest, record);
        expect(await pool.readRecords()).toEqual({ records: [record], unreadable: [] });
      });

      it('replaces an older generation and never a newer one', async () => {
        await pool.writeRecord(guest, { generation: 2, name: 'second', only: 'here' });
        await pool.writeRecord(guest, { generation: 3, name: 'third' });
        await pool.writeRecord(guest, { generation: 1, name: 'first' });
        expect((await pool.readRecords()).records).toEqual([{ generation: 3, name: 'third' }]);
      });

      it('keeps the records of guests apart and outlives a second prepareGuest', async () => {
        const other = newGuest();
        await pool.prepareGuest(other, harness.owner);
        await pool.writeRecord(guest, { generation: 1, name: 'one' });
        await pool.writeRecord(other, { generation: 1, name: 'other' });
        await pool.prepareGuest(guest, harness.owner);
        const { records } = await pool.readRecords();
        expect(records).toHaveLength(2);
        expect(records).toEqual(
          expect.arrayContaining([
            { generation: 1, name: 'one' },
            { generation: 1, name: 'other' },
          ]),
        );
      });

      it('is not put off by what a crash left', async () => {
        await harness.leaveHalfMade(volumeOf());
        expect(await pool.readRecords()).toEqual({ records: [], unreadable: [] });
        await pool.writeRecord(guest, { generation: 1 });
        expect((await pool.readRecords()).records).toEqual([{ generation: 1 }]);
      });
    });

    it('knows how much room there is', async () => {
      const { totalBytes, freeBytes } = await pool.usage();
      expect(freeBytes).toBeGreaterThan(0);
      expect(totalBytes).toBeGreaterThanOrEqual(freeBytes);
    });
  });
};
