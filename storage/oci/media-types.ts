/**
 * Media types of images: OCI's, and Docker's that mean the same. Pure.
 * Source: OCI image specification 1.1, media-types.md; Docker registry, "Image Manifest Version 2, Schema 2".
 */

export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
export const OCI_CONFIG = 'application/vnd.oci.image.config.v1+json';
export const OCI_LAYER = 'application/vnd.oci.image.layer.v1.tar';
const DOCKER = 'application/vnd.docker';
export const DOCKER_INDEX = `${DOCKER}.distribution.manifest.list.v2+json`;
export const DOCKER_MANIFEST = `${DOCKER}.distribution.manifest.v2+json`;
export const DOCKER_CONFIG = `${DOCKER}.container.image.v1+json`;

/** How the archive of a layer is packed. */
export type LayerCompression = 'none' | 'gzip' | 'zstd';

export const isIndex = (mediaType: string): boolean => mediaType === OCI_INDEX || mediaType === DOCKER_INDEX;
export const isManifest = (mediaType: string): boolean =>
  mediaType === OCI_MANIFEST || mediaType === DOCKER_MANIFEST;
export const isConfig = (mediaType: string): boolean =>
  mediaType === OCI_CONFIG || mediaType === DOCKER_CONFIG;

/** What a registry is asked for, the plainest words for what we take. */
export const acceptedManifests: readonly string[] = [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST];

const compressions: Readonly<Record<string, LayerCompression>> = {
  '': 'none',
  '+gzip': 'gzip',
  '.gzip': 'gzip',
  '+zstd': 'zstd',
  '.zstd': 'zstd',
};

/** How a layer is packed; undefined when it is no layer that we know. */
export const layerCompression = (mediaType: string): LayerCompression | undefined => {
  const [, suffix] =
    /^application\/vnd\.oci\.image\.layer\.(?:nondistributable\.)?v1\.tar(.*)$/.exec(mediaType) ??
    /^application\/vnd\.docker\.image\.rootfs\.(?:foreign\.)?diff\.tar(.*)$/.exec(mediaType) ??
    [];
  return suffix === undefined || !Object.hasOwn(compressions, suffix) ? undefined : compressions[suffix];
};

/** A media type without its parameters, as servers send it in Content-Type. */
export const plainType = (contentType: string | undefined): string | undefined =>
  contentType?.split(';')[0]?.trim().toLowerCase();
