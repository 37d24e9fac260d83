/** OCI images made of small trees, and trees told attribute by attribute. */
import { createHash } from 'node:crypto';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { exec } from '../../lib/exec.ts';

export const tool = async (argv: readonly [string, ...string[]], input?: string): Promise<string> =>
  (
    await exec(argv, {
      signal: AbortSignal.timeout(300_000),
      timeoutMs: 0,
      ...(input === undefined ? {} : { input }),
      maxOutputBytes: 64 * 1024 * 1024,
    })
  ).stdout;

/** Runs a program in Python on the directory; it finds `root`, and `os`. For what Node has no calls for. */
export const python = (directory: string, program: string): Promise<string> =>
  tool(['python3', '-', directory], `import os,sys,stat,json,hashlib\nroot=sys.argv[1].encode()\n${program}`);

const TELL = `
first={}
told={}
def tell(path, name):
    s=os.lstat(path)
    kind=stat.S_IFMT(s.st_mode)
    content=''
    if stat.S_ISREG(s.st_mode):
        with open(path,'rb') as file: content=hashlib.sha256(file.read()).hexdigest()
    if stat.S_ISLNK(s.st_mode): content=os.readlink(path).decode('latin1')
    same=None
    if not stat.S_ISDIR(s.st_mode) and s.st_nlink>1: same=first.setdefault(s.st_ino,name)
    told[name]=dict(mode=oct(s.st_mode),uid=s.st_uid,gid=s.st_gid,mtime=int(s.st_mtime//1),content=content,
      device=s.st_rdev if stat.S_ISBLK(s.st_mode) or stat.S_ISCHR(s.st_mode) else 0,same=same,
      size=s.st_size if stat.S_ISREG(s.st_mode) else 0,links=0 if stat.S_ISDIR(s.st_mode) else s.st_nlink,
      xattrs={k:os.getxattr(path,k,follow_symlinks=False).hex() for k in os.listxattr(path,follow_symlinks=False)})
def walk(path, name):
    tell(path, name)
    if stat.S_ISDIR(os.lstat(path).st_mode):
        for child in sorted(os.listdir(path)): walk(path+b'/'+child, (name+'/' if name else '')+child.decode('latin1'))
walk(root,'')
print(json.dumps(told))
`;

export type ToldTree = Readonly<Record<string, Readonly<Record<string, unknown>>>>;

/** Every file below a directory with its attributes; times in whole seconds. */
export const tellTree = async (directory: string): Promise<ToldTree> =>
  JSON.parse(await python(directory, TELL)) as ToldTree;

/** Unpacks a squashfs into a new directory. */
export const unsquash = async (disk: string, to: string): Promise<string> => {
  await tool(['unsquashfs', '-quiet', '-no-progress', '-dest', to, disk]);
  return to;
};

/** The archive of a directory, as docker writes layers: pax, extended attributes, numbers for owners. */
export const archiveOf = async (directory: string, file: string, ...options: string[]): Promise<string> => {
  await tool([
    'tar',
    '--format=pax',
    '--xattrs',
    '--xattrs-include=*',
    '--numeric-owner',
    '--sort=name',
    ...options,
    '-cf',
    file,
    '-C',
    directory,
    '.',
  ]);
  return file;
};

export type Packing = 'none' | 'gzip' | 'zstd';

export interface LayoutDescriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly [member: string]: unknown;
}

const sha256 = (bytes: Uint8Array): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

/** An image layout that grows by images. */
export class Layout {
  readonly path: string;
  readonly #manifests: LayoutDescriptor[] = [];

  private constructor(path: string) {
    this.path = path;
  }

  static async make(path: string): Promise<Layout> {
    await mkdir(join(path, 'blobs', 'sha256'), { recursive: true });
    await writeFile(join(path, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
    const layout = new Layout(path);
    await layout.#writeIndex();
    return layout;
  }

  async blob(mediaType: string, bytes: Uint8Array): Promise<LayoutDescriptor> {
    const digest = sha256(bytes);
    await writeFile(this.pathOf(digest), bytes);
    return { mediaType, digest, size: bytes.length };
  }

  json(mediaType: string, value: unknown): Promise<LayoutDescriptor> {
    return this.blob(mediaType, Buffer.from(JSON.stringify(value)));
  }

  pathOf(digest: string): string {
    return join(this.path, 'blobs', ...digest.split(':'));
  }

  /** Takes the archive of a layer in; gives how the manifest and the config name it. */
  async layer(
    archive: string,
    packing: Packing = 'gzip',
  ): Promise<{ readonly descriptor: LayoutDescriptor; readonly diffId: string }> {
    const diffId = sha256(await readFile(archive));
    const mediaType = `application/vnd.oci.image.layer.v1.tar${packing === 'none' ? '' : `+${packing}`}`;
    if (packing !== 'none') {
      const packed = `${archive}.packed`;
      if (packing === 'gzip') {
        await tool(['gzip', '--keep', '--no-name', '--suffix', '.packed', archive]);
      } else await tool(['zstd', '--quiet', archive, '-o', packed]);
      await rename(packed, archive);
    }
    return { descriptor: await this.blob(mediaType, await readFile(archive)), diffId };
  }

  /** Makes an image of layers; `name` is what the index calls it. */
  async image(
    name: string | undefined,
    layers: readonly { readonly descriptor: LayoutDescriptor; readonly diffId: string }[],
    changes: {
      readonly config?: Readonly<Record<string, unknown>>;
      readonly platform?: Readonly<Record<string, string>>;
    } = {},
  ): Promise<LayoutDescriptor> {
    const platform = { os: 'linux', architecture: 'amd64', ...changes.platform };
    const config = await this.json('application/vnd.oci.image.config.v1+json', {
      ...platform,
      config: changes.config ?? {},
      rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) },
    });
    const mediaType = 'application/vnd.oci.image.manifest.v1+json';
    const manifest = await this.json(mediaType, {
      schemaVersion: 2,
      mediaType,
      config,
      layers: layers.map(({ descriptor }) => descriptor),
    });
    if (name !== undefined) await this.add(name, { ...manifest, platform });
    return { ...manifest, platform };
  }

  async add(name: string, descriptor: LayoutDescriptor): Promise<void> {
    this.#manifests.push({ ...descriptor, annotations: { 'org.opencontainers.image.ref.name': name } });
    await this.#writeIndex();
  }

  async #writeIndex(): Promise<void> {
    const index = { schemaVersion: 2, manifests: this.#manifests };
    await writeFile(join(this.path, 'index.json'), JSON.stringify(index));
  }
}

/** A layout with one image, called latest, of one file. */
export const smallLayout = async (path: string): Promise<Layout> => {
  const layout = await Layout.make(path);
  const tree = join(path, 'tree');
  await mkdir(tree);
  await writeFile(join(tree, 'file'), 'small');
  await layout.image('latest', [await layout.layer(await archiveOf(tree, join(path, 'layer.tar')))]);
  return layout;
};
