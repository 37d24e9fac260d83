/** Whether this host has the programs that `mergeLayers` runs. */
import { access, constants } from 'node:fs/promises';
import { RoostError } from '../../../protocol/errors.ts';
import { orIfMissing } from '../../files/durable-files.ts';

/** Each with its Debian package. */
const programs: Readonly<Record<string, string>> = {
  '/usr/bin/sqfstar': 'squashfs-tools',
  '/usr/bin/zstd': 'zstd',
};

/** Errors: Unsupported with what is missing. */
export const refuseMissingMergePrograms = async (): Promise<void> => {
  const missing: string[] = [];
  for (const [path, name] of Object.entries(programs))
    if (
      !(await orIfMissing(
        access(path, constants.X_OK).then(() => true),
        false,
      ))
    )
      missing.push(name);
  if (missing.length === 0) return;
  throw new RoostError('Unsupported', `Programs that make disks of images are missing`, {
    data: { packages: missing },
    hint: `On Debian: apt-get install ${missing.join(' ')}`,
  });
};
