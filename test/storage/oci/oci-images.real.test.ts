/** Images of layouts and archives become disks whose tree is, attribute by attribute, what umoci unpacks. */
import { randomBytes } from 'node:crypto';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { launcherPath, splicePath } from '../../../native/index.ts';
import { imageStore } from '../../../storage/images/image-store.ts';
import { ociImagesConformance } from '../../conformance/oci-images.ts';
import { describeWith } from '../../harness/needs.ts';
import {
  archiveOf,
  Layout,
  type Packing,
  python,
  type ToldTree,
  tellTree,
  tool,
  unsquash,
} from '../../harness/oci-layout.ts';
import { makeDirectory } from '../../harness/test-directory.ts';
import { bring, IMPORTER, ociPlace, ociPlaceIn } from './oci-place.ts';

/** Makes one layer for each program, which works in an empty directory, `root`. */
const layered = async (
  path: string,
  programs: readonly string[],
  packings: readonly Packing[] = ['gzip'],
): Promise<Layout> => {
  const layout = await Layout.make(join(path, 'layout'));
  const layers: Awaited<ReturnType<Layout['layer']>>[] = [];
  for (const [index, program] of programs.entries()) {
    const tree = join(path, `tree-${index}`);
    await mkdir(tree);
    await python(tree, `os.chdir(root)\n${HELPERS}${program}`);
    const archive = await archiveOf(tree, join(path, `layer-${index}.tar`));
    layers.push(await layout.layer(archive, packings[index % packings.length]));
  }
  await layout.image('latest', layers, { config: { Cmd: ['/bin/sh'] } });
  return layout;
};

const HELPERS = `
def put(path, text=b'x', mode=0o644, uid=0, gid=0, mtime=1600000000):
    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
    with open(path,'wb') as f: f.write(text)
    os.chown(path,uid,gid); os.chmod(path,mode); os.utime(path,(mtime,mtime))
def folder(path, mode=0o755, uid=0, gid=0):
    os.makedirs(path, exist_ok=True); os.chown(path,uid,gid); os.chmod(path,mode)
CAPS=bytes.fromhex('0100000280000000000000000000000000000000')
`;

const unpacked = async (path: string, layout: Layout): Promise<ToldTree> => {
  const bundle = join(path, 'bundle');
  await tool(['umoci', 'unpack', '--image', `${layout.path}:latest`, bundle]);
  return await tellTree(join(bundle, 'rootfs'));
};

const treeOf = async (path: string, disk: string): Promise<ToldTree> =>
  await tellTree(await unsquash(disk, join(path, 'unsquashed')));

/** Holds the disk of the layers against umoci's tree, and gives it. */
const sameAsUmoci = async (programs: readonly string[], packings?: readonly Packing[]): Promise<ToldTree> => {
  const here = await ociPlace();
  const layout = await layered(here.path, programs, packings);
  const disk = await bring(here.images, await here.request({ kind: 'oci-layout', path: layout.path }));
  const tree = await treeOf(here.path, disk);
  expect(tree).toEqual(await unpacked(here.path, layout));
  return tree;
};

ociImagesConformance('registries and layouts', async () => {
  const path = await makeDirectory('oci');
  const { imagesPath, images } = await ociPlaceIn(path);
  const layout = join(path, 'layout');
  return {
    images,
    store: imageStore({
      path: imagesPath,
      launcherPath: launcherPath(),
      splicePath: splicePath(),
      ...(IMPORTER ? { imagesGid: 2_000_000_113, importer: IMPORTER } : {}),
    }),
    offer: async () => {
      await rm(layout, { recursive: true, force: true });
      const made = await Layout.make(layout);
      const tree = join(path, 'tree');
      await mkdir(tree, { recursive: true });
      await writeFile(join(tree, 'file'), randomBytes(1000));
      const layer = await made.layer(await archiveOf(tree, join(path, 'layer.tar')));
      await made.image('one', [layer], { config: { Cmd: ['/bin/true'] } });
      return { kind: 'oci-layout', path: layout };
    },
    nowhere: { kind: 'oci-layout', path: join(path, 'nowhere') },
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }),
  };
});

