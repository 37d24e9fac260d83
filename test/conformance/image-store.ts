/** The rules of `ImageStore` in `storage/pool.ts`, held against any image store. */
import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Progress } from '../../lib/work.ts';
import { hostObjectKey } from '../../protocol/host-object.ts';
import { type ImageId, imageId } from '../../protocol/types.ts';
import type { ImageImport, ImageStore } from '../../storage/pool.ts';

export interface ImageStoreHarness extends AsyncDisposable {
  readonly store: ImageStore;
  /** Path of a new raw file with something in it; `sha256` is its digest. */
  makeFile(sizeBytes: number): Promise<{ readonly path: string; readonly sha256: string }>;
  missingPath(): string;
  /** URL of such a file, with both digests. */
  serveFile(
    sizeBytes: number,
  ): Promise<{ readonly url: string; readonly sha256: string; readonly sha512: string }>;
  /** Whether a path that the store gave is there. */
  exists(path: string): Promise<boolean>;
}

export const newImage = (): ImageId => imageId.parse(randomUUID());

export const imageStoreConformance = (name: string, makeHarness: () => Promise<ImageStoreHarness>): void => {
  describe(`${name} keeps the contract of an image store`, () => {
    let harness: ImageStoreHarness;
    let store: ImageStore;
    let id: ImageId;
    let heard: Progress[];
    const signal = new AbortController().signal;

    beforeEach(async () => {
      harness = await makeHarness();
      store = harness.store;
      id = newImage();
      heard = [];
    });
    afterEach(() => harness[Symbol.asyncDispose]());

    const work = { signal, progress: (progress: Progress): void => void heard.push(progress) };
    const requestFor = (path: string, changes: Partial<ImageImport> = {}): ImageImport => ({
      id,
      kind: 'disk',
      format: 'raw',
      from: { kind: 'file', path },
      ...changes,
    });
    const inspected = async (): Promise<readonly string[]> => (await store.inspect()).map(hostObjectKey);

    it('makes nothing by planning, and exactly the planned by importing', async () => {
      const { path } = await harness.makeFile(1024);
      const planned = store.plan(id).map(hostObjectKey);
      expect(await inspected()).toEqual([]);
      await store.import(requestFor(path), work);
      expect(await inspected()).toEqual(planned);
    });

    it('says what was imported, and the same when done again', async () => {
      const { path, sha256 } = await harness.makeFile(1024);
      const image = await store.import(requestFor(path, { sha256 }), work);
      expect(image).toMatchObject({ format: 'qcow2', virtualSizeBytes: 1024, sha256 });
      expect(await store.import(requestFor(path, { sha256 }), work)).toEqual(image);
      expect(await inspected()).toHaveLength(1);
    });

    it('rounds a disk up to whole sectors', async () => {
      const { path } = await harness.makeFile(700);
      expect(await store.import(requestFor(path), work)).toMatchObject({ virtualSizeBytes: 1024 });
    });

    it.each(['kernel', 'initrd'] as const)('keeps a %s as it is', async (kind) => {
      const { path } = await harness.makeFile(1024);
      const image = await store.import(requestFor(path, { kind }), work);
      expect(image).toMatchObject({ format: 'raw', virtualSizeBytes: 1024 });
      expect(store.source(id, image)).toMatchObject({ format: 'raw', readOnly: true, sizeBytes: 1024 });
    });

    it('tells how far it is', async () => {
      const { path } = await harness.makeFile(1024);
      await store.import(requestFor(path), work);
      expect(heard.length).toBeGreaterThan(0);
      expect(heard.at(-1)).toMatchObject({ done: 1024, total: 1024, unit: 'bytes' });
      for (const { done, total } of heard) expect(done).toBeLessThanOrEqual(total ?? Infinity);
    });

    it('gives sources apart for images apart, each read-only', () => {
      const facts = { format: 'qcow2', virtualSizeBytes: 4096 } as const;
      expect(store.source(id, facts)).toMatchObject({ format: 'qcow2', readOnly: true, sizeBytes: 4096 });
      expect(store.source(id, facts).path).not.toBe(store.source(newImage(), facts).path);
    });

    it('refuses a file that is not there', async () => {
      const importing = store.import(requestFor(harness.missingPath()), work);
      await expect(importing).rejects.toMatchObject({ class: 'NotFound' });
      expect(await inspected()).toEqual([]);
    });

    it('refuses another digest', async () => {
      const { path } = await harness.makeFile(1024);
      const importing = store.import(requestFor(path, { sha256: '0'.repeat(64) }), work);
      await expect(importing).rejects.toMatchObject({ class: 'InvalidArgument' });
      expect(await inspected()).toEqual([]);
    });

    it('takes in what it downloaded, told of by two digests', async () => {
      const { url, sha256, sha512 } = await harness.serveFile(1024);
      const request = requestFor('', { from: { kind: 'url', url, shownAs: 'shown' }, sha256, sha512 });
      await store.download(request, work);
      expect(await inspected()).toEqual(store.plan(id).map(hostObjectKey));
      await store.download(request, work);
      const image = await store.import(request, work);
      expect(image).toMatchObject({ format: 'qcow2', virtualSizeBytes: 1024, sha256 });
      await store.download(request, work);
      expect(await store.import(request, work)).toEqual(image);
      expect(await inspected()).toEqual(store.plan(id).map(hostObjectKey));
    });

    it('refuses another digest of a download, and removes what came', async () => {
      const { url } = await harness.serveFile(1024);
      const from = { kind: 'url', url, shownAs: 'shown' } as const;
      const importing = store.import(requestFor('', { from, sha512: '0'.repeat(128) }), work);
      await expect(importing).rejects.toMatchObject({ class: 'InvalidArgument' });
      await store.remove(id);
      expect(await inspected()).toEqual([]);
    });

    it('leaves nothing when it is aborted at any report of progress', async () => {
      const { path } = await harness.makeFile(1024);
      await store.import(requestFor(path), work);
      await store.remove(id);
      for (const [step] of heard.entries()) {
        const controller = new AbortController();
        const reason = new Error(`given up at report ${step}`);
        let reports = 0;
        const progress = (): void => {
          if (reports === step) controller.abort(reason);
          reports += 1;
        };
        const importing = store.import(requestFor(path), { signal: controller.signal, progress });
        await expect(importing).rejects.toBe(reason);
        expect(await inspected()).toEqual([]);
      }
    });

    it('has a workplace that is planned, stays until the image is complete, and goes with what is removed', async () => {
      const { path } = await harness.makeFile(1024);
      const workplace = await store.workplace(id);
      expect(await store.workplace(id)).toBe(workplace);
      expect(await inspected()).toEqual(store.plan(id).map(hostObjectKey));
      await store.remove(id);
      expect(await inspected()).toEqual([]);
      await store.workplace(id);
      await store.import(requestFor(path), work);
      expect(await inspected()).toEqual(store.plan(id).map(hostObjectKey));
      expect(await harness.exists(workplace)).toBe(false);
    });

    it('says whether the file of an image is there', async () => {
      const { path } = await harness.makeFile(1024);
      const stored = await store.import(requestFor(path), work);
      await store.check(id, stored);
      await store.remove(id);
      await expect(store.check(id, stored)).rejects.toMatchObject({
        class: 'FailedPrecondition',
        data: { path: store.source(id, stored).path },
      });
    });

    it('keeps the record of a complete image as last written, and removes it with the image', async () => {
      const { path } = await harness.makeFile(1024);
      const record = { id, name: 'one', aliases: [] };
      await store.writeRecord(id, record);
      expect(await store.stored(id)).toBeUndefined();
      const stored = await store.import(requestFor(path), work);
      expect(await store.readRecords()).toEqual({ records: [], unreadable: [] });
      expect(await store.stored(id)).toEqual(stored);
      await store.writeRecord(id, { ...record, name: 'before' });
      await store.writeRecord(id, record);
      expect(await store.readRecords()).toEqual({ records: [record], unreadable: [] });
      expect(await inspected()).toEqual(store.plan(id).map(hostObjectKey));
      await store.remove(id);
      expect(await store.readRecords()).toEqual({ records: [], unreadable: [] });
      expect(await store.stored(id)).toBeUndefined();
    });

    it('removes an image, also twice, and no other', async () => {
      const { path } = await harness.makeFile(1024);
      const other = newImage();
      await store.import(requestFor(path), work);
      await store.import(requestFor(path, { id: other }), work);
      await store.remove(id);
      await store.remove(id);
      expect(await inspected()).toEqual(store.plan(other).map(hostObjectKey));
    });
  });
};
