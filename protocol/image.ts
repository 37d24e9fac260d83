/**
 * Images: read-only sources of disks, kernels, initial ramdisks and of the files of containers: of kind `oci` with what
 * its maker wants run, of kind `root` a system with an init of its own. A name has versions; each is an image of its own
 * with an id, kept until it is deleted, and a guest keeps the one that it was made of. An alias is a further name, for
 * one version or for whatever is the newest of a name.
 */
import { z } from 'zod';
import { ociFacts } from './oci.ts';
import {
  byteCount,
  guestId,
  guestName,
  imageId,
  imageName,
  imageVersion,
  millisecondsSinceEpoch,
} from './types.ts';

export const imageKinds = ['disk', 'iso', 'kernel', 'initrd', 'oci', 'root'] as const;
export const imageKind = z.enum(imageKinds);
export type ImageKind = z.infer<typeof imageKind>;

/** Formats of a disk that an import names. A format is never guessed from the bytes. */
export const imageSourceFormat = z.enum(['qcow2', 'raw', 'vmdk', 'vhdx']);
export type ImageSourceFormat = z.infer<typeof imageSourceFormat>;

/** Forms in which the root file system of a container comes: an archive, plain or packed by gzip, xz or zstd. */
export const rootSourceFormats = ['tar'] as const;
export type RootSourceFormat = (typeof rootSourceFormats)[number];

/** Forms in which an OCI image comes as files: a directory, or a tar archive of one; an archive of `docker save`. */
export const ociSourceFormats = ['oci-layout', 'docker-archive'] as const;
export type OciSourceFormat = (typeof ociSourceFormats)[number];

/** What an image was made of. A URL is kept without its credentials and its query, which may be one. */
export const imageSource = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('file'), path: z.string().describe('As it was named on the host') }),
  z.strictObject({ kind: z.literal('url'), url: z.string().describe('Without credentials and query') }),
  z.strictObject({
    kind: z.literal('registry'),
    reference: z.string().describe('Whole, as docker.io/library/debian:12'),
  }),
  z.strictObject({
    kind: z.literal('build'),
    recipe: z.string().describe('What built it here, as debian'),
    details: z.record(z.string(), z.string()).describe('What went into it, as the release and its date'),
  }),
  z.strictObject({
    kind: z.literal('guest'),
    guest: guestName.describe('The container that was saved, by the name that it had'),
    id: guestId,
    image: z.string().optional().describe('What that was made of, as debian-root@20261125'),
  }),
]);
export type ImageSource = Readonly<z.infer<typeof imageSource>>;

export const imageView = z.strictObject({
  id: imageId,
  name: imageName,
  version: imageVersion,
  newest: z.boolean().describe('Whether it is what its bare name means'),
  aliases: z.array(imageName).describe('Further names that mean it now'),
  kind: imageKind,
  state: z.enum(['importing', 'ready', 'deleting']),
  format: z.enum(['qcow2', 'raw']).describe('How it is kept'),
  sizeBytes: byteCount.describe('Bytes it takes on the host'),
  virtualSizeBytes: byteCount.describe('Size of the disk it is'),
  sha256: z.string().optional().describe('Digest of the file that was imported'),
  oci: ociFacts.optional().describe('Of kind oci'),
  source: imageSource.optional().describe('What it was made of; absent where nobody wrote it down'),
  usedBy: z.array(z.string()).describe('Names of the guests that need it'),
  createdAt: millisecondsSinceEpoch,
});
export type ImageView = Readonly<z.infer<typeof imageView>>;
