/** Images that are unpacked, for kernels that cannot map the ids of a squashfs. */
import { chmod, chown, link, mkdir, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { launcherPath, splicePath, wardenPath } from '../../../native/index.ts';
import type { ImageId } from '../../../protocol/types.ts';
import { imageStore } from '../../../storage/images/image-store.ts';
import type { ImageStore, StoredImage } from '../../../storage/pool.ts';
import { newImage } from '../../conformance/image-store.ts';
import { work } from '../../conformance/pool.ts';
import { describeWith } from '../../harness/needs.ts';
import { python, tellTree, tool, unsquash } from '../../harness/oci-layout.ts';
import { testDirectory } from '../../harness/test-directory.ts';

interface Setting {
  readonly store: ImageStore;
  readonly id: ImageId;
  readonly image: StoredImage;
  /** Of the image. */
  readonly directory: string;
  readonly place: string;
}

const fillWithAllSorts = async (tree: string): Promise<void> => {
  await mkdir(join(tree, 'sub'), { recursive: true });
  await chmod(tree, 0o751);
  await writeFile(join(tree, 'file'), 'in it');
  await chown(join(tree, 'file'), 1000, 33);
  await chmod(join(tree, 'file'), 0o4750);
  await link(join(tree, 'file'), join(tree, 'sub/same'));
  await symlink('/etc/shadow', join(tree, 'link'));
  await tool(['mknod', join(tree, 'null'), 'c', '1', '3']);
  await tool(['mkfifo', '-m', '600', join(tree, 'pipe')]);
  await writeFile(join(tree, 'able'), '');
  await tool(['setcap', 'cap_net_raw+ep', join(tree, 'able')]);
  await python(tree, "import os, sys; os.setxattr(sys.argv[1] + '/sub', 'user.word', b'said')");
};

/** A store with an image of what `fill` puts into a tree. */
const setUp = async (fill = fillWithAllSorts): Promise<Setting> => {
  const place = await testDirectory('trees');
  const path = join(place, 'images');
  const store = imageStore({
    path,
    launcherPath: launcherPath(),
    splicePath: splicePath(),
    wardenPath: wardenPath(),
  });
  await fill(join(place, 'tree'));
  const file = join(place, 'squashfs');
  await tool(['mksquashfs', join(place, 'tree'), file, '-comp', 'lz4', '-quiet', '-no-progress']);
  const id = newImage();
  const from = { kind: 'file', path: file } as const;
  const image = await store.import({ id, kind: 'root', format: 'raw', from }, work());
  return { store, id, image, directory: join(path, id), place };
};

const small = async (tree: string): Promise<void> => {
  await mkdir(tree);
  await writeFile(join(tree, 'file'), 'in it');
};

/** What lies in an image's directory and comes of its being unpacked. */
const treesIn = async (directory: string): Promise<readonly string[]> =>
  (await readdir(directory)).filter((name) => name.includes('tree'));

describeWith(['root', 'lxc', 'sqfstar'], 'an image that is unpacked', () => {
  it('is there with all that is in it, for root alone, and goes with the image', async () => {
    const { store, id, image, directory, place } = await setUp();
    const told: unknown[] = [];
    const { signal } = work();
    await store.unpack(id, image, { signal, progress: (progress) => told.push(progress) });
    expect(told.length).toBeGreaterThan(0);
    const tree = store.treePath(id);
    expect(await tellTree(tree)).toEqual(
      await tellTree(await unsquash(store.source(id, image).path, join(place, 'unpacked'))),
    );
    expect((await stat(join(directory, 'tree'))).mode & 0o777).toBe(0o700);
    expect(await readdir(join(directory, 'tree'))).toEqual(['root']);
    const [file, same] = await Promise.all(['file', 'sub/same'].map((name) => stat(join(tree, name))));
    expect(file?.ino).toBe(same?.ino);
    await store.unpack(id, image, work());
    await store.remove(id);
    expect(await store.inspect()).toEqual([]);
  });

  it('is unpacked once for all who ask at once', async () => {
    const { store, id, image, directory } = await setUp(small);
    await Promise.all([1, 2, 3].map(() => store.unpack(id, image, work())));
    expect(await readFile(join(store.treePath(id), 'file'), 'utf8')).toBe('in it');
    expect(await treesIn(directory)).toEqual(['tree']);
  });

  it('is not put off by what a crash in the middle has left', async () => {
    const { store, id, image, directory } = await setUp(small);
    const half = join(directory, '.partial-tree/root');
    await mkdir(half, { recursive: true });
    await writeFile(join(half, 'stray'), '');
    await store.unpack(id, image, work());
    expect(await treesIn(directory)).toEqual(['tree']);
    expect(await readdir(store.treePath(id))).toEqual(['file']);
  });

  it('leaves nothing where it cannot be read, or is given up', async () => {
    const { store, id, image, directory } = await setUp(small);
    const { path } = store.source(id, image);
    const good = await readFile(path);
    await rm(path);
    await expect(store.unpack(id, image, work())).rejects.toMatchObject({
      class: 'FailedPrecondition',
      data: { path },
    });
    await writeFile(path, 'no squashfs');
    await expect(store.unpack(id, image, work())).rejects.toMatchObject({ class: 'HostError' });
    await writeFile(path, good);
    const reason = new Error('the test gives up');
    const giveUp = new AbortController();
    const given = { signal: giveUp.signal, progress: () => giveUp.abort(reason) };
    await expect(store.unpack(id, image, given)).rejects.toBe(reason);
    expect(await treesIn(directory)).toEqual([]);
  });

  it('is refused where the daemon may not mount it', async () => {
    const { id, image, place } = await setUp(small);
    const path = join(place, 'images');
    const store = imageStore({ path, launcherPath: launcherPath(), splicePath: splicePath() });
    await expect(store.unpack(id, image, work())).rejects.toMatchObject({ class: 'Unsupported' });
  });
});
