/**
 * What serves directories of the host to a guest: a virtiofsd each, which the launcher makes and which ends with QEMU
 * (launcher/directories.c). All of one guest hold one lock, from before QEMU is there until the last of them is gone, and
 * each stands in the locked file by its number. Here it is seen to that none outlives its guest, and told when one does
 * not live as long.
 */
import { existsSync, readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { deadline, waitOrAbort } from '../../lib/abort.ts';
import { nextTurn } from '../../lib/turn.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { GuestPlace, ProcessIdentity } from '../driver.ts';
import { directoriesLockPath } from '../processes/guest-files.ts';
import { GuestProcess } from '../processes/guest-process.ts';
import { lockHolder, parseHolder, probeLock, takeLock } from '../processes/process-lock.ts';
import { filesystemName } from './machine.ts';

/** How long one whose guest is gone may take to finish by itself. */
const FINISH_MS = 2_000;
/** How long one that was killed may take to be gone. */
const END_MS = 10_000;

/** The lines of the launcher; the file is root's, and so are those who have it open. */
const serversOf = (
  place: GuestPlace,
): readonly { readonly name: string; readonly process: ProcessIdentity }[] => {
  let text: string;
  try {
    text = readFileSync(directoriesLockPath(place), 'utf8');
  } catch {
    return [];
  }
  return text.split('\n').flatMap((line) => {
    const [, index, identity] = /^(\d{1,2}) (.+)$/.exec(line) ?? [];
    const process = identity === undefined ? undefined : parseHolder(`${identity}\n`);
    return process === undefined ? [] : [{ name: filesystemName(Number(index)), process }];
  });
};

/** Calls back once for each that is gone, by the name of its file system, until it is closed. */
export const watchDirectoryServers = async (
  place: GuestPlace,
  onGone: (name: string) => void,
): Promise<{ readonly close: () => void }> => {
  const watched: GuestProcess[] = [];
  for (const { name, process } of serversOf(place)) {
    const server = await GuestProcess.adopt(process, place.runDirectory);
    if (server) {
      watched.push(server);
      void server.gone.then(() => onGone(name));
    } else onGone(name);
  }
  return {
    close: () => {
      for (const server of watched) server.close();
    },
  };
};

const finish = async (place: GuestPlace): Promise<void> => {
  using limit = deadline(FINISH_MS);
  for (const { process } of serversOf(place)) {
    const server = await GuestProcess.adopt(process, place.runDirectory);
    await (server && waitOrAbort(server.gone, limit.signal).catch(() => undefined));
    server?.close();
  }
};

/** The process that was made, or the one that it has made in turn: each holds the lock. */
const killHolder = async (place: GuestPlace, signal: AbortSignal): Promise<void> => {
  const holder = await lockHolder(directoriesLockPath(place));
  const server = holder && (await GuestProcess.adopt(holder, place.runDirectory));
  // Gone between the two looks, or about to be.
  if (!server) return await nextTurn();
  try {
    server.killNow();
    await waitOrAbort(server.gone, signal).catch(() => {
      throw stuck(place, holder);
    });
  } finally {
    server.close();
  }
};

/**
 * Once the guest's process is gone: resolves when nothing serves it any more; what does not end by itself is ended. May be
 * done again. Errors: HostError when it cannot be ended.
 */
export const endDirectoryServers = async (place: GuestPlace): Promise<void> => {
  const path = directoriesLockPath(place);
  if (!existsSync(path)) return;
  if ((await probeLock(path)) !== 'gone') await finish(place);
  using limit = deadline(END_MS);
  while ((await probeLock(path)) !== 'gone') {
    if (limit.signal.aborted) throw stuck(place);
    await killHolder(place, limit.signal);
  }
  await rm(path, { force: true });
};

/** For the servers of a new process, by whoever has its lock. Errors: HostError while those of a former one live. */
export const takeDirectoriesLock = async (place: GuestPlace): Promise<number> => {
  await endDirectoryServers(place);
  const lock = takeLock(directoriesLockPath(place));
  if (lock === 'held') throw stuck(place);
  return lock;
};

const stuck = (place: GuestPlace, holder?: ProcessIdentity): RoostError =>
  new RoostError(
    'HostError',
    `What serves directories to guest ${place.id} does not end${holder === undefined ? '' : `: process ${holder.pid}`}`,
    {
      data: { guest: place.id, ...(holder === undefined ? {} : { pid: holder.pid }) },
      hint: 'It may wait for storage that hangs. Once it is gone, fsck-repair clears the rest away.',
    },
  );
