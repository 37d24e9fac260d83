/** What storage needs of durable files, and the settling of what a tool has made. */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import type { FileAccess } from '../../lib/durable-files.ts';
import { RoostError } from '../../protocol/errors.ts';

export * from '../../lib/durable-files.ts';

/**
 * Gives a file made by a tool its mode and owner and syncs it. Follows no symbolic link and takes only a regular
 * file with one name, so that nothing else can be given away under it.
 */
export const settleFile = async (
  path: string,
  access: FileAccess,
): Promise<{ readonly hostBytes: number }> => {
  await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  const found = await file.stat();
  if (!found.isFile() || found.nlink !== 1) {
    throw new RoostError('HostError', `${path} is no longer the plain file that a tool was to write`, {
      data: { path },
      hint: 'Somebody else writes in this directory, or a tool was made to misbehave: find out before trying again.',
    });
  }
  if (access.owner) await file.chown(access.owner.uid, access.owner.gid);
  await file.chmod(access.mode);
  await file.sync();
  return { hostBytes: (await file.stat()).blocks * 512 };
};
