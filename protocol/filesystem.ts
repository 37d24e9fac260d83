/**
 * Directories of the host in a guest, mounted by its init: shared by virtiofs, as libvirt's `filesystem` element of type mount
 * has them, or copied to a disk of the guest.
 */
import { z } from 'zod';
import { deviceName, millisecondsSinceEpoch } from './types.ts';

/** More has no use that one directory above them would not serve; see also MAX_DIRECTORIES of the launcher. */
export const MOST_FILESYSTEMS = 16;

/** PATH_MAX of Linux, with the byte that ends it. */
const LONGEST_PATH = 4095;

/** What the guest's kernel and init have for themselves. */
const OWN_PATHS = ['/proc', '/sys', '/dev'] as const;

const isBelow = (path: string, above: string): boolean => path === above || path.startsWith(`${above}/`);

const hostPath = z
  .string()
  .max(LONGEST_PATH)
  .startsWith('/', 'must be absolute')
  .regex(/^[^\0]*$/, 'must not hold NUL');

/** In one spelling, so that two that are the same are seen to be. */
const guestPath = hostPath
  .refine(
    (path) =>
      path === '/' ||
      path
        .slice(1)
        .split('/')
        .every((part) => part !== '' && part !== '.' && part !== '..'),
    'must have no empty part, no . and no ..',
  )
  .refine((path) => path !== '/', 'must not be /: that is the image')
  .refine(
    (path) => !OWN_PATHS.some((own) => isBelow(path, own)),
    `must not be in ${OWN_PATHS.join(', ')}, which the guest has for itself`,
  );

const place = {
  source: hostPath.describe('A directory of the host'),
  target: guestPath.describe('Where it is in the guest; made if it is missing'),
} as const;

export const filesystemSpec = z.strictObject({
  ...place,
  readOnly: z.boolean().default(false).describe('Nobody in the guest can write to it'),
  mode: z
    .enum(['auto', 'share', 'copy'])
    .default('auto')
    .describe(
      'share: the directory itself, by virtiofs. copy: a disk with what it holds when the guest is made; what is written in the guest does not come back. auto: shared where that can be had, else copied, with a warning',
    ),
});
export type FilesystemSpec = z.output<typeof filesystemSpec>;
export type FilesystemSpecInput = z.input<typeof filesystemSpec>;

export const filesystems = z
  .array(filesystemSpec)
  .max(MOST_FILESYSTEMS)
  .refine(
    (all) => new Set(all.map(({ target }) => target)).size === all.length,
    'must each have another target',
  )
  .default([])
  .describe(
    'Directories of the host, which a guest with a program mounts; administrators only. A guest that shares one boots and is not forked',
  );

const filesystemView = z.strictObject({
  ...place,
  readOnly: z.boolean(),
  mode: z.enum(['share', 'copy']).describe('copy: what is written in the guest does not come back'),
  name: deviceName.describe('By which the guest mounts it; of a copy the name of its disk'),
  lostAt: millisecondsSinceEpoch
    .optional()
    .describe(
      'When what serves it was found to have ended, while the guest runs: its files are out of reach',
    ),
});

export const filesystemViews = z
  .array(filesystemView)
  .optional()
  .describe('Directories of the host in it; absent where there are none');