describeWith(['root', 'umoci', 'sqfstar'], 'the tree of an image is that of umoci', () => {
  test('with owners, modes, times, devices, links, names of any bytes, attributes of any bytes', async () => {
    const tree = await sameAsUmoci([
      `
put('bin/su', b'su', 0o4755)
put('bin/ping', b'ping'); os.setxattr('bin/ping','security.capability',CAPS)
put('home/me/file', b'mine', 0o600, 1000, 1000)
put('far', b'far', 0o640, 4000000000, 3000000)
put(b'bad\\xff\\xfename', b'1'); put('new\\nline', b'2'); put('quote"\\\\', b'3'); put(' blank ', b'4')
put('x'*200+'/'+'y'*250, b'long'); os.symlink('x'*200+'/'+'y'*250,'longlink'); os.link('x'*200+'/'+'y'*250,'longhard')
os.setxattr('bin/su','user.bin',b'\\x00\\xff\\n\\x80=')
folder('attributed'); os.setxattr('attributed','user.dir',b'\\x00'); os.setxattr('attributed','trusted.some',b'\\xfe=\\n')
os.symlink('../../../etc/passwd','out'); os.setxattr('out','trusted.link',b'\\x01',follow_symlinks=False)
os.mknod('null',0o666|stat.S_IFCHR,os.makedev(1,3)); os.mknod('disk',0o660|stat.S_IFBLK,os.makedev(259,1234)); os.mkfifo('pipe')
folder('tmp',0o1777); put('empty', b''); put('new', b'n', mtime=4102444800)
with open('sparse','wb') as f: f.truncate(3*1024*1024); f.seek(1024*1024); f.write(b'middle')
os.utime('out',(5,5),follow_symlinks=False)
`,
    ]);
    expect(tree['bin/ping']).toMatchObject({
      xattrs: { 'security.capability': '0100000280000000000000000000000000000000' },
    });
    expect(tree['bin/su']).toMatchObject({ mode: '0o104755', xattrs: { 'user.bin': '00ff0a803d' } });
    expect(tree['longhard']).toMatchObject({ same: 'longhard', links: 2 });
  });

  test('with whiteouts, opaque directories, and what takes the place of what', async () => {
    const tree = await sameAsUmoci(
      [
        `
put('gone'); put('kept'); put('dir/gone'); put('dir/kept'); put('opaque/old'); put('opaque/deep/old')
put('file-to-dir'); put('dir-to-file/inner'); os.symlink('kept','link-to-dir'); put('whole/a/b/c')
folder('modes',0o700,5,5)
`,
        `
put('.wh.gone',b''); put('dir/.wh.gone',b''); put('dir/new')
put('opaque/.wh..wh..opq',b''); put('opaque/new'); put('opaque/deep/new')
put('file-to-dir/inner'); put('dir-to-file',b'file'); folder('link-to-dir'); put('link-to-dir/x')
put('.wh.whole',b''); folder('modes',0o755,6,7); put('.wh.never-was',b'')
`,
        `put('gone',b'again'); put('whole/new')`,
      ],
      ['gzip', 'none'],
    );
    expect(Object.keys(tree)).not.toContain('opaque/old');
    expect(Object.keys(tree)).toEqual(
      expect.arrayContaining(['gone', 'opaque/deep/new', 'file-to-dir/inner', 'link-to-dir/x', 'whole/new']),
    );
  });

  test('with hard links in a layer and across layers, whatever becomes of the first name', async () => {
    const here = await ociPlace();
    const layout = await Layout.make(join(here.path, 'layout'));
    const tree = join(here.path, 'tree');
    await mkdir(tree);
    await python(
      tree,
      `os.chdir(root)\n${HELPERS}put('a',b'shared',0o755,3,4); os.link('a','b'); put('c',b'other')`,
    );
    const lower = await layout.layer(await archiveOf(tree, join(here.path, '1.tar')));
    const archive = join(here.path, '2.tar');
    // Links whose targets are in the layer below, as an overlay's upper directory has them.
    await python(
      archive,
      `
import tarfile
with tarfile.open(root.decode(),'w',format=tarfile.PAX_FORMAT) as archive:
    def entry(name,**members):
        info=tarfile.TarInfo(name)
        for key,value in members.items(): setattr(info,key,value)
        archive.addfile(info)
    entry('d',type=tarfile.LNKTYPE,linkname='c',mode=0o644,mtime=1600000000)
    entry('sub',type=tarfile.DIRTYPE,mode=0o755,mtime=1600000000)
    entry('sub/e',type=tarfile.LNKTYPE,linkname='./b',mode=0o755,uid=3,gid=4,mtime=1600000000)
`,
    );
    const upper = await layout.layer(archive);
    const third = join(here.path, 'third');
    await mkdir(third);
    await python(third, `os.chdir(root)\n${HELPERS}put('.wh.a',b''); put('.wh.c',b'')`);
    const top = await layout.layer(await archiveOf(third, join(here.path, '3.tar')), 'none');
    await layout.image('latest', [lower, upper, top]);
    const disk = await bring(here.images, await here.request({ kind: 'oci-layout', path: layout.path }));
    const told = await treeOf(here.path, disk);
    expect(told).toMatchObject({ b: { same: 'b', links: 2 }, 'sub/e': { same: 'b', links: 2, uid: 3 } });
    expect(Object.keys(told)).toEqual(['', 'b', 'd', 'sub', 'sub/e']);
    expect(told).toEqual(await unpacked(here.path, layout));
  });
});
