/** The rules of `OciImages` in `storage/pool.ts`, and those of an image store for what comes of them, held against any two. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ImageId } from '../../protocol/types.ts';
import type { ImageStore, OciImages, OciOrigin, OciRequest } from '../../storage/pool.ts';
import { newImage } from './image-store.ts';
import { work } from './pool.ts';

export interface OciImagesHarness extends AsyncDisposable {
  readonly images: OciImages;
  readonly store: ImageStore;
  /** An image of one layer that can be had; further calls make the same place mean another one. */
  offer(): Promise<OciOrigin>;
  /** A place that has none. */
  readonly nowhere: OciOrigin;
}

export const ociImagesConformance = (name: string, makeHarness: () => Promise<OciImagesHarness>): void => {
  describe(`${name} keeps the contract of OCI images`, () => {
    let harness: OciImagesHarness;
    let images: OciImages;
    let store: ImageStore;
    let id: ImageId;

    beforeEach(async () => {
      harness = await makeHarness();
      ({ images, store } = harness);
      id = newImage();
    });
    afterEach(() => harness[Symbol.asyncDispose]());

    const requestFor = async (from: OciOrigin): Promise<OciRequest> => ({
      from,
      platform: 'linux/amd64',
      directory: await store.workplace(id),
    });

    it('means the same image once it is resolved, whatever the place means later', async () => {
      await images.refuseUnmergeable();
      const request = await requestFor(await harness.offer());
      const facts = await images.resolve(request, work());
      expect(facts).toMatchObject({ platform: 'linux/amd64', layers: 1 });
      expect(facts.digest).toMatch(/^sha256:[0-9a-f]{64}$/);
      await harness.offer();
      expect(await images.resolve(request, work())).toEqual(facts);
      id = newImage();
      const other = await images.resolve(await requestFor(request.from), work());
      expect(other.digest).not.toBe(facts.digest);
    });

    it('does each step again and comes to the same', async () => {
      const request = await requestFor(await harness.offer());
      await images.resolve(request, work());
      await images.fetch(request, work());
      await images.fetch(request, work());
      const disk = await images.merge(request, work());
      expect(disk.format).toBe('raw');
      expect(await images.merge(request, work())).toEqual(disk);
    });

    it('gives what a store takes in, with its facts and its config', async () => {
      const request = await requestFor(await harness.offer());
      const facts = await images.resolve(request, work());
      await images.fetch(request, work());
      const { path, format, layout } = await images.merge(request, work());
      const importing = {
        id,
        kind: 'oci',
        from: { kind: 'file', path },
        format,
        oci: { ...facts, layout },
      } as const;
      const image = await store.import(importing, work());
      expect(image).toMatchObject({ format: 'raw', oci: facts });
      expect(await store.import(importing, work())).toEqual(image);
      expect(await store.stored(id)).toEqual(image);
      await store.check(id, image);
      expect(await store.ociConfig(id)).toMatchObject({ cmd: ['/bin/true'], env: [] });
      await store.remove(id);
      expect(await store.inspect()).toEqual([]);
      await expect(store.ociConfig(id)).rejects.toMatchObject({ class: 'FailedPrecondition' });
    });

    it('says that there is none', async () => {
      const request = await requestFor(harness.nowhere);
      await expect(images.resolve(request, work())).rejects.toMatchObject({ class: 'NotFound' });
      await store.remove(id);
      expect(await store.inspect()).toEqual([]);
    });

    it('ends when it is told to, in every step', async () => {
      const request = await requestFor(await harness.offer());
      const ended = AbortSignal.abort(new Error('enough'));
      await expect(images.resolve(request, work(ended))).rejects.toThrow('enough');
      await images.resolve(request, work());
      await expect(images.fetch(request, work(ended))).rejects.toThrow('enough');
      await images.fetch(request, work());
      await expect(images.merge(request, work(ended))).rejects.toThrow('enough');
      await images.merge(request, work());
    });
  });
};
