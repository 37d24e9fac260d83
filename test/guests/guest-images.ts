/**
 * The Linux guests that tests boot. Built once into `.cache/guest-images` of this checkout (or into
 * ROOST_GUEST_IMAGES), then shared by all tests, test workers and `make run`.
 */
import { resolve } from 'node:path';
import type { SmallImage } from '../../tools/small-image/build-small-image.ts';
import { ensureSmallImage } from '../../tools/small-image/ensure-small-image.ts';

/** How long a test that may be the first to ask should allow: a build is a download and a few seconds. */
export const guestImagesTimeoutMs = 180_000;

/**
 * Paths of the images. They are shared: attach `smallDisk` only through an overlay or with `snapshot=on`.
 * Throws RoostError with the line to run if Debian's packages can't be had.
 */
export async function guestImages(signal?: AbortSignal): Promise<SmallImage> {
  const directory =
    process.env['ROOST_GUEST_IMAGES'] ?? resolve(import.meta.dirname, '../../.cache/guest-images');
  return await ensureSmallImage({ directory, ...(signal === undefined ? {} : { signal }) });
}
