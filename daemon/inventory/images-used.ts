/** Which images a guest is made of: whoever uses one keeps it from being deleted. Pure. */
import type { ImageKind } from '../../protocol/image.ts';
import type { ImageId } from '../../protocol/types.ts';

interface OnImage {
  readonly image?: ImageId | undefined;
}

/** As it is stored, in the inventory and in records. */
export type BootByImages =
  | { readonly kind: 'disk' }
  | { readonly kind: 'kernel'; readonly kernel: ImageId; readonly initrd?: ImageId | undefined }
  | { readonly kind: 'root'; readonly image: ImageId };

/** What of a guest's spec names images. */
export interface MadeOfImages {
  readonly boot: BootByImages;
  readonly disks: readonly OnImage[];
  readonly keptDisks: readonly OnImage[];
  readonly cdroms: readonly (OnImage & { readonly change?: OnImageBefore | undefined })[];
}

/** While a medium is changed: what is in the drive until it is for certain. */
interface OnImageBefore {
  readonly from?: ImageId | undefined;
}

export interface ImageUse {
  readonly image: ImageId;
  /** What it has to be, as far as its use tells: a root and the files of a program may be of another kind. */
  readonly kind: ImageKind;
}

const bootUses = (boot: BootByImages): readonly ImageUse[] => {
  switch (boot.kind) {
    case 'disk':
      return [];
    case 'kernel': {
      const { kernel, initrd } = boot;
      const further = initrd === undefined ? [] : [{ image: initrd, kind: 'initrd' } as const];
      return [{ image: kernel, kind: 'kernel' }, ...further];
    }
    case 'root':
      return [{ image: boot.image, kind: 'root' }];
  }
};

/** Every use, in the order of boot, disks and drives; an image may be among them more than once. */
export const imageUses = ({ boot, disks, keptDisks, cdroms }: MadeOfImages): readonly ImageUse[] => [
  ...bootUses(boot),
  ...[...disks, ...keptDisks].flatMap(({ image }) => (image ? [{ image, kind: 'disk' } as const] : [])),
  ...cdroms
    .flatMap(({ image, change }) => [image, change?.from])
    .flatMap((image) => (image ? [{ image, kind: 'iso' } as const] : [])),
];

/** Ids of all images that a guest needs, each once. */
export const imagesUsed = (spec: MadeOfImages): readonly ImageId[] => [
  ...new Set(imageUses(spec).map(({ image }) => image)),
];
