/** Commands on images. */
import { z } from 'zod';
import { defineCommand } from '../command.ts';
import { imageKind, imageSourceFormat, imageView, ociSourceFormats, rootSourceFormats } from '../image.ts';
import { ociConfig, ociPlatform } from '../oci.ts';
import { accepted, changing } from '../operation.ts';
import { imageName, imageReference, imageVersion, page } from '../types.ts';

const since = '0.1.0';

const platform = ociPlatform.optional();

const certificates = z
  .string()
  .max(262_144)
  .startsWith('-----BEGIN CERTIFICATE-----', 'must be certificates in PEM')
  .optional();

export const imageImport = defineCommand({
  name: 'image-import',
  summary: 'Take a file, of the host or by HTTP, in as an image: a new version of its name',
  description:
    'A download goes on where it was after a lost connection and after a restart of the daemon. Earlier versions stay, and guests keep the one that they were made of. The file is distrusted: its format is named and never guessed, a header that points to another file is refused, and the result is always a fresh image of ours.',
  role: 'admin',
  nature: 'change',
  since,
  arguments: z.strictObject({
    name: imageName,
    version: imageVersion
      .optional()
      .describe('The date of today unless given, as 20261125; a further one of a day is 20261125.2'),
    kind: imageKind
      .default('disk')
      .describe('What it is; root is the root file system of a container, with an init in it'),
    path: z
      .string()
      .min(1)
      .max(4096)
      .startsWith('/', 'must be an absolute path')
      .optional()
      .describe('File on the host; either this or a URL is needed'),
    url: z
      .string()
      .max(8192)
      .regex(/^https?:\/\/\S+$/, 'must be an http or https URL')
      .optional()
      .describe(
        'Where the daemon downloads the file; a name and a password in it are used and never shown. Proxies are those of its environment (https_proxy, http_proxy, no_proxy)',
      ),
    certificateAuthorities: certificates.describe(
      "Certificates in PEM that the server of the URL is held against, instead of the host's",
    ),
    format: z
      .enum([...imageSourceFormat.options, ...rootSourceFormats, ...ociSourceFormats])
      .optional()
      .describe(
        'Format of a disk, qcow2 unless given; a VMDK has to be one whole file (monolithicSparse, streamOptimized). A kernel or initial ramdisk is taken as it is. Of kind root, tar: an archive of the whole tree, plain or packed by gzip, xz or zstd. Of kind oci, oci-layout unless given: a directory or a tar archive of one',
      ),
    platform: platform.describe('Of kind oci: as linux/arm64; that of this host unless given'),
    reference: z
      .string()
      .min(1)
      .max(512)
      .optional()
      .describe('Of kind oci: which image, where there are several; the name that it has there'),
    sha256: z
      .string()
      .regex(/^[0-9a-f]{64}$/)
      .optional()
      .describe('Refuse the file unless this is its SHA-256 digest'),
    sha512: z
      .string()
      .regex(/^[0-9a-f]{128}$/)
      .optional()
      .describe('Refuse the file unless this is its SHA-512 digest'),
    ...changing,
  }),
  returns: accepted,
});

export const imagePull = defineCommand({
  name: 'image-pull',
  summary: 'Fetch an OCI image from a registry: a new version of its name',
  description:
    'Every part is held against the digest by which it is named, parts that another image has are not fetched, and what is interrupted goes on where it was. The layers become one read-only disk. Where the newest version is the same image already, nothing is done, and the result says so.',
  role: 'admin',
  nature: 'change',
  since,
  arguments: z.strictObject({
    reference: z
      .string()
      .min(1)
      .max(512)
      .describe(
        'As debian:12, ghcr.io/team/app:v1 or NAME@sha256:…; without a registry Docker Hub, without a tag latest',
      ),
    name: imageName
      .optional()
      .describe('Name of the image here; repository and tag unless given, as debian/12'),
    version: imageVersion.optional().describe('The date of today unless given, as for image-import'),
    platform: platform.describe('As linux/arm64; that of this host unless given'),
    credentials: z
      .strictObject({
        username: z.string().min(1).max(1024),
        password: z.string().min(1).max(65_536),
      })
      .optional()
      .describe('For the registry. Kept in memory alone, until the pull has ended or the daemon does'),
    authFile: z
      .string()
      .max(4096)
      .startsWith('/', 'must be an absolute path')
      .optional()
      .describe("File on the daemon's host that has credentials, in Docker's form (config.json)"),
    certificateAuthorities: certificates.describe(
      "Certificates in PEM that the registry is held against, instead of the host's",
    ),
    plainHttp: z.boolean().optional().describe('Without TLS; unless said, only on the loopback interface'),
    ...changing,
  }),
  returns: accepted,
});

