/** Evil and good images of every format, with the real qemu-img, through the real store. */
import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { launcherPath, splicePath } from '../../../native/index.ts';
import { imageStore } from '../../../storage/images/image-store.ts';
import type { ImageStore } from '../../../storage/pool.ts';
import { newImage } from '../../conformance/image-store.ts';
import { work } from '../../conformance/pool.ts';
import { evilImages } from '../../guests/evil-images.ts';
import { isRoot, run, scratchDirectory } from '../scratch-directory.ts';

const MEBIBYTE = 1024 ** 2;

const setUp = async (): Promise<{ store: ImageStore; images: string; fileAt: (name: string) => string }> => {
  const scratch = await scratchDirectory();
  onTestFinished(() => scratch[Symbol.asyncDispose]());
  const images = join(scratch.path, 'images');
  const importer = { uid: 2_000_000_102, gid: 2_000_000_102 };
  const store = imageStore({
    path: images,
    launcherPath: launcherPath(),
    splicePath: splicePath(),
    ...(isRoot ? { importer, imagesGid: 2_000_000_103 } : {}),
  });
  return { store, images, fileAt: (name) => join(scratch.path, name) };
};

describe('a good image', () => {
  it.each([
    ['vmdk', 'monolithicSparse'],
    ['vmdk', 'streamOptimized'],
    ['vhdx', 'dynamic'],
    ['vhdx', 'fixed'],
  ] as const)('of %s (%s) becomes a fresh qcow2 file with the same content', async (format, subformat) => {
    const { store, fileAt } = await setUp();
    const [raw, path] = [fileAt('raw'), fileAt(`disk.${format}`)];
    await run('qemu-img', 'create', '-q', '-f', 'raw', raw, '3M');
    await run('qemu-io', '-f', 'raw', '-c', 'write -q -P 7 1M 1M', raw);
    await run('qemu-img', 'convert', '-f', 'raw', '-O', format, '-o', `subformat=${subformat}`, raw, path);
    const id = newImage();
    const image = await store.import({ id, kind: 'disk', format, from: { kind: 'file', path } }, work());
    expect(image).toMatchObject({ format: 'qcow2', virtualSizeBytes: 3 * MEBIBYTE });
    const result = store.source(id, image).path;
    expect(await run('qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2', raw, result)).toMatch(/identical/);
  });
});

describe('an evil image', () => {
  it.each(evilImages)('$what is refused, and nothing is kept', async ({ format, flaw, make }) => {
    const { store, images, fileAt } = await setUp();
    const path = fileAt('evil');
    await make(path);
    const importing = store.import(
      { id: newImage(), kind: 'disk', format, from: { kind: 'file', path } },
      work(),
    );
    await expect(importing).rejects.toMatchObject({ class: 'InvalidArgument', data: { flaw } });
    expect(await readdir(images)).toEqual([]);
  });

  it.runIf(isRoot)('that is small and would fill the host is given up, and nothing is kept', async () => {
    const { store, images, fileAt } = await setUp();
    const [full, path] = [fileAt('full'), fileAt('bomb.qcow2')];
    await run('qemu-img', 'create', '-q', '-f', 'qcow2', full, '96M');
    await run('qemu-io', '-f', 'qcow2', '-c', 'write -q -P 65 0 96M', full);
    await run('qemu-img', 'convert', '-c', '-f', 'qcow2', '-O', 'qcow2', full, path);
    await mkdir(images, { mode: 0o711 });
    await run('mount', '-t', 'tmpfs', '-o', 'size=24m,mode=711', 'tmpfs', images);
    onTestFinished(async () => void (await run('umount', images)));
    const request = { id: newImage(), kind: 'disk', format: 'qcow2', from: { kind: 'file', path } } as const;
    await expect(store.import(request, work())).rejects.toMatchObject({ class: 'ResourceExhausted' });
    expect(await readdir(images)).toEqual([]);
  });
});
