/** Verbs on images. */
import { readFile } from 'node:fs/promises';
import { extname, resolve } from 'node:path';
import type { ImageSourceFormat } from '../../protocol/image.ts';
import { imageLabel, parseImageReference } from '../../protocol/image-reference.ts';
import { change } from '../change.ts';
import { printImages } from '../print/images.ts';
import { type Positional, query, type Verb } from '../verb.ts';

const image: Positional = { name: 'IMAGE', member: 'image', variadic: true, complete: 'image' };
const alias: Positional = { name: 'ALIAS', member: 'alias', complete: 'image' };

/** What the name of a file says of it. Its content is never asked. */
const formatsByExtension: Readonly<Record<string, ImageSourceFormat>> = {
  '.qcow2': 'qcow2',
  '.raw': 'raw',
  '.vmdk': 'vmdk',
  '.vhdx': 'vhdx',
};

const madeAs =
  (verb: string) =>
  (_args: unknown, result: Readonly<Record<string, unknown>>): string =>
    typeof result['version'] === 'string'
      ? `${verb} as ${imageLabel({ name: String(result['name']), version: result['version'] })}`
      : verb;

/** Without what may follow the path. */
const pathOf = (url: string): string => url.replace(/[?#].*$/s, '');

const importImage = change({
  words: 'image import',
  command: 'image-import',
  details:
    'The format of a disk is taken from the end of the file name (.qcow2, .raw, .vmdk, .vhdx) unless it is given; the content is never asked. A URL is downloaded by the daemon, and what is interrupted goes on where it was.',
  positionals: [
    { name: 'NAME', member: 'name', description: 'Name of the image, as debian/12, or NAME@VERSION' },
    { name: 'SOURCE', description: 'File on the host, or http(s) URL', complete: 'file' },
  ],
  flags: [
    { name: 'kind', short: 'k', member: 'kind', description: 'What it is' },
    { name: 'format', member: 'format' },
    { name: 'sha256', member: 'sha256', value: 'digest' },
    { name: 'sha512', member: 'sha512', value: 'digest' },
    {
      name: 'ca-file',
      type: 'string',
      value: 'file',
      description: "Certificate authorities in PEM for the URL, instead of the host's",
      complete: 'file',
    },
  ],
  prepare: async (args, { positionals, flags }) => {
    const source = String(positionals['SOURCE']);
    const isUrl = /^https?:\/\//i.test(source);
    const format = formatsByExtension[extname(isUrl ? pathOf(source) : source).toLowerCase()];
    const caFile = typeof flags['ca-file'] === 'string' ? flags['ca-file'] : undefined;
    const isDisk = args['kind'] === undefined || args['kind'] === 'disk';
    return {
      ...(format !== undefined && isDisk ? { format } : {}),
      ...args,
      ...parseImageReference(String(args['name'])),
      ...(isUrl ? { url: source } : { path: resolve(source) }),
      ...(caFile === undefined ? {} : { certificateAuthorities: await readFile(caFile, 'utf8') }),
    };
  },
  done: madeAs('imported'),
});

export const imageVerbs: readonly Verb[] = [
  importImage,
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
