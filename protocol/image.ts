/** Images: read-only sources of disks, kernels and initial ramdisks. */
import { z } from 'zod';
import { byteCount, imageId, imageName, millisecondsSinceEpoch } from './types.ts';

export const imageKinds = ['disk', 'kernel', 'initrd'] as const;
export const imageKind = z.enum(imageKinds);
export type ImageKind = z.infer<typeof imageKind>;

/** Formats that an import names. A format is never guessed from the bytes. */
export const imageSourceFormat = z.enum(['qcow2', 'raw']);
export type ImageSourceFormat = z.infer<typeof imageSourceFormat>;

export const imageView = z.strictObject({
  id: imageId,
  name: imageName,
  kind: imageKind,
  state: z.enum(['importing', 'ready', 'deleting']),
  format: z.enum(['qcow2', 'raw']).describe('How it is kept'),
  sizeBytes: byteCount.describe('Bytes it takes on the host'),
  virtualSizeBytes: byteCount.describe('Size of the disk it is'),
  sha256: z.string().optional().describe('Digest of the file that was imported'),
  usedBy: z.array(z.string()).describe('Names of the guests that need it'),
  createdAt: millisecondsSinceEpoch,
});
export type ImageView = Readonly<z.infer<typeof imageView>>;
