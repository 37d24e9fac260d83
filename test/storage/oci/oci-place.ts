/** OCI images in a directory of the test's own, as the throw-away identity where the test may use one. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Work } from '../../../lib/work.ts';
import { launcherPath, splicePath } from '../../../native/index.ts';
import { type OciImagesOptions, ociImages } from '../../../storage/oci/oci-images.ts';
import type { OciImages, OciOrigin, OciRequest } from '../../../storage/pool.ts';
import { work } from '../../conformance/pool.ts';
import { testDirectory } from '../../harness/test-directory.ts';
import { isRoot } from '../scratch-directory.ts';

export interface OciPlace {
  readonly path: string;
  readonly imagesPath: string;
  readonly images: OciImages;
  /** A request for an image of that id, whose directory is made if it has to be. */
  readonly request: (from: OciOrigin, id?: string, platform?: string) => Promise<OciRequest>;
}

/** The throw-away identity, where the test may use one. */
export const IMPORTER = isRoot ? { uid: 2_000_000_112, gid: 2_000_000_112 } : undefined;

export const ociPlaceIn = async (
  path: string,
  changes: Partial<OciImagesOptions> = {},
): Promise<OciPlace> => {
  const imagesPath = join(path, 'images');
  await mkdir(imagesPath, { mode: 0o711 });
  const images = ociImages({
    imagesPath,
    launcherPath: launcherPath(),
    splicePath: splicePath(),
    importer: IMPORTER,
    retryDelayMs: 1,
    stallSeconds: 1,
    ...changes,
  });
  const request: OciPlace['request'] = async (from, id = 'one', platform = 'linux/amd64') => {
    const directory = join(imagesPath, id);
    await mkdir(directory, { recursive: true, mode: 0o700 });
    return { from, platform, directory };
  };
  return { path, imagesPath, images, request };
};

/** In a directory that is removed when the running test ends. */
export const ociPlace = async (changes: Partial<OciImagesOptions> = {}): Promise<OciPlace> =>
  await ociPlaceIn(await testDirectory('oci'), changes);

/** Goes all the way; gives the path of the disk. */
export const bring = async (images: OciImages, request: OciRequest, each: Work = work()): Promise<string> => {
  await images.resolve(request, each);
  await images.fetch(request, each);
  return (await images.merge(request, each)).path;
};
