/**
 * Manifests and indexes: what a document that a registry sent is, and which image in it is for this host. Pure.
 * Source: OCI image specification 1.1, manifest.md, image-index.md.
 */
import { z } from 'zod';
import { RoostError } from '../../protocol/errors.ts';
import { digest } from './digest.ts';
import { isConfig, isIndex, isManifest, layerCompression } from './media-types.ts';

/** The distribution specification asks registries to take manifests of 4 MiB; nobody needs more. */
export const MAX_MANIFEST_BYTES = 4 * 1024 ** 2;
/** Engines stop at 127. */
const MAX_LAYERS = 512;
const MAX_MANIFESTS = 10_000;

const platformForm = z.object({
  os: z.string().max(64),
  architecture: z.string().max(64),
  variant: z.string().max(64).nullish(),
});

export const descriptorForm = z.object({
  mediaType: z.string().max(255),
  digest,
  size: z.int().nonnegative(),
  platform: platformForm.nullish(),
  annotations: z.record(z.string(), z.string()).nullish(),
});
export type Descriptor = Readonly<z.infer<typeof descriptorForm>>;

export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string | undefined;
}

export type ManifestDocument =
  | { readonly kind: 'index'; readonly manifests: readonly Descriptor[] }
  | { readonly kind: 'manifest'; readonly config: Descriptor; readonly layers: readonly Descriptor[] };

const indexForm = z.object({ manifests: z.array(descriptorForm).max(MAX_MANIFESTS) });
const manifestForm = z.object({ config: descriptorForm, layers: z.array(descriptorForm).max(MAX_LAYERS) });
const anyForm = z.looseObject({
  schemaVersion: z.int().optional(),
  mediaType: z.string().max(255).optional(),
});

export const malformed = (what: string): RoostError =>
  new RoostError('InvalidArgument', `The image cannot be read: ${what}`, {
    data: { flaw: 'malformed' },
    hint: 'Build or push it again; this is nothing that trying again mends.',
  });

const notAnImage = (mediaType: string): RoostError =>
  new RoostError('Unsupported', `${mediaType.slice(0, 255)} is no image that can be run`, {
    data: { flaw: 'media-type', mediaType: mediaType.slice(0, 255) },
    hint: 'A registry holds other things than images, too. Give the reference of an OCI or Docker image (schema 2).',
  });

/** JSON of a stranger. Errors: InvalidArgument. */
export const parseJson = (bytes: Uint8Array, what: string): unknown => {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    throw malformed(`${what} is no JSON`);
  }
};

/**
 * `announced` is the media type by which it was named or sent. A document that could be read both ways is refused
 * (CVE-2021-41190): its digest would not say what it means.
 */
export const parseManifest = (bytes: Uint8Array, announced: string | undefined): ManifestDocument => {
  const value = parseJson(bytes, 'its manifest');
  const any = anyForm.safeParse(value).data;
  if (!any) throw malformed('its manifest is no object');
  if (any.schemaVersion === 1) throw notAnImage('application/vnd.docker.distribution.manifest.v1+json');
  const known =
    announced !== undefined && (isIndex(announced) || isManifest(announced)) ? announced : undefined;
  const mediaType = any.mediaType ?? known;
  if (any.mediaType !== undefined && known !== undefined && isIndex(any.mediaType) !== isIndex(known))
    throw malformed('its manifest was announced as something else than it says to be');
  const [hasManifests, hasLayers] = ['manifests' in any, 'layers' in any || 'config' in any];
  if (hasManifests && hasLayers) throw malformed('its manifest could be read as an index, too');
  if (mediaType !== undefined && !isIndex(mediaType) && !isManifest(mediaType)) throw notAnImage(mediaType);
  return (mediaType === undefined ? hasManifests : isIndex(mediaType)) ? readIndex(any) : readManifest(any);
};

const readIndex = (value: unknown): ManifestDocument => {
  const index = indexForm.safeParse(value).data;
  if (!index) throw malformed('its index is malformed');
  return { kind: 'index', manifests: index.manifests };
};

const readManifest = (value: unknown): ManifestDocument => {
  const manifest = manifestForm.safeParse(value).data;
  if (!manifest) throw malformed('its manifest is malformed');
  const { config, layers } = manifest;
  if (!isConfig(config.mediaType)) throw notAnImage(config.mediaType);
  if (config.size > MAX_MANIFEST_BYTES) throw malformed(`its config has ${config.size} bytes`);
  for (const { mediaType } of layers)
    if (layerCompression(mediaType) === undefined) throw notAnImage(mediaType);
  return { kind: 'manifest', config, layers };
};

export const platformText = ({ os, architecture, variant }: Platform): string =>
  [os, architecture, ...(variant === undefined ? [] : [variant])].join('/');

export const parsePlatform = (text: string): Platform => {
  const [os = '', architecture = '', variant] = text.split('/');
  return { os, architecture, ...(variant === undefined ? {} : { variant }) };
};

/** Variants that a processor of a variant runs too, the best first. Source: containerd, "platforms". */
const variantsFor = ({ architecture, variant }: Platform): readonly (string | undefined)[] => {
  if (architecture === 'arm64') return [variant ?? 'v8', undefined, 'v8'];
  if (architecture === 'arm') {
    const newest = Number(/^v([5-8])$/.exec(variant ?? 'v7')?.[1] ?? 7);
    return [...Array.from({ length: newest - 4 }, (_, index) => `v${newest - index}`), undefined];
  }
  return variant === undefined ? [undefined, 'v1'] : [variant, undefined];
};

/** Whether an image for `offered` is what `wanted` asks for; lower is better, undefined is no. */
const rank = (wanted: Platform, offered: Platform): number | undefined => {
  if (offered.os !== wanted.os || offered.architecture !== wanted.architecture) return undefined;
  const place = variantsFor(wanted).indexOf(offered.variant);
  return place < 0 ? undefined : place;
};

export const runsOn = (wanted: Platform, offered: Platform): boolean => rank(wanted, offered) !== undefined;

const given = (platform: Descriptor['platform']): Platform | undefined =>
  platform
    ? { os: platform.os, architecture: platform.architecture, variant: platform.variant ?? undefined }
    : undefined;

/** What an error names. */
const MAX_NAMED = 40;

/** The manifest of an index for a platform. Errors: InvalidArgument naming those that there are. */
export const choosePlatform = (manifests: readonly Descriptor[], wanted: Platform): Descriptor => {
  const offers = manifests.flatMap((descriptor) => {
    const platform = given(descriptor.platform);
    const place = platform && rank(wanted, platform);
    return place === undefined ? [] : [{ descriptor, place }];
  });
  const best = offers.sort((one, other) => one.place - other.place)[0]?.descriptor;
  // An index may leave it to the config to say what an image is for.
  const silent = manifests.filter(({ platform }) => !platform);
  const [only] = silent;
  if (best) return best;
  if (only && silent.length === 1) return only;
  const platforms = manifests.flatMap(({ platform }) => {
    const offered = given(platform);
    return offered && offered.os !== 'unknown' ? [platformText(offered)] : [];
  });
  throw new RoostError('InvalidArgument', `There is no image for ${platformText(wanted)} in it`, {
    data: { wanted: platformText(wanted), platforms: [...new Set(platforms)].slice(0, MAX_NAMED) },
    hint: 'Name a platform that there is, if it can be run here.',
  });
};
