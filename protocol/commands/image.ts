/** Commands on images. */
import { z } from 'zod';
import { defineCommand } from '../command.ts';
import { imageKind, imageSourceFormat, imageView } from '../image.ts';
import { accepted, changing } from '../operation.ts';
import { imageName, imageReference, page } from '../types.ts';

const since = '0.1.0';

export const imageImport = defineCommand({
  name: 'image-import',
  summary: 'Take a file of the host in as an image',
  description:
    'The file is distrusted: its format is named and never guessed, a header that points to another file is refused, and the result is always a fresh image of ours.',
  role: 'admin',
  nature: 'change',
  since,
  arguments: z.strictObject({
    name: imageName,
    kind: imageKind.default('disk'),
    path: z
      .string()
      .min(1)
      .max(4096)
      .startsWith('/', 'must be an absolute path')
      .describe('File on the host'),
    format: imageSourceFormat
      .optional()
      .describe('Format of a disk, qcow2 unless given; a kernel or initial ramdisk is taken as it is'),
    sha256: z
      .string()
      .regex(/^[0-9a-f]{64}$/)
      .optional()
      .describe('Refuse the file unless this is its digest'),
    ...changing,
  }),
  returns: accepted,
});

export const imageDelete = defineCommand({
  name: 'image-delete',
  summary: 'Delete an image that no guest needs',
  role: 'admin',
  nature: 'change',
  since,
  arguments: z.strictObject({ image: imageReference, ...changing }),
  returns: accepted,
});

export const queryImages = defineCommand({
  name: 'query-images',
  summary: 'List images',
  role: 'read',
  nature: 'query',
  since,
  arguments: z.strictObject({ names: z.array(imageReference).optional(), ...page }),
  returns: z.strictObject({ images: z.array(imageView), next: z.string().optional() }),
});
