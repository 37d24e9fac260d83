/** Guests of a few hundred bytes in a daemon: their images, and the least spec that boots them. */
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { GuestSpecInput } from '../../protocol/guest.ts';
import { MEBIBYTE } from '../../protocol/types.ts';
import { type BootSectorBehaviour, bootSectorDisk } from '../guests/boot-sector.ts';
import type { RealDaemon } from './real-daemon.ts';
import { makeDirectory } from './test-directory.ts';

/** Imports the boot sector of a behaviour under its own name. */
export const importBootSector = async (daemon: RealDaemon, behaviour: BootSectorBehaviour): Promise<void> => {
  const directory = await makeDirectory('boot-sector');
  const path = join(directory, `${behaviour}.raw`);
  await writeFile(path, bootSectorDisk(behaviour));
  await daemon.succeed('image-import', { name: behaviour, path, format: 'raw' });
  await rm(directory, { recursive: true });
};

/** A guest that boots a boot sector under TCG. */
export const tinyGuest = (
  name: string,
  behaviour: BootSectorBehaviour,
  more: Partial<GuestSpecInput> = {},
): GuestSpecInput => ({
  name,
  memoryBytes: 16 * MEBIBYTE,
  disks: [{ image: behaviour }],
  qemu: { accel: 'tcg' },
  ...more,
});
