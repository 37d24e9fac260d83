/** Verbs on images. */
import { extname, resolve } from 'node:path';
import type { ImageKind, ImageSourceFormat } from '../../protocol/image.ts';
import { imageLabel, parseImageReference } from '../../protocol/image-reference.ts';
import { change } from '../change.ts';
import type { Io } from '../io.ts';
import { printImage, printImages } from '../print/images.ts';
import { type Flag, type Positional, query, type Verb } from '../verb.ts';

const image: Positional = { name: 'IMAGE', member: 'image', variadic: true, complete: 'image' };
const alias: Positional = { name: 'ALIAS', member: 'alias', complete: 'image' };

/** What the name of a file says of it. Its content is never asked. */
const formatsByExtension: Readonly<Record<string, ImageSourceFormat>> = {
  '.qcow2': 'qcow2',
  '.raw': 'raw',
  '.vmdk': 'vmdk',
  '.vhdx': 'vhdx',
};

/** Ends of the names of archives. No other kind comes as one unless it is said. */
const isArchiveName = (path: string): boolean => /\.(tar|tar\.(gz|xz|zst)|tgz|txz)$/i.test(path);

/** Without kind and format an archive is the root file system of a container, and any other file a disk. */
const readOffName = (
  path: string,
  { kind, format }: Readonly<Record<string, unknown>>,
): { readonly kind?: ImageKind; readonly format?: ImageSourceFormat } => {
  if (kind === undefined && format === undefined && isArchiveName(path)) return { kind: 'root' };
  const named = formatsByExtension[extname(path).toLowerCase()];
  return named !== undefined && (kind === undefined || kind === 'disk') ? { format: named } : {};
};

/** What is told of a new version of an image. */
export const madeAs =
  (verb: string) =>
  (_args: unknown, result: Readonly<Record<string, unknown>>): string => {
    if (typeof result['version'] !== 'string') return verb;
    const label = imageLabel({ name: String(result['name']), version: result['version'] });
    return result['upToDate'] === true ? `is here already as ${label}` : `${verb} as ${label}`;
  };

const caFile: Flag = {
  name: 'ca-file',
  type: 'string',
  value: 'file',
  description: "Certificate authorities in PEM for the server, instead of the host's",
  complete: 'file',
};

const authoritiesIn = async (
  flags: Readonly<Record<string, unknown>>,
): Promise<{ readonly certificateAuthorities?: string }> => {
  const file = flags[caFile.name];
  if (typeof file !== 'string') return {};
  const { readFile } = await import('node:fs/promises');
  return { certificateAuthorities: await readFile(file, 'utf8') };
};

