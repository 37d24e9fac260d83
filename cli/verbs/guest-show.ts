/** `roost show`: one guest, with its images by the names that they have now. */
import type { GuestView } from '../../protocol/guest.ts';
import { imageLabel } from '../../protocol/image-reference.ts';
import type { Context } from '../io.ts';
import { printGuest } from '../print/guest.ts';
import type { Verb } from '../verb.ts';

/** More images than a person can have wanted to name. */
const MAX_IMAGES = 10_000;
const IMAGE_ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

const bootImages = (boot: GuestView['boot']): readonly (string | undefined)[] => {
  switch (boot.kind) {
    case 'disk':
      return [];
    case 'kernel':
      return [boot.kernel, boot.initrd];
    case 'root':
      return [boot.image];
  }
};

const bootNamed = (boot: GuestView['boot'], name: (id: string) => string): GuestView['boot'] => {
  switch (boot.kind) {
    case 'disk':
      return boot;
    case 'kernel': {
      const { kernel, initrd } = boot;
      return { ...boot, kernel: name(kernel), ...(initrd === undefined ? {} : { initrd: name(initrd) }) };
    }
    case 'root':
      return { ...boot, image: name(boot.image) };
  }
};

/** The guest with its images by name: it keeps their ids, which nobody remembers. */
const withImageNames = async (view: GuestView, { client, signal }: Context): Promise<GuestView> => {
  const used = [
    ...bootImages(view.boot),
    ...[...view.disks, ...view.keptDisks, ...view.cdroms].map((disk) => disk.image),
  ];
  if (!used.some((image) => image !== undefined && IMAGE_ID.test(image))) return view;
  const { images } = await (await client()).call('query-images', { limit: MAX_IMAGES }, { signal });
  const names = new Map<string, string>(images.map((image) => [image.id, imageLabel(image)]));
  const named = <T extends { readonly image?: string | undefined }>(disk: T): T =>
    disk.image === undefined ? disk : { ...disk, image: names.get(disk.image) ?? disk.image };
  const name = (id: string): string => names.get(id) ?? id;
  return {
    ...view,
    disks: view.disks.map(named),
    keptDisks: view.keptDisks.map(named),
    cdroms: view.cdroms.map(named),
    boot: bootNamed(view.boot, name),
  };
};

export const showVerb: Verb = {
  words: 'show',
  command: 'query-guest',
  uses: ['query-images'],
  positionals: [{ name: 'NAME', member: 'guest', complete: 'guest' }],
  flags: [],
  run: async ({ positionals }, context) => {
    const args = { guest: String(positionals['NAME']) };
    const view = await (await context.client()).call('query-guest', args, { signal: context.signal });
    if (context.json) context.printJson(view);
    else context.print(printGuest(await withImageNames(view, context), context.io.now()));
    return 0;
  },
};
