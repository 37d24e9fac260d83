/** What of this driver is on the host, by the names that its guests' files have. */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { HostObject } from '../../protocol/host-object.ts';
import { isLockName, lockBeside, runFiles } from './guest-files.ts';
import { probeLock } from './process-lock.ts';

/** Processes, by their locks in the directory of all guests' states. */
export const inspectLocks = async (guests: string): Promise<readonly HostObject[]> => {
  const objects: HostObject[] = [];
  for (const name of (await readdir(guests).catch(() => [])).filter(isLockName)) {
    const path = join(guests, name);
    const isHeld = (await probeLock(path)) !== 'gone';
    const ofGuest = lockBeside(path);
    // Of directories that are served no more to a guest that lives: it goes with the guest.
    if (!isHeld && ofGuest !== undefined && (await probeLock(ofGuest)) !== 'gone') continue;
    // Left by a process that is gone, it is a file and no more.
    objects.push({ kind: isHeld ? 'process' : 'file', name: path });
  }
  return objects;
};

/** Sockets, in the directory of all guests' run directories. */
export const inspectSockets = async (guests: string): Promise<readonly HostObject[]> => {
  const objects: HostObject[] = [];
  for (const name of await readdir(guests).catch(() => [])) {
    const runDirectory = join(guests, name);
    for (const path of runFiles(runDirectory)) {
      const found = await stat(path).catch(() => undefined);
      if (found?.isSocket() === true) objects.push({ kind: 'socket', name: path });
    }
  }
  return objects;
};
