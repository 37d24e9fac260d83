/** The rules of `storage/pool.ts` for roots of containers, held against any pool. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { BlockSource } from '../../protocol/block-source.ts';
import { hostObjectKey } from '../../protocol/host-object.ts';
import type { RootSource } from '../../protocol/root-source.ts';
import type { GuestId } from '../../protocol/types.ts';
import type { Pool, RootSpec } from '../../storage/pool.ts';
import { newGuest, work } from './pool.ts';

export interface RootHarness extends AsyncDisposable {
  readonly pool: Pool;
  /** A new image with something in it. */
  makeImage(): Promise<BlockSource>;
  /** Makes an image, or a root by its directory, be gone. */
  lose(path: string): Promise<void>;
  /** Writes something, as the guest would. */
  writeInto(source: RootSource, name: string): Promise<void>;
  /** Names of what was written so, sorted; undefined where it cannot be told. */
  written(source: RootSource): Promise<readonly string[] | undefined>;
  /** Leaves what a crash in the middle of making, or of removing, this guest's root would leave. */
  leaveHalf(guest: GuestId, done: 'made' | 'removed'): Promise<void>;
  /** What lies in the place of a guest and is neither a finished root nor a record. */
  strays(guest: GuestId): Promise<readonly string[]>;
}

export const rootConformance = (name: string, makeHarness: () => Promise<RootHarness>): void => {
  describe(`${name} keeps the contract of a pool for roots`, () => {
    let harness: RootHarness;
    let pool: Pool;
    let image: BlockSource;
    let guest: GuestId;

    beforeEach(async () => {
      harness = await makeHarness();
      pool = harness.pool;
      image = await harness.makeImage();
      guest = newGuest();
    });
    afterEach(() => harness[Symbol.asyncDispose]());

    const prepare = async (changes: Partial<RootSpec> = {}): Promise<RootSpec> => {
      const root = { guest, image, ...changes };
      await pool.prepareGuest(root.guest, undefined);
      await pool.prepareRoot(root, work());
      return root;
    };
    const lease = (root: RootSpec): Promise<RootSource> => pool.leaseRoot(root, work().signal);
    const inspected = async (): Promise<readonly string[]> => (await pool.inspect()).map(hostObjectKey);
    const nowhere = { class: 'FailedPrecondition' };

    it('gives what it says, once it is made', async () => {
      await pool.prepareGuest(guest, undefined);
      await expect(lease({ guest, image })).rejects.toMatchObject(nowhere);
      const root = await prepare();
      expect(await lease(root)).toEqual(pool.rootSource(root));
      expect(pool.rootSource(root).image).toEqual(image);
    });

    it('is among the objects of its guest, and no other', async () => {
      await prepare();
      expect(await inspected()).toEqual(pool.plan(guest, []).map(hostObjectKey));
    });

    it('keeps what was written when it is made again', async () => {
      const root = await prepare();
      const source = await lease(root);
      const before = await harness.written(source);
      await harness.writeInto(source, 'one');
      await prepare();
      expect(await harness.written(source)).toEqual(before && ['one']);
    });

    it('keeps the roots of guests apart', async () => {
      const other = await prepare({ guest: newGuest() });
      const root = await prepare();
      expect((await lease(root)).directory).not.toBe((await lease(other)).directory);
      await pool.removeRoot(guest);
      expect(await lease(other)).toEqual(pool.rootSource(other));
    });

    it('is not put off by what a crash left', async () => {
      await pool.prepareGuest(guest, undefined);
      for (const done of ['made', 'removed'] as const) {
        await harness.leaveHalf(guest, done);
        await expect(lease({ guest, image })).rejects.toMatchObject(nowhere);
      }
      const root = await prepare();
      await lease(root);
      await harness.leaveHalf(guest, 'removed');
      await pool.removeRoot(guest);
      expect(await harness.strays(guest)).toEqual([]);
    });

    it('is removed, again and again, and is a new one when it is made anew', async () => {
      const root = await prepare();
      const source = await lease(root);
      const before = await harness.written(source);
      await harness.writeInto(source, 'one');
      await pool.removeRoot(guest);
      await pool.removeRoot(guest);
      await pool.removeRoot(newGuest());
      await expect(lease(root)).rejects.toMatchObject(nowhere);
      expect(await harness.strays(guest)).toEqual([]);
      await prepare();
      expect(await harness.written(await lease(root))).toEqual(before && []);
    });

    it('goes with its guest', async () => {
      const root = await prepare();
      await harness.writeInto(await lease(root), 'one');
      await pool.removeGuest(guest);
      expect(await inspected()).toEqual([]);
      await expect(lease(root)).rejects.toMatchObject(nowhere);
    });

    it('needs its image, and says so before it makes anything', async () => {
      const root = await prepare();
      await harness.lose(image.path);
      const needy = { guest: newGuest(), image };
      await pool.prepareGuest(needy.guest, undefined);
      for (const refused of [lease(root), pool.prepareRoot(needy, work())])
        await expect(refused).rejects.toMatchObject({ ...nowhere, data: { path: image.path } });
      expect(await harness.strays(needy.guest)).toEqual([]);
    });

    it('is missed where it was lost', async () => {
      const root = await prepare();
      const { directory } = pool.rootSource(root);
      await harness.lose(directory);
      await expect(lease(root)).rejects.toMatchObject({ ...nowhere, data: { path: directory } });
    });

    it('does nothing once it is cancelled', async () => {
      const reason = new Error('the test cancels');
      await pool.prepareGuest(guest, undefined);
      const cancelled = work(AbortSignal.abort(reason));
      await expect(pool.prepareRoot({ guest, image }, cancelled)).rejects.toBe(reason);
      await expect(lease({ guest, image })).rejects.toMatchObject(nowhere);
      expect(await harness.strays(guest)).toEqual([]);
    });

    describe('a copy', () => {
      const clone = async (changes: Partial<RootSpec> = {}): Promise<RootSpec> => {
        const root = { guest: newGuest(), image, ...changes };
        await pool.prepareGuest(root.guest, undefined);
        await pool.cloneRoot(guest, root, work());
        return root;
      };

      it('has what was written, and lives its own life from then on', async () => {
        const first = await prepare();
        const before = await harness.written(await lease(first));
        await harness.writeInto(await lease(first), 'one');
        const copy = await clone();
        await harness.writeInto(await lease(copy), 'two');
        expect(await harness.written(await lease(copy))).toEqual(before && ['one', 'two']);
        expect(await harness.written(await lease(first))).toEqual(before && ['one']);
      });

      it('is not made again, over what a guest has written since', async () => {
        const first = await prepare();
        const before = await harness.written(await lease(first));
        const copy = await clone();
        await harness.writeInto(await lease(copy), 'mine');
        await harness.writeInto(await lease(first), 'later');
        await clone(copy);
        expect(await harness.written(await lease(copy))).toEqual(before && ['mine']);
      });

      it('needs a root to be made of', async () => {
        await pool.prepareGuest(guest, undefined);
        const refused = clone();
        await expect(refused).rejects.toMatchObject(nowhere);
      });

      it('is made anew after a crash in the middle', async () => {
        const first = await prepare();
        const before = await harness.written(await lease(first));
        await harness.writeInto(await lease(first), 'one');
        const copy = { guest: newGuest(), image };
        await pool.prepareGuest(copy.guest, undefined);
        await harness.leaveHalf(copy.guest, 'made');
        await clone(copy);
        expect(await harness.written(await lease(copy))).toEqual(before && ['one']);
        expect(await harness.strays(copy.guest)).toEqual([]);
      });
    });
  });
};