export const imageRecipes = [
  'debian',
  'debian-root',
  'microvm-kernel',
  'microvm-init',
  'microvm-upper',
] as const;

export const imageBuild = defineCommand({
  name: 'image-build',
  summary: 'Build an image out of packages, a new version of its name',
  description:
    "Of the recipe debian a cloud image of Debian by mmdebstrap, from the mirrors that this host's apt uses: systemd, cloud-init, an SSH server, the QEMU guest agent. It boots by its own disk under SeaBIOS and UEFI. Of debian-root the root file system of a container: systemd, which asks for an address on eth0, and little else. Takes a minute or more. The packages' scripts run as root in a chroot with namespaces of its own: whoever signs Debian's packages is trusted.",
  role: 'admin',
  nature: 'change',
  since,
  arguments: z.strictObject({
    recipe: z
      .enum(imageRecipes)
      .describe(
        'debian: a whole system · debian-root: a system without a kernel, the root of a container · microvm-kernel, microvm-init, microvm-upper: what a container image boots by as a microVM, its kernel, its init with the modules of that kernel, and the empty file system that it writes to',
      ),
    suite: z.enum(['bookworm']).default('bookworm').describe('Release of Debian'),
    name: imageName.optional().describe('Name of the image, that of the recipe unless given'),
    version: imageVersion.optional().describe('The date of today unless given, as for image-import'),
    ...changing,
  }),
  returns: accepted,
});

export const imageDelete = defineCommand({
  name: 'image-delete',
  summary: 'Delete a version of an image, or all versions, that no guest needs',
  description:
    'A name with several versions is refused unless one is named or all are asked for. Aliases that mean nothing any more go with it.',
  role: 'admin',
  nature: 'change',
  since,
  arguments: z.strictObject({
    image: imageReference,
    allVersions: z.boolean().default(false).describe('Delete every version of the name'),
    ...changing,
  }),
  returns: accepted,
});

export const imagePrune = defineCommand({
  name: 'image-prune',
  summary: 'Delete the old versions of an image that nobody needs',
  description:
    'Kept are the newest versions, those that guests need, and those that an alias names. The result of the operation lists what was deleted.',
  role: 'admin',
  nature: 'change',
  since,
  arguments: z.strictObject({
    image: imageReference,
    keep: z.int().min(1).max(1000).default(1).describe('How many of the newest versions stay anyway'),
    ...changing,
  }),
  returns: accepted,
});

export const imageAliasSet = defineCommand({
  name: 'image-alias-set',
  summary: 'Give an image a further name, or turn that name to another image',
  description:
    'The alias of a NAME means the newest version of it at any time, that of NAME@VERSION or of an id only that one.',
  role: 'admin',
  nature: 'change',
  since,
  arguments: z.strictObject({
    alias: imageName.describe('The further name'),
    image: imageReference,
    ...changing,
  }),
  returns: accepted,
});

export const imageAliasDelete = defineCommand({
  name: 'image-alias-delete',
  summary: 'Delete the further name of an image; the image stays',
  role: 'admin',
  nature: 'change',
  since,
  arguments: z.strictObject({ alias: imageName.describe('The further name'), ...changing }),
  returns: accepted,
});

export const queryImage = defineCommand({
  name: 'query-image',
  summary: 'Show an image, and what an OCI image wants run',
  role: 'read',
  nature: 'query',
  since,
  arguments: z.strictObject({ image: imageReference }),
  returns: z.strictObject({
    ...imageView.shape,
    config: ociConfig.optional().describe('Of kind oci: what its maker wants run, and how'),
  }),
});

export const queryImages = defineCommand({
  name: 'query-images',
  summary: 'List images',
  description:
    'By name, the newest version first. A plain name in `names` stands for all its versions, an alias for what it means.',
  role: 'read',
  nature: 'query',
  since,
  arguments: z.strictObject({ names: z.array(imageReference).optional(), ...page }),
  returns: z.strictObject({ images: z.array(imageView), next: z.string().optional() }),
});
