/** The config of an image that is kept here, from the layout beside its disk. */
import type { OciConfig } from '../../protocol/oci.ts';
import { isMissing } from '../files/durable-files.ts';
import { BlobDirectory } from './blob-directory.ts';
import { parseImageConfig } from './image-config.ts';
import { parseManifest } from './manifest.ts';

/** Undefined where the directory of an image has none. */
export const configIn = async (directory: string): Promise<OciConfig | undefined> => {
  const blobs = new BlobDirectory(directory, { imagesPath: directory });
  try {
    const chosen = await blobs.chosen();
    const manifest = chosen && parseManifest(await blobs.read(chosen.digest), chosen.mediaType);
    if (manifest?.kind !== 'manifest') return undefined;
    return parseImageConfig(await blobs.read(manifest.config.digest)).config;
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
};
