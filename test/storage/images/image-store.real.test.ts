import { execFile } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import {
  chmod,
  mkdir,
  open,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { launcherPath, splicePath } from '../../../native/index.ts';
import type { Identity } from '../../../storage/files/confined-tool.ts';
import { imageStore, MAX_KERNEL_BYTES } from '../../../storage/images/image-store.ts';
import type { ImageImport, ImageStore, StoredImage } from '../../../storage/pool.ts';
import { type ImageStoreHarness, imageStoreConformance, newImage } from '../../conformance/image-store.ts';
import { work } from '../../conformance/pool.ts';
import { ImageServer } from '../../harness/image-server.ts';
import { isRoot, run, scratchDirectory, sha256OfFile } from '../scratch-directory.ts';

const MEBIBYTE = 1024 ** 2;
const IMAGES_GID = 2_000_000_103;
const importer: Identity = { uid: 2_000_000_102, gid: 2_000_000_102 };

type Mode = 'without privileges' | 'with a throw-away identity';
const modes: readonly Mode[] = isRoot
  ? ['without privileges', 'with a throw-away identity']
  : ['without privileges'];

const openStore = (path: string, mode: Mode): ImageStore =>
  imageStore({
    path,
    launcherPath: launcherPath(),
    splicePath: splicePath(),
    retryDelayMs: 1,
    stallSeconds: 1,
    ...(mode === 'without privileges' ? {} : { imagesGid: IMAGES_GID, importer }),
  });

/** Something that is neither empty nor the same in every sector. */
const writeRaw = async (path: string, sizeBytes: number): Promise<void> => {
  await writeFile(path, Buffer.alloc(sizeBytes, 'raw disk '));
};

for (const mode of modes) {
  imageStoreConformance(`the image store on disk ${mode}`, async (): Promise<ImageStoreHarness> => {
    const scratch = await scratchDirectory();
    return {
      store: openStore(join(scratch.path, 'images'), mode),
      makeFile: async (sizeBytes) => {
        const path = join(scratch.path, randomUUID());
        await writeRaw(path, sizeBytes);
        return { path, sha256: await sha256OfFile(path) };
      },
      serveFile: async (sizeBytes) => {
        const content = Buffer.alloc(sizeBytes, 'raw disk ');
        const digestOf = (algorithm: string): string => createHash(algorithm).update(content).digest('hex');
        const server = await ImageServer.start(content);
        return { url: server.url(), sha256: digestOf('sha256'), sha512: digestOf('sha512') };
      },
      missingPath: () => join(scratch.path, 'missing'),
      exists: (path) => Promise.resolve(existsSync(path)),
      [Symbol.asyncDispose]: () => scratch[Symbol.asyncDispose](),
    };
  });
}

interface Setting {
  readonly store: ImageStore;
  readonly scratch: string;
  readonly images: string;
  readonly fileAt: (name: string) => string;
  readonly importFile: (path: string, changes?: Partial<ImageImport>) => Promise<StoredImage>;
  /** Why an import was refused, once it is sure that nothing is left of it. */
  readonly refusalOf: (path: string, changes?: Partial<ImageImport>) => Promise<unknown>;
}

const setUp = async (mode: Mode): Promise<Setting> => {
  const scratch = await scratchDirectory();
  onTestFinished(() => scratch[Symbol.asyncDispose]());
  const images = join(scratch.path, 'images');
  const store = openStore(images, mode);
  const importFile: Setting['importFile'] = (path, changes = {}) =>
    store.import(
      { id: newImage(), kind: 'disk', format: 'qcow2', from: { kind: 'file', path }, ...changes },
      work(),
    );
  return {
    store,
    images,
    scratch: scratch.path,
    fileAt: (name) => join(scratch.path, name),
    importFile,
    refusalOf: async (path, changes) => {
      const outcome: unknown = await importFile(path, changes).catch((error: unknown) => error);
      expect(await readdir(images)).toEqual([]);
      return outcome;
    },
  };
};

const newQcow2 = async (path: string, sizeBytes: number): Promise<void> => {
  await run('qemu-img', 'create', '-q', '-f', 'qcow2', path, `${sizeBytes}`);
  await run('qemu-io', '-f', 'qcow2', '-c', `write -q -P 7 0 ${sizeBytes}`, path);
};

const patch = async (path: string, at: number, bytes: Uint8Array): Promise<void> => {
  await using file = await open(path, 'r+');
  await file.write(bytes, 0, bytes.length, at);
};

const flawed = (flaw: string): object => ({
  class: 'InvalidArgument',
  data: expect.objectContaining({ flaw }) as unknown,
});

describe.each(modes)('a good image, imported %s', (mode) => {
  it('is a fresh qcow2 file with the same content', async () => {
    const { store, fileAt, importFile } = await setUp(mode);
    const id = newImage();
    await newQcow2(fileAt('good.qcow2'), MEBIBYTE);
    const image = await importFile(fileAt('good.qcow2'), { id });
    expect(image).toMatchObject({ format: 'qcow2', virtualSizeBytes: MEBIBYTE });
    expect(image.sha256).toBe(await sha256OfFile(fileAt('good.qcow2')));
    expect(image.sizeBytes).toBeGreaterThanOrEqual(MEBIBYTE);
    const { path } = store.source(id, image);
    const compared = await run(
      'qemu-img',
      'compare',
      '-f',
      'qcow2',
      '-F',
      'qcow2',
      fileAt('good.qcow2'),
      path,
    );
    expect(compared).toMatch(/identical/);
  });

  it('is readable for those who run guests, and writable for nobody', async () => {
    const { store, images, fileAt, importFile } = await setUp(mode);
    const id = newImage();
    await writeRaw(fileAt('disk.raw'), 512);
    const image = await importFile(fileAt('disk.raw'), { id, format: 'raw' });
    const { path } = store.source(id, image);
    const privileged = mode !== 'without privileges';
    const owner = privileged ? { uid: 0, gid: IMAGES_GID } : {};
    expect(await stat(path)).toMatchObject({ mode: privileged ? 0o100440 : 0o100400, ...owner });
    expect(await stat(dirname(path))).toMatchObject({ mode: privileged ? 0o040750 : 0o040700, ...owner });
    expect(await readdir(dirname(path))).toEqual(['image.json', 'image.qcow2']);
    expect(await readdir(images)).toEqual([id]);
    if (!privileged) return;
    const read = (gid: number): Promise<unknown> =>
      promisify(execFile)('cat', [path], { uid: 2_000_000_104, gid, cwd: '/' });
    await expect(read(IMAGES_GID)).resolves.toBeDefined();
    await expect(read(2_000_000_104)).rejects.toThrow(/Permission denied/);
  });

  it('may leak clusters, have snapshots and holes', async () => {
    const { fileAt, importFile } = await setUp(mode);
    await newQcow2(fileAt('snapshot.qcow2'), MEBIBYTE);
    await run('qemu-img', 'snapshot', '-c', 'before', fileAt('snapshot.qcow2'));
    await writeFile(fileAt('hole.raw'), '');
    await truncate(fileAt('hole.raw'), 8 * MEBIBYTE);
    expect(await importFile(fileAt('snapshot.qcow2'))).toMatchObject({ virtualSizeBytes: MEBIBYTE });
    const hole = await importFile(fileAt('hole.raw'), { format: 'raw' });
    expect(hole.virtualSizeBytes).toBe(8 * MEBIBYTE);
    expect(hole.sizeBytes).toBeLessThan(MEBIBYTE);
  });

  it('may be reached by a symbolic link, and be readable only for the daemon', async () => {
    const { fileAt, importFile } = await setUp(mode);
    await writeRaw(fileAt('disk.raw'), 512);
    await chmod(fileAt('disk.raw'), 0o600);
    await symlink(fileAt('disk.raw'), fileAt('link'));
    expect(await importFile(fileAt('link'), { format: 'raw' })).toMatchObject({ virtualSizeBytes: 512 });
  });

  it('may have a path that a tool could misread', async () => {
    const { fileAt, importFile } = await setUp(mode);
    await mkdir(fileAt('json:{"driver":"null-co"}'));
    const path = fileAt('json:{"driver":"null-co"}/-f \\ "x",backing=y\n.raw');
    await writeRaw(path, 512);
    expect(await importFile(path, { format: 'raw' })).toMatchObject({ virtualSizeBytes: 512 });
  });

  it('stays as it was when it is imported again and the file has changed or gone', async () => {
    const { fileAt, importFile } = await setUp(mode);
    const id = newImage();
    await writeRaw(fileAt('disk.raw'), 512);
    const image = await importFile(fileAt('disk.raw'), { id, format: 'raw' });
    await rm(fileAt('disk.raw'));
    expect(await importFile(fileAt('disk.raw'), { id, format: 'raw' })).toEqual(image);
  });

  it('replaces what a crash left', async () => {
    const { store, images, fileAt, importFile } = await setUp(mode);
    const id = newImage();
    await mkdir(join(images, `.importing-${id}`, 'image.qcow2.d'), { recursive: true });
    await writeFile(join(images, `.importing-${id}`, 'image.qcow2'), 'half');
    await mkdir(join(images, id));
    await writeFile(join(images, id, 'image.json'), '{"format": "qc');
    expect(await store.inspect()).toEqual(store.plan(id));
    await writeRaw(fileAt('disk.raw'), 512);
    await importFile(fileAt('disk.raw'), { id, format: 'raw' });
    expect(await readdir(images)).toEqual([id]);
    await mkdir(join(images, `.importing-${id}`));
    await store.remove(id);
    expect(await readdir(images)).toEqual([]);
  });
});

describe.each(modes)('an evil image, imported %s', (mode) => {
  it('cannot show a file of the host as its backing file', async () => {
    const { fileAt, refusalOf } = await setUp(mode);
    await run('qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', '/etc/hostname', fileAt('evil'));
    expect(await refusalOf(fileAt('evil'))).toMatchObject(flawed('backing-file'));
  });

  it('cannot show a file of the host as its data file, nor have it opened', async () => {
    const { fileAt, refusalOf } = await setUp(mode);
    const data = fileAt('data');
    await run('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', `data_file=${data}`, fileAt('evil'), '1M');
    await rm(data);
    await run('mkfifo', data);
    expect(await refusalOf(fileAt('evil'))).toMatchObject(flawed('data-file'));
  });

  it('cannot claim 8 EiB', async () => {
    const { fileAt, refusalOf } = await setUp(mode);
    await newQcow2(fileAt('evil'), MEBIBYTE);
    await patch(fileAt('evil'), 24, Buffer.from('7ffffffffffffe00', 'hex'));
    expect(await refusalOf(fileAt('evil'))).toMatchObject(flawed('too-large'));
  });

  it('cannot be encrypted', async () => {
    const { fileAt, refusalOf } = await setUp(mode);
    const secret = ['--object', 'secret,id=s,data=abc', '-o', 'encrypt.format=aes,encrypt.key-secret=s'];
    await run('qemu-img', 'create', '-q', '-f', 'qcow2', ...secret, fileAt('evil'), '1M');
    expect(await refusalOf(fileAt('evil'))).toMatchObject(flawed('encrypted'));
  });

  it.each([
    ['in its header', 100, 'not-qcow2'],
    ['after its header', 1000, 'damaged'],
    ['in its data', 600_000, 'damaged'],
  ])('cannot be cut off %s', async (_where, length, flaw) => {
    const { fileAt, refusalOf } = await setUp(mode);
    await newQcow2(fileAt('evil'), MEBIBYTE);
    await truncate(fileAt('evil'), length);
    expect(await refusalOf(fileAt('evil'))).toMatchObject(flawed(flaw));
  });

  it('cannot have tables that point beyond its end', async () => {
    const { fileAt, refusalOf } = await setUp(mode);
    await newQcow2(fileAt('evil'), MEBIBYTE);
    await patch(fileAt('evil'), 40, Buffer.from('00000fffffff0000', 'hex'));
    expect(await refusalOf(fileAt('evil'))).toMatchObject(flawed('damaged'));
  });

  it('cannot be of another format than the one named', async () => {
    const { fileAt, refusalOf } = await setUp(mode);
    await writeRaw(fileAt('disk.raw'), 4096);
    await writeFile(fileAt('disk.vmdk'), '# Disk DescriptorFile\nRW 2048 FLAT "/etc/passwd" 0\n');
    expect(await refusalOf(fileAt('disk.raw'))).toMatchObject(flawed('not-qcow2'));
    expect(await refusalOf(fileAt('disk.vmdk'))).toMatchObject(flawed('not-qcow2'));
  });

  it('is plain bytes when it is imported as raw, whatever they look like', async () => {
    const { store, fileAt, importFile } = await setUp(mode);
    const evil = fileAt('evil');
    const id = newImage();
    await run('qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', '/etc/hostname', evil);
    const image = await importFile(evil, { id, format: 'raw' });
    expect(image.virtualSizeBytes).toBe(Math.ceil((await stat(evil)).size / 512) * 512);
    const { path } = store.source(id, image);
    await truncate(evil, image.virtualSizeBytes);
    expect(await run('qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2', evil, path)).toMatch(/identical/);
    expect(await run('qemu-img', 'info', '-f', 'qcow2', path)).not.toMatch(/backing/);
  });

  it('is refused with another digest than the one given, before anything reads it', async () => {
    const { fileAt, refusalOf } = await setUp(mode);
    await run('qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', '/etc/hostname', fileAt('evil'));
    const actual = await sha256OfFile(fileAt('evil'));
    const sha256 = actual.replace(/^./, (digit) => (digit === '0' ? '1' : '0'));
    const wanted = {
      class: 'InvalidArgument',
      data: { path: fileAt('evil'), expected: sha256, actual },
    } as const;
    expect(await refusalOf(fileAt('evil'), { sha256 })).toMatchObject(wanted);
  });
});

describe('a path that leads to no image', () => {
  it.each(['/dev/zero', '/dev/full', '/'])('refuses %s', async (path) => {
    const { images, importFile } = await setUp('without privileges');
    await mkdir(images);
    await expect(importFile(path, { format: 'raw' })).rejects.toMatchObject({
      class: 'InvalidArgument',
      data: { path },
    });
    expect(await readdir(images)).toEqual([]);
  });

  it('refuses a FIFO and a socket without waiting for the other end', async () => {
    const { fileAt, refusalOf } = await setUp('without privileges');
    await run('mkfifo', fileAt('fifo'));
    const server = createServer().listen(fileAt('socket'));
    onTestFinished(() => new Promise<void>((resolve) => void server.close(() => resolve())));
    await new Promise((resolve) => void server.once('listening', resolve));
    expect(await refusalOf(fileAt('fifo'))).toMatchObject({
      class: 'InvalidArgument',
      message: expect.stringMatching(/FIFO/),
    });
    expect(await refusalOf(fileAt('socket'))).toMatchObject({
      class: 'InvalidArgument',
      message: expect.stringMatching(/socket/),
    });
  });

  it('refuses a missing file, a link to nowhere, a relative path and an empty file', async () => {
    const { fileAt, refusalOf } = await setUp('without privileges');
    await symlink(fileAt('nowhere'), fileAt('link'));
    await symlink(fileAt('loop'), fileAt('loop'));
    await writeFile(fileAt('empty'), '');
    expect(await refusalOf(fileAt('missing'))).toMatchObject({
      class: 'NotFound',
      data: { path: fileAt('missing') },
    });
    expect(await refusalOf(fileAt('link'))).toMatchObject({ class: 'NotFound' });
    expect(await refusalOf(fileAt('loop'))).toMatchObject({ class: 'InvalidArgument' });
    expect(await refusalOf('disk.raw')).toMatchObject({ class: 'InvalidArgument' });
    expect(await refusalOf(fileAt('empty'))).toMatchObject({ class: 'InvalidArgument' });
  });

  it('refuses a kernel that is over its limit or not raw', async () => {
    const { fileAt, refusalOf } = await setUp('without privileges');
    await writeFile(fileAt('kernel'), 'x');
    await truncate(fileAt('kernel'), MAX_KERNEL_BYTES + 1);
    expect(await refusalOf(fileAt('kernel'), { kind: 'kernel', format: 'raw' })).toMatchObject({
      class: 'InvalidArgument',
    });
    expect(await refusalOf(fileAt('kernel'), { kind: 'kernel' })).toMatchObject({ class: 'InvalidArgument' });
  });
});

describe('a host that cannot import', () => {
  it.runIf(isRoot)('blames the missing launcher, not the image', async () => {
    const { fileAt, scratch } = await setUp('without privileges');
    const store = imageStore({
      path: join(scratch, 'images'),
      imagesGid: IMAGES_GID,
      launcherPath: fileAt('no-launcher'),
      splicePath: splicePath(),
      importer,
    });
    await newQcow2(fileAt('good.qcow2'), MEBIBYTE);
    const importing = store.import(
      { id: newImage(), kind: 'disk', format: 'qcow2', from: { kind: 'file', path: fileAt('good.qcow2') } },
      work(),
    );
    await expect(importing).rejects.toMatchObject({ class: 'HostError' });
    expect(await store.inspect()).toEqual([]);
  });

  it.runIf(isRoot)('says ResourceExhausted when the image does not fit, and leaves nothing', async () => {
    const { fileAt, images, importFile } = await setUp('with a throw-away identity');
    await mkdir(images, { mode: 0o711 });
    await run('mount', '-t', 'tmpfs', '-o', 'size=3m,mode=711', 'tmpfs', images);
    onTestFinished(async () => void (await run('umount', images)));
    await writeRaw(fileAt('disk.raw'), 2 * MEBIBYTE);
    await expect(importFile(fileAt('disk.raw'), { format: 'raw' })).rejects.toMatchObject({
      class: 'ResourceExhausted',
    });
    expect(await readdir(images)).toEqual([]);
  });
});

describe.runIf(isRoot)('the throw-away identity', () => {
  /** Puts a qemu-img before the real one. `convert` is what it does first when asked to convert; `$out` is the result. */
  const placeQemuImg = async (scratch: string, convert: readonly string[]): Promise<void> => {
    const script = [
      '#!/bin/sh',
      'for out; do :; done',
      `if [ "$1" = convert ]; then ${['true', ...convert].join('; ')}; fi`,
      'exec /usr/bin/qemu-img "$@"',
    ];
    await mkdir(join(scratch, 'bin'), { mode: 0o755 });
    await writeFile(join(scratch, 'bin', 'qemu-img'), script.join('\n'), { mode: 0o755 });
    vi.stubEnv('PATH', `${join(scratch, 'bin')}:${process.env['PATH'] ?? ''}`);
    onTestFinished(() => void vi.unstubAllEnvs());
  };

  it('runs qemu-img with limits and a bare environment, over a copy that it cannot write', async () => {
    const { fileAt, images, scratch, importFile } = await setUp('with a throw-away identity');
    const id = newImage();
    const copy = join(images, `.importing-${id}`, 'source');
    const seen = fileAt('seen');
    await newQcow2(fileAt('good.qcow2'), MEBIBYTE);
    await writeFile(seen, '');
    await chmod(seen, 0o666);
    vi.stubEnv('ROOST_TEST_SECRET', 'not for strangers');
    await placeQemuImg(scratch, [
      `{ id -u; id -G; ulimit -c; ulimit -n; umask; test -r ${copy} && echo readable; env; } >> ${seen}`,
      `test -w ${copy} && echo writable >> ${seen}`,
    ]);
    await importFile(fileAt('good.qcow2'), { id });
    const said = (await readFile(seen, 'utf8')).split('\n');
    const { uid, gid } = importer;
    expect(said.slice(0, 6)).toEqual([`${uid}`, `${gid}`, '0', '256', '0077', 'readable']);
    expect(said).not.toContain('writable');
    expect(said.join('\n')).not.toMatch(/not for strangers/);
  });

  it('cannot make a file of root its result', async () => {
    const { fileAt, scratch, importFile, images } = await setUp('with a throw-away identity');
    await newQcow2(fileAt('victim'), MEBIBYTE);
    const before = await stat(fileAt('victim'));
    await writeRaw(fileAt('disk.raw'), MEBIBYTE);
    await placeQemuImg(scratch, [`ln -s ${fileAt('victim')} "$out"`, 'exit 0']);
    await expect(importFile(fileAt('disk.raw'), { format: 'raw' })).rejects.toMatchObject({
      class: 'HostError',
    });
    expect(await stat(fileAt('victim'))).toMatchObject({
      mode: before.mode,
      uid: before.uid,
      gid: before.gid,
    });
    expect(await readdir(images)).toEqual([]);
  });

  it('cannot make an image that points elsewhere its result', async () => {
    const { fileAt, scratch, importFile, images } = await setUp('with a throw-away identity');
    await writeRaw(fileAt('disk.raw'), MEBIBYTE);
    await placeQemuImg(scratch, [
      '/usr/bin/qemu-img create -q -f qcow2 -F raw -b /etc/hostname "$out" 1M',
      'exit 0',
    ]);
    await expect(importFile(fileAt('disk.raw'), { format: 'raw' })).rejects.toMatchObject(
      flawed('backing-file'),
    );
    expect(await readdir(images)).toEqual([]);
  });

  it('is ended when the import is aborted while it runs', async () => {
    const { fileAt, scratch, store, images } = await setUp('with a throw-away identity');
    await writeRaw(fileAt('disk.raw'), MEBIBYTE);
    await placeQemuImg(scratch, ['printf "    (50.00/100%%)\\r"', 'exec cat /dev/zero > /dev/null']);
    const controller = new AbortController();
    const reason = new Error('given up');
    const importing = store.import(
      { id: newImage(), kind: 'disk', format: 'raw', from: { kind: 'file', path: fileAt('disk.raw') } },
      {
        signal: controller.signal,
        progress: ({ done }) => {
          if (done === MEBIBYTE / 2) controller.abort(reason);
        },
      },
    );
    await expect(importing).rejects.toBe(reason);
    expect(await readdir(images)).toEqual([]);
  });
});
