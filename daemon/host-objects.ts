/** What of this daemon is on the host, asked of the host itself, in the words of the ledger. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type HostObject, hostObjectKey } from '../protocol/host-object.ts';
import type { InstanceId } from '../protocol/types.ts';
import type { Parts } from './daemon.ts';
import { networkRecordPaths } from './records/network-records.ts';

export interface InstancePlace {
  readonly instance: InstanceId;
  readonly stateDirectory: string;
  readonly runDirectory: string;
}

const guestDirectories = async (stateDirectory: string): Promise<readonly HostObject[]> => {
  const directory = join(stateDirectory, 'guests');
  // Locks of processes lie beside the directories; those are the drivers' to tell of.
  const entries = (await readdir(directory, { withFileTypes: true })).filter((entry) => entry.isDirectory());
  return entries.map(({ name }) => ({ kind: 'directory', name: join(directory, name) }));
};

const networkRecords = async (stateDirectory: string): Promise<readonly HostObject[]> =>
  (await networkRecordPaths(stateDirectory)).map((name) => ({ kind: 'file', name }));

/** Every object once, sorted by its key. */
export const inspectHost = async (
  parts: Pick<Parts, 'drivers' | 'backends' | 'pool' | 'imageStore'>,
  place: InstancePlace,
  signal: AbortSignal,
): Promise<readonly HostObject[]> => {
  const found = await Promise.all([
    guestDirectories(place.stateDirectory),
    networkRecords(place.stateDirectory),
    parts.pool.inspect(),
    parts.imageStore.inspect(),
    ...parts.drivers.map((driver) => driver.inspect(place)),
    ...parts.backends.map((backend) => backend.inspect(place, signal)),
  ]);
  const byKey = new Map(found.flat().map((object) => [hostObjectKey(object), object]));
  return [...byKey.values()].sort((a, b) => (hostObjectKey(a) < hostObjectKey(b) ? -1 : 1));
};
