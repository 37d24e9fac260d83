/** For a file of tests: what container images boot by, and whether a guest was forked. */
import { readFile, rm } from 'node:fs/promises';
import { afterAll, beforeAll } from 'vitest';
import type { GuestView } from '../../protocol/guest.ts';
import { guestImagesTimeoutMs } from '../guests/guest-images.ts';
import { type MicrovmImages, makeMicrovmImages } from './microvm-home.ts';

/** Makes them before the first test of a file, and removes them after its last. */
export const provideMicrovmImages = (): Pick<MicrovmImages, 'importInto'> => {
  let images: MicrovmImages | undefined;
  beforeAll(async () => {
    images = await makeMicrovmImages();
  }, guestImagesTimeoutMs);
  afterAll(async () => {
    if (images) await rm(images.directory, { recursive: true, force: true });
  });
  return {
    importInto: async (daemon) => {
      if (!images) throw new Error('The images are made before the tests of the file, not before that');
      await images.importInto(daemon);
    },
  };
};

/** Whether the guest's process began with memory that it was given. */
export const wasForked = async ({ process }: Pick<GuestView, 'process'>): Promise<boolean> =>
  (await readFile(`/proc/${process?.pid ?? 0}/cmdline`, 'utf8')).split('\0').includes('-incoming');
