/** What of this driver is on the host, by the names that its guests' files have. */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { HostObject } from '../../protocol/host-object.ts';
import { isLockName, runFiles } from './guest-files.ts';
import { probeLock } from './process-lock.ts';

/** Processes, by their locks in the directory of all guests' states. */
export const inspectLocks = async (guests: string): Promise<readonly HostObject[]> => {
  const objects: HostObject[] = [];
  for (const name of (await readdir(guests).catch(() => [])).filter(isLockName)) {
    const path = join(guests, name);
    // Left by a process that is gone, it is a file and no more.
    const kind = (await probeLock(path)) === 'gone' ? 'file' : 'process';
    objects.push({ kind, name: path });
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
