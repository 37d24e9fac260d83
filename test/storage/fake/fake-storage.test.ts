import { createHash, randomUUID } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { FakeImageStore } from '../../../storage/fake/fake-image-store.ts';
import { FakeOciImages } from '../../../storage/fake/fake-oci-images.ts';
import { FakePool } from '../../../storage/fake/fake-pool.ts';
import { imageStoreConformance } from '../../conformance/image-store.ts';
import { ociImagesConformance } from '../../conformance/oci-images.ts';
import { newGuest, poolConformance, work } from '../../conformance/pool.ts';
import { rootConformance } from '../../conformance/pool-roots.ts';

const nothing = (): Promise<void> => Promise.resolve();

poolConformance('the pool in memory', () => {
  const pool = new FakePool();
  return Promise.resolve({
    pool,
    owner: undefined,
    makeBase: (sizeBytes) =>
      Promise.resolve({ format: 'qcow2', path: `/nonexistent/${randomUUID()}`, readOnly: true, sizeBytes }),
    lose: (path) => {
      pool.missing.add(path);
      return nothing();
    },
    tellsPristine: false,
    writeInto: nothing,
    fingerprint: (path) => Promise.resolve(path),
    leaveHalfMade: nothing,
    leaveHalfMadeSeed: nothing,
    readSeed: (guest, { path }) => {
      const seed = pool.seedOf(guest);
      const there = seed !== undefined && pool.seedSource(seed).path === path;
      return Promise.resolve(there ? { label: seed.label, files: seed.files } : undefined);
    },
    strays: () => Promise.resolve([]),
    [Symbol.asyncDispose]: nothing,
  });
});

rootConformance('the pool in memory', () => {
  const pool = new FakePool();
  return Promise.resolve({
    pool,
    makeImage: () =>
      Promise.resolve({
        format: 'raw',
        path: `/nonexistent/${randomUUID()}`,
        readOnly: true,
        sizeBytes: 512,
      }),
    lose: (path) => {
      pool.missing.add(path);
      return nothing();
    },
    writeInto: nothing,
    written: () => Promise.resolve(undefined),
    leaveHalf: nothing,
    strays: () => Promise.resolve([]),
    [Symbol.asyncDispose]: nothing,
  });
});

imageStoreConformance('the image store in memory', () => {
  const store = new FakeImageStore();
  return Promise.resolve({
    store,
    makeFile: (sizeBytes) => {
      const path = `/nonexistent/${randomUUID()}`;
      store.offer(path, sizeBytes);
      return Promise.resolve({ path, sha256: createHash('sha256').update(path).digest('hex') });
    },
    serveFile: (sizeBytes) => {
      const url = `https://example.org/${randomUUID()}`;
      store.offer(url, sizeBytes);
      const digestOf = (algorithm: string): string => createHash(algorithm).update(url).digest('hex');
      return Promise.resolve({ url, sha256: digestOf('sha256'), sha512: digestOf('sha512') });
    },
    missingPath: () => '/nonexistent/never-offered',
    exists: () => Promise.resolve(false),
    [Symbol.asyncDispose]: nothing,
  });
});

ociImagesConformance('OCI images in memory', () => {
  const store = new FakeImageStore();
  const images = new FakeOciImages((path) => store.offer(path, 4096));
  const reference = 'registry.example/app:v1';
  let count = 0;
  return Promise.resolve({
    images,
    store,
    offer: () => {
      count += 1;
      images.offer(reference, `sha256:${`${count}`.repeat(64)}`);
      return Promise.resolve({ kind: 'registry', reference } as const);
    },
    nowhere: { kind: 'registry', reference: 'registry.example/none:v1' },
    [Symbol.asyncDispose]: nothing,
  });
});

describe('the pool in memory', () => {
  it('fails where a test wants it to, before the effect, and tells what was asked', async () => {
    const guest = newGuest();
    let broken = true;
    const pool = new FakePool({
      before: (effect) => {
        if (broken && effect === 'createVolume') throw new Error('as wanted');
      },
    });
    const volume = { guest, name: 'disk0', sizeBytes: 512, readOnly: false };
    await pool.prepareGuest(guest, undefined);
    await expect(pool.createVolume(volume, work())).rejects.toThrow('as wanted');
    await expect(pool.lease(volume, work().signal)).rejects.toMatchObject({ class: 'FailedPrecondition' });
    broken = false;
    await pool.createVolume(volume, work());
    expect(pool.calls).toEqual([
      `prepareGuest ${guest}`,
      `createVolume ${guest} disk0`,
      `lease ${guest} disk0`,
      `createVolume ${guest} disk0`,
    ]);
  });
});
