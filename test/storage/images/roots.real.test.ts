/** Root file systems of containers, from archives that may be anybody's. */
import { chmod, chown, link, mkdir, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { launcherPath, splicePath } from '../../../native/index.ts';
import { imageStore } from '../../../storage/images/image-store.ts';
import { type MergeLimits, mergeLimits } from '../../../storage/oci/tree/merge.ts';
import type { ImageImport, ImageStore, StoredImage } from '../../../storage/pool.ts';
import { newImage } from '../../conformance/image-store.ts';
import { work } from '../../conformance/pool.ts';
import { busyboxRoot, makeBusyboxTree } from '../../harness/busybox-root.ts';
import { ImageServer } from '../../harness/image-server.ts';
import { describeWith } from '../../harness/needs.ts';
import { archiveOf, python, type ToldTree, tellTree, tool, unsquash } from '../../harness/oci-layout.ts';
import { testDirectory } from '../../harness/test-directory.ts';
import { isRoot, sha256OfFile } from '../scratch-directory.ts';

const IMPORTER = { uid: 2_000_000_102, gid: 2_000_000_102 };
const IMAGES_GID = 2_000_000_103;

type Mode = 'without privileges' | 'with a throw-away identity';
const modes: readonly Mode[] = isRoot
  ? ['without privileges', 'with a throw-away identity']
  : ['without privileges'];

interface Setting {
  readonly store: ImageStore;
  readonly place: string;
  readonly images: string;
  readonly importRoot: (path: string, changes?: Partial<ImageImport>) => Promise<StoredImage>;
  /** What is in the image, attribute by attribute. */
  readonly treeOf: (path: string, changes?: Partial<ImageImport>) => Promise<ToldTree>;
  /** Why an import was refused, once it is sure that nothing is left of it. */
  readonly refusalOf: (path: string) => Promise<unknown>;
}

const setUp = async (
  mode: Mode = modes.at(-1) ?? 'without privileges',
  limits: MergeLimits = mergeLimits,
): Promise<Setting> => {
  const place = await testDirectory('roots');
  const images = join(place, 'images');
  const store = imageStore({
    path: images,
    launcherPath: launcherPath(),
    splicePath: splicePath(),
    limits,
    ...(mode === 'without privileges' ? {} : { imagesGid: IMAGES_GID, importer: IMPORTER }),
  });
  const importRoot: Setting['importRoot'] = (path, changes = {}) =>
    store.import(
      { id: newImage(), kind: 'root', format: 'tar', from: { kind: 'file', path }, ...changes },
      work(),
    );
  return {
    store,
    place,
    images,
    importRoot,
    treeOf: async (path, changes) => {
      const id = newImage();
      const source = store.source(id, await importRoot(path, { id, ...changes }));
      return await tellTree(await unsquash(source.path, join(place, `tree-${id}`)));
    },
    refusalOf: async (path) => {
      const outcome: unknown = await importRoot(path).catch((error: unknown) => error);
      expect(await readdir(images)).toEqual([]);
      return outcome;
    },
  };
};

const flawed = (flaw: string): object => ({
  class: 'InvalidArgument',
  data: expect.objectContaining({ flaw }) as unknown,
});

/** Makes an archive in Python, member by member; it finds `member(name, **attributes)`. */
const craft = async (path: string, program: string): Promise<string> => {
  await python(
    path,
    `import tarfile,io
t=tarfile.open(sys.argv[1],'w',format=tarfile.PAX_FORMAT)
def member(name, data=b'', **attributes):
    m=tarfile.TarInfo(name); m.size=len(data)
    for k,v in attributes.items(): setattr(m,k,v)
    t.addfile(m, io.BytesIO(data))
member('./etc', type=tarfile.DIRTYPE, mode=0o755)
${program}
t.close()`,
  );
  return path;
};

describe.each(modes)('the archive of a root, imported %s', (mode) => {
  it.each(['none', 'gzip', 'xz', 'zstd'] as const)(
    'packed by %s becomes a squashfs of it',
    async (packing) => {
      const { store, place, importRoot } = await setUp(mode);
      const archive = await busyboxRoot(place, packing);
      const id = newImage();
      const image = await importRoot(archive, { id });
      const source = store.source(id, image);
      expect(source).toMatchObject({ format: 'raw', readOnly: true });
      expect(image).toMatchObject({ sha256: await sha256OfFile(archive) });
      expect(image.virtualSizeBytes).toBe((await stat(source.path)).size);
      expect(image.virtualSizeBytes).toBeLessThan(4 * 1024 ** 2);
      const told = await tellTree(await unsquash(source.path, join(place, 'tree')));
      const { '': _, ...made } = await tellTree(join(place, 'busybox'));
      expect(Object.keys(told)).toEqual(['', ...Object.keys(made)]);
      expect(told['sbin/init']).toMatchObject({ mode: '0o100755', uid: 0, gid: 0 });
      expect(told['tmp']).toMatchObject({ mode: '0o41777' });
      expect((await readdir(join(place, 'images', id))).sort()).toEqual(['image.json', 'image.raw']);
    },
  );

  it('is the same image whenever it is imported', async () => {
    const { store, place, importRoot } = await setUp(mode);
    const archive = await busyboxRoot(place);
    const [one, other] = [newImage(), newImage()];
    const paths = [
      store.source(one, await importRoot(archive, { id: one })).path,
      store.source(other, await importRoot(archive, { id: other })).path,
    ];
    const [first = '', second = ''] = await Promise.all(paths.map(sha256OfFile));
    expect(first).toBe(second);
  });

  it('is held against its digest before it is looked into', async () => {
    const { place, images, importRoot } = await setUp(mode);
    const junk = join(place, 'junk');
    await writeFile(junk, 'no archive');
    await expect(importRoot(junk, { sha256: '0'.repeat(64) })).rejects.toMatchObject({
      class: 'InvalidArgument',
      message: expect.stringContaining('SHA-256') as unknown,
    });
    expect(await readdir(images)).toEqual([]);
  });

  it('comes from a URL as well', async () => {
    const { store, place } = await setUp(mode);
    const server = await ImageServer.start(await readFile(await busyboxRoot(place, 'gzip')));
    const url = server.url();
    const request: ImageImport = {
      id: newImage(),
      kind: 'root',
      format: 'tar',
      from: { kind: 'url', url, shownAs: url },
    };
    await store.download(request, work());
    const image = await store.import(request, work());
    const { path } = store.source(request.id, image);
    expect(await tellTree(await unsquash(path, join(place, 'tree')))).toHaveProperty('bin/busybox');
  });

  it('is done again after a crash in the middle', async () => {
    const { place, images, importRoot } = await setUp(mode);
    const archive = await busyboxRoot(place, 'gzip');
    const id = newImage();
    const half = join(images, `.importing-${id}`, 'image.raw.d');
    await mkdir(half, { recursive: true });
    await writeFile(join(half, '0.tar'), 'half');
    await importRoot(archive, { id });
    expect(await readdir(images)).toEqual([id]);
  });

  it('ends where it is cancelled, with nothing left', async () => {
    const { store, place, images } = await setUp(mode);
    const archive = await busyboxRoot(place, 'gzip');
    const stop = new AbortController();
    const reason = new Error('the test cancels');
    const importing = store.import(
      { id: newImage(), kind: 'root', format: 'tar', from: { kind: 'file', path: archive } },
      { signal: stop.signal, progress: ({ message }) => message === 'Packing' && stop.abort(reason) },
    );
    await expect(importing).rejects.toBe(reason);
    expect(await readdir(images)).toEqual([]);
  });
});

describe('what is in an image', () => {
  it('is called as in the archive, whatever a layer would mean by the name', async () => {
    const { place, treeOf } = await setUp();
    const root = join(place, 'root');
    await mkdir(join(root, 'usr'), { recursive: true });
    await writeFile(join(root, 'usr', '.wh.file'), '');
    await writeFile(join(root, 'usr', '.wh..wh..opq'), '');
    await writeFile(join(root, 'usr', 'file'), '');
    const told = await treeOf(await archiveOf(root, join(place, 'a.tar')));
    expect(Object.keys(told)).toEqual(['', 'usr', 'usr/.wh..wh..opq', 'usr/.wh.file', 'usr/file']);
  });

  it('is neither a device nor a word of overlayfs', async () => {
    const { place, treeOf } = await setUp();
    const archive = await craft(
      join(place, 'a.tar'),
      `member('etc/whiteout', type=tarfile.CHRTYPE, devmajor=0, devminor=0)
member('etc/disk', type=tarfile.BLKTYPE, devmajor=8, devminor=0, mode=0o666)
member('etc/same-disk', type=tarfile.LNKTYPE, linkname='etc/disk')
member('etc/pipe', type=tarfile.FIFOTYPE)
x={'SCHILY.xattr.trusted.overlay.redirect': '/elsewhere', 'SCHILY.xattr.user.kept': 'yes'}
member('etc/file', b'text', pax_headers=x)`,
    );
    const told = await treeOf(archive);
    expect(Object.keys(told)).toEqual(['', 'etc', 'etc/file', 'etc/pipe']);
    expect(told['etc/file']?.['xattrs']).toEqual({ 'user.kept': Buffer.from('yes').toString('hex') });
  });
});

describeWith(['root'], 'what is in an image', () => {
  it('has the owners, bits, attributes and links of the archive', async () => {
    const { place, treeOf } = await setUp();
    const root = join(place, 'root');
    await makeBusyboxTree(root);
    await mkdir(join(root, 'srv', 'deep'), { recursive: true });
    await writeFile(join(root, 'srv', 'program'), 'x');
    await chown(join(root, 'srv', 'program'), 1000, 33);
    await chmod(join(root, 'srv', 'program'), 0o6750);
    await link(join(root, 'srv', 'program'), join(root, 'srv', 'deep', 'again'));
    await symlink('/etc/shadow', join(root, 'srv', 'out'));
    await tool(['truncate', '--size=8M', join(root, 'srv', 'sparse')]);
    await python(
      root,
      `os.setxattr(root+b'/srv/program','user.colour',b'red')
os.setxattr(root+b'/srv/program','security.capability',bytes.fromhex('0100000200200000000000000000000000000000'))
os.chown(root+b'/srv/deep',65534,65535)`,
    );
    const { '': top, ...told } = await treeOf(await archiveOf(root, join(place, 'a.tar')));
    const { '': madeTop, ...made } = await tellTree(root);
    expect(told).toEqual(made);
    expect(top).toMatchObject({ mode: madeTop?.['mode'], uid: 0, gid: 0 });
    expect(Object.keys(told['srv/program']?.['xattrs'] ?? {}).sort()).toEqual([
      'security.capability',
      'user.colour',
    ]);
  });
});

describe('refused with nothing left', () => {
  it.each([
    ['an absolute path', `member('/etc/cron.d/mine', b'evil')`, 'absolute-path'],
    ['a path out of the root', `member('etc/../../../mine', b'evil')`, 'path-outside'],
    [
      'a hard link to a file of the host',
      `member('etc/mine', type=tarfile.LNKTYPE, linkname='../../etc/shadow')`,
      'path-outside',
    ],
    [
      'a hard link to nothing',
      `member('etc/mine', type=tarfile.LNKTYPE, linkname='etc/nothing')`,
      'hard-link',
    ],
    [
      'links without end',
      `member('a', type=tarfile.SYMTYPE, linkname='b'); member('b', type=tarfile.SYMTYPE, linkname='a')
member('a/file', b'evil')`,
      'link-loop',
    ],
    ['a file below a file', `member('etc/a'); member('etc/a/b', b'evil')`, 'no-directory'],
    ['an owner whom no container has', `member('etc/file', b'', uid=100000)`, 'owner'],
  ])('%s', async (_, program, flaw) => {
    const { place, refusalOf } = await setUp();
    const archive = await craft(join(place, 'a.tar'), program);
    const refusal = await refusalOf(archive);
    expect(refusal).toMatchObject(flawed(flaw));
    expect(String(refusal)).toContain(archive);
  });

  it('a file that a link of the archive would lead out of the root', async () => {
    const { place, treeOf } = await setUp();
    const outside = join(place, 'outside');
    await mkdir(outside);
    const told = await treeOf(
      await craft(
        join(place, 'a.tar'),
        `member('etc/out', type=tarfile.SYMTYPE, linkname=${JSON.stringify(outside)})
member('etc/out/mine', b'evil')`,
      ),
    );
    expect(await readdir(outside)).toEqual([]);
    expect(told).toHaveProperty([`${outside.slice(1)}/mine`]);
  });

  it.each<[string, (path: string) => Promise<unknown>, string]>([
    ['a disk', (path) => tool(['qemu-img', 'create', '-q', '-f', 'qcow2', path, '1M']), 'kind disk'],
    ['a text', (path) => writeFile(path, 'FROM debian\n'.repeat(100)), 'tar archive'],
    ['zeros', (path) => writeFile(path, Buffer.alloc(10_240)), 'tar archive'],
  ])('%s, which is no archive', async (_, make, advice) => {
    const { place, refusalOf } = await setUp();
    await make(join(place, 'file'));
    expect(await refusalOf(join(place, 'file'))).toMatchObject({
      ...flawed('not-tar'),
      hint: expect.stringContaining(advice) as unknown,
    });
  });

  it('what docker save wrote, and a root that is not at the top', async () => {
    const { place, refusalOf } = await setUp();
    for (const [top, advice] of [
      ['manifest.json', 'docker-archive'],
      ['rootfs', 'top of the archive'],
    ] as const) {
      const parent = join(place, top);
      await mkdir(join(parent, top, 'bin'), { recursive: true });
      expect(await refusalOf(await archiveOf(parent, join(place, `${top}.tar`)))).toMatchObject({
        ...flawed('no-root'),
        hint: expect.stringContaining(advice) as unknown,
      });
    }
  });

  it('an archive that is cut off, packed or not', async () => {
    const { place, refusalOf } = await setUp();
    const whole = await readFile(await busyboxRoot(place));
    await writeFile(join(place, 'cut.tar'), whole.subarray(0, 100_000));
    expect(await refusalOf(join(place, 'cut.tar'))).toMatchObject(flawed('damaged'));
    await tool(['gzip', '--keep', join(place, 'busybox.tar')]);
    const packed = await readFile(join(place, 'busybox.tar.gz'));
    await writeFile(join(place, 'cut.tar.gz'), packed.subarray(0, packed.length / 2));
    expect(await refusalOf(join(place, 'cut.tar.gz'))).toMatchObject(flawed('damaged'));
  });

  it('an archive that unpacks without end, or has files without end', async () => {
    const { place } = await setUp();
    const archive = await busyboxRoot(place, 'xz');
    for (const limits of [
      { ...mergeLimits, maxUnpackedBytes: 1024 ** 2 },
      { ...mergeLimits, maxEntries: 100 },
      { ...mergeLimits, maxNameBytes: 100 },
    ]) {
      const { refusalOf } = await setUp(modes.at(-1), limits);
      expect(await refusalOf(archive)).toMatchObject({ class: 'ResourceExhausted' });
    }
  });

  it('an archive that wants gigabytes of memory to be unpacked', async () => {
    const { place, importRoot, refusalOf } = await setUp();
    const archive = await craft(join(place, 'a.tar'), `member('etc/file')`);
    // The dictionary of the one block, in the block's header, made 4 GiB, with the sum mended.
    await python(
      archive,
      `import lzma,zlib
data=bytearray(lzma.compress(open(root,'rb').read(), preset=0))
open(root+b'.xz','wb').write(data)
block=data[12:12+(data[12]+1)*4]
at=block.index(bytes([0x21,0x01]))+2
block[at]=40
block[-4:]=zlib.crc32(bytes(block[:-4])).to_bytes(4,'little')
data[12:12+len(block)]=block
open(root+b'.greedy.xz','wb').write(data)`,
    );
    expect(await refusalOf(`${archive}.greedy.xz`)).toMatchObject(flawed('damaged'));
    await importRoot(`${archive}.xz`);
  });
});