/** Without what may follow the path. */
const pathOf = (url: string): string => url.replace(/[?#].*$/s, '');

const credentialsOf = async (
  username: unknown,
  io: Io,
): Promise<{ readonly credentials?: { readonly username: string; readonly password: string } }> => {
  if (typeof username !== 'string') return {};
  const { readRegistryPassword } = await import('../secret.ts');
  return { credentials: { username, password: await readRegistryPassword(io, username) } };
};

const importImage = change({
  words: 'image import',
  command: 'image-import',
  details:
    'The format of a disk is taken from the end of the file name (.qcow2, .raw, .vmdk, .vhdx) unless it is given; the content is never asked. An archive (.tar, .tar.gz, .tgz, .tar.xz, .txz, .tar.zst) is the root file system of a container, with its root at the top, unless another --kind is given. A URL is downloaded by the daemon, and what is interrupted goes on where it was. With --kind oci SOURCE is an OCI layout, a directory or a tar archive of one, or with --format docker-archive what docker save wrote.',
  positionals: [
    { name: 'NAME', member: 'name', description: 'Name of the image, as debian/12, or NAME@VERSION' },
    { name: 'SOURCE', description: 'File on the host, or http(s) URL', complete: 'file' },
  ],
  flags: [
    { name: 'kind', short: 'k', member: 'kind', description: 'What it is' },
    { name: 'format', member: 'format' },
    { name: 'sha256', member: 'sha256', value: 'digest' },
    { name: 'sha512', member: 'sha512', value: 'digest' },
    { name: 'platform', member: 'platform', value: 'platform' },
    { name: 'reference', member: 'reference', value: 'name' },
    caFile,
  ],
  prepare: async (args, { positionals, flags }) => {
    const source = String(positionals['SOURCE']);
    const isUrl = /^https?:\/\//i.test(source);
    return {
      ...readOffName(isUrl ? pathOf(source) : source, args),
      ...args,
      ...parseImageReference(String(args['name'])),
      ...(isUrl ? { url: source } : { path: resolve(source) }),
      ...(await authoritiesIn(flags)),
    };
  },
  done: madeAs('imported'),
});

const pullImage = change({
  words: 'image pull',
  command: 'image-pull',
  details:
    'REFERENCE is what docker pull takes. Without --username and --auth-file nobody is asked for credentials, and none are sent. The layers become one read-only disk; parts that another image has are not fetched.',
  positionals: [{ name: 'REFERENCE', member: 'reference' }],
  flags: [
    { name: 'name', short: 'n', member: 'name', value: 'name', description: 'NAME or NAME@VERSION' },
    { name: 'platform', member: 'platform', value: 'platform' },
    {
      name: 'username',
      short: 'u',
      type: 'string',
      value: 'user',
      description: 'User of the registry; the password is asked for, or read as one line from standard input',
    },
    { name: 'auth-file', member: 'authFile', value: 'file', complete: 'file' },
    caFile,
    { name: 'plain-http', member: 'plainHttp', negatable: true },
  ],
  prepare: async (args, { flags }, { io }) => {
    const credentials = await credentialsOf(flags['username'], io);
    return {
      ...args,
      ...(typeof args['name'] === 'string' ? parseImageReference(args['name']) : {}),
      ...(typeof args['authFile'] === 'string' ? { authFile: resolve(args['authFile']) } : {}),
      ...(await authoritiesIn(flags)),
      ...credentials,
    };
  },
  done: madeAs('pulled'),
});

export const imageVerbs: readonly Verb[] = [
  importImage,
  pullImage,
  change({
    words: 'image build',
    command: 'image-build',
    positionals: [{ name: 'RECIPE', member: 'recipe' }],
    flags: [
      { name: 'suite', member: 'suite' },
      { name: 'name', short: 'n', member: 'name', value: 'name', description: 'NAME or NAME@VERSION' },
    ],
    prepare: (args) => ({
      ...args,
      ...(typeof args['name'] === 'string' ? parseImageReference(args['name']) : {}),
    }),
    done: madeAs('built'),
  }),
  query({
    words: 'image show',
    command: 'query-image',
    positionals: [{ name: 'IMAGE', member: 'image', complete: 'image' }],
    print: (reply, _, { io }) => printImage(reply, io.now()),
  }),
  query({
    words: 'image ls',
    aliases: ['image list'],
    command: 'query-images',
    pages: 'images',
    print: (reply, _, { io }) => printImages(reply.images, io.now()),
  }),
  change({
    words: 'image delete',
    aliases: ['image rm'],
    command: 'image-delete',
    positionals: [image],
    flags: [{ name: 'all', short: 'a', member: 'allVersions' }],
    done: 'deleted',
  }),
  change({
    words: 'image prune',
    command: 'image-prune',
    positionals: [image],
    flags: [{ name: 'keep', member: 'keep' }],
    done: (_args, result) => {
      const deleted = Array.isArray(result['deleted']) ? result['deleted'].map(String) : [];
      return deleted.length === 0 ? 'has nothing to prune' : `pruned: ${deleted.join(', ')}`;
    },
  }),
  change({
    words: 'image alias',
    command: 'image-alias-set',
    positionals: [alias, { name: 'IMAGE', member: 'image', complete: 'image' }],
    done: (args) => `means ${String(args['image'])}`,
  }),
  change({
    words: 'image unalias',
    command: 'image-alias-delete',
    positionals: [alias],
    done: 'deleted',
  }),
];
