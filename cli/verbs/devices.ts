/** Verbs on the disks and NICs of guests. */

import type { DiskUse } from '../../protocol/disk.ts';
import type { ImageView } from '../../protocol/image.ts';
import { imageLabel } from '../../protocol/image-reference.ts';
import { change } from '../change.ts';
import { CliFailure, usageFailure } from '../failure.ts';
import type { Context } from '../io.ts';
import { printDiskMap, printDisks } from '../print/disks.ts';
import { parseSize, UnitError } from '../units.ts';
import type { Flag, Positional, Verb } from '../verb.ts';

const guest: Positional = { name: 'GUEST', member: 'guest', complete: 'guest' };
const disk: Positional = { name: 'DISK', member: 'disk' };

const timeout: Flag = {
  name: 'timeout',
  short: 't',
  member: 'timeoutMs',
  description: 'How long to wait for a running guest to let go',
};

const sizeOf = (text: unknown): number => {
  try {
    return parseSize(String(text));
  } catch (error) {
    if (!(error instanceof UnitError)) throw error;
    throw usageFailure(error.message);
  }
};

/** More disks and images than a person can have wanted to see. */
const MAX_ENTRIES = 100_000;

const allImages = async ({ client, signal }: Context): Promise<readonly ImageView[]> => {
  const reply = await (await client()).call('query-images', { limit: MAX_ENTRIES }, { signal });
  return reply.images;
};

const allDisks = async (
  { client, signal }: Context,
  guest: string | undefined,
): Promise<readonly DiskUse[]> => {
  const guests = guest === undefined ? {} : { guests: [guest] };
  return (await (await client()).call('query-disks', { ...guests, limit: MAX_ENTRIES }, { signal })).disks;
};

const list: Verb = {
  words: 'disk ls',
  aliases: ['disk list'],
  command: 'query-disks',
  uses: ['query-images'],
  positionals: [
    { name: 'GUEST', optional: true, description: 'Only disks of this guest', complete: 'guest' },
  ],
  flags: [],
  run: async ({ positionals }, context) => {
    const wanted = positionals['GUEST'];
    const disks = await allDisks(context, typeof wanted === 'string' ? wanted : undefined);
    if (context.json) context.printJson({ disks });
    else {
      const images = new Map<string, ImageView>((await allImages(context)).map((image) => [image.id, image]));
      context.print(disks.length === 0 ? [] : printDisks(disks, images));
      if (disks.length === 0) context.note('No disks.');
    }
    return 0;
  },
};

const map: Verb = {
  words: 'disk map',
  command: 'query-disks',
  uses: ['query-images'],
  summary: 'Show what lies on what: each image, the disks on it, and what they take on the host',
  details: 'An image that something lies on cannot be deleted.',
  positionals: [
    { name: 'REF', optional: true, description: 'Only this guest, or this image', complete: 'guest' },
  ],
  flags: [],
  run: async ({ positionals }, context) => {
    const reference = positionals['REF'];
    const [images, disks] = await Promise.all([allImages(context), allDisks(context, undefined)]);
    const shown = typeof reference === 'string' ? partOfMap(reference, images, disks) : { images, disks };
    if (context.json) context.printJson(shown);
    else context.print(printDiskMap(shown.images, shown.disks));
    return 0;
  },
};

/** What has to do with a guest, or with an image by its name, one of its versions or its id. */
const partOfMap = (
  reference: string,
  images: readonly ImageView[],
  disks: readonly DiskUse[],
): { readonly images: readonly ImageView[]; readonly disks: readonly DiskUse[] } => {
  const named = images.filter((image) =>
    [image.id, image.name, imageLabel(image), ...image.aliases].includes(reference),
  );
  const ids = new Set<string | undefined>(named.map(({ id }) => id));
  const part =
    named.length > 0
      ? { images: named, disks: disks.filter(({ image }) => ids.has(image)) }
      : {
          disks: disks.filter(({ guest: of }) => of === reference),
          images: images.filter(({ usedBy }) => usedBy.includes(reference)),
        };
  if (part.disks.length > 0 || part.images.length > 0) return part;
  throw new CliFailure({
    class: 'NotFound',
    desc: `No guest with disks and no image is called ${reference}`,
    hint: "'roost disk map' alone shows all.",
  });
};

export const diskVerbs: readonly Verb[] = [
  list,
  map,
  change({
    words: 'disk attach',
    command: 'guest-disk-attach',
    positionals: [
      guest,
      {
        name: 'DISK',
        member: 'name',
        optional: true,
        description: 'Name of the disk: a new one with --image or --size, else one that the guest has kept',
      },
    ],
    flags: [
      { name: 'size', short: 's', member: 'sizeBytes' },
      { name: 'image', short: 'i', member: 'image', value: 'image', complete: 'image' },
      { name: 'read-only', member: 'readOnly', description: 'The guest may not write to it' },
    ],
    done: (_args, result) => `has disk ${String(result['device'])}`,
  }),
  change({
    words: 'disk detach',
    command: 'guest-disk-detach',
    positionals: [guest, disk],
    flags: [{ name: 'delete', member: 'delete' }, timeout],
    done: (args) =>
      args['delete'] === true
        ? `has disk ${String(args['disk'])} no more`
        : `has put disk ${String(args['disk'])} aside`,
  }),
  change({
    words: 'disk resize',
    command: 'guest-disk-resize',
    positionals: [guest, disk, { name: 'SIZE', member: 'sizeBytes', description: 'New size, as 20GiB' }],
    prepare: (args) => ({ ...args, sizeBytes: sizeOf(args['sizeBytes']) }),
    done: (args) => `has a larger disk ${String(args['disk'])}`,
  }),
  change({
    words: 'disk delete',
    aliases: ['disk rm'],
    command: 'guest-disk-delete',
    positionals: [guest, disk],
    done: (args) => `has disk ${String(args['disk'])} no more`,
  }),
];

export const nicVerbs: readonly Verb[] = [
  change({
    words: 'nic attach',
    command: 'guest-nic-attach',
    positionals: [guest, { name: 'NETWORK', member: 'network', complete: 'network' }],
    flags: [
      { name: 'name', short: 'n', member: 'name' },
      { name: 'mac', member: 'mac' },
      { name: 'ipv4', member: 'ipv4', value: 'address' },
    ],
    done: (args) => `has a NIC on ${String(args['network'])}`,
  }),
  change({
    words: 'nic detach',
    command: 'guest-nic-detach',
    positionals: [guest, { name: 'NIC', member: 'nic' }],
    flags: [timeout],
    done: (args) => `has NIC ${String(args['nic'])} no more`,
  }),
];

const drive: Flag = { name: 'drive', short: 'd', member: 'cdrom', value: 'name' };

export const cdromVerbs: readonly Verb[] = [
  change({
    words: 'cdrom insert',
    command: 'guest-cdrom-insert',
    positionals: [guest, { name: 'IMAGE', member: 'image', complete: 'image' }],
    flags: [drive, { name: 'force', short: 'f', member: 'force' }],
    done: (args) => `has ${String(args['image'])} in its drive`,
  }),
  change({
    words: 'cdrom eject',
    command: 'guest-cdrom-eject',
    positionals: [guest],
    flags: [drive, { name: 'force', short: 'f', member: 'force' }],
    done: 'has an empty drive',
  }),
];
