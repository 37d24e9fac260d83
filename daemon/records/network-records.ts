/** The records of networks: `<state-dir>/networks/<id>.json`, beside the directory that a network may have there. */
import { readdir, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';
import { ensureDirectory, isMissing, replaceFile, syncDirectory } from '../../lib/durable-files.ts';
import { readOwnFile } from '../../lib/own-file.ts';
import type { HostObject } from '../../protocol/host-object.ts';
import { type NetworkId, networkId } from '../../protocol/types.ts';
import type { KeptRecord } from '../../storage/pool.ts';

const SUFFIX = '.json';
const MAX_RECORD_BYTES = 64 * 1024;

const directoryOf = (stateDirectory: string): string => join(stateDirectory, 'networks');

const pathOf = (stateDirectory: string, id: NetworkId): string =>
  join(directoryOf(stateDirectory), `${networkId.parse(id)}${SUFFIX}`);

export const networkRecordObject = (stateDirectory: string, id: NetworkId): HostObject => ({
  kind: 'file',
  name: pathOf(stateDirectory, id),
});

/** Atomically; durable once it resolves. */
export const writeNetworkRecord = async (
  stateDirectory: string,
  id: NetworkId,
  record: KeptRecord,
): Promise<void> => {
  const directory = directoryOf(stateDirectory);
  await ensureDirectory(directory, 0o755);
  const text = `${JSON.stringify(record, null, 2)}\n`;
  const partialPath = join(directory, `.partial-${id}${SUFFIX}`);
  await replaceFile(pathOf(stateDirectory, id), text, { mode: 0o600, partialPath });
};

/** May be done again. */
export const removeNetworkRecord = async (stateDirectory: string, id: NetworkId): Promise<void> => {
  const path = pathOf(stateDirectory, id);
  await rm(path, { force: true });
  await syncDirectory(dirname(path)).catch((error: unknown) => {
    if (!isMissing(error)) throw error;
  });
};

/** Paths of all that are there. */
export const networkRecordPaths = async (stateDirectory: string): Promise<readonly string[]> => {
  const directory = directoryOf(stateDirectory);
  const names = await readdir(directory).catch((error: unknown) => {
    if (isMissing(error)) return [];
    throw error;
  });
  return names
    .filter((name) => name.endsWith(SUFFIX) && networkId.safeParse(name.slice(0, -SUFFIX.length)).success)
    .map((name) => join(directory, name));
};

/** One record, by its path. Rejects with what is wrong with it. */
export const readNetworkRecord = async (path: string): Promise<KeptRecord> => {
  const text = await readOwnFile(path, MAX_RECORD_BYTES);
  const record = z.looseObject({ id: networkId }).safeParse(JSON.parse(text)).data;
  if (!record) throw new Error('it is no record');
  if (record.id !== basename(path, SUFFIX)) throw new Error(`it is that of ${record.id}`);
  return record;
};

/** The record of a network; undefined where there is none that can be read. */
export const networkRecordOf = async (
  stateDirectory: string,
  id: NetworkId,
): Promise<KeptRecord | undefined> => {
  try {
    return await readNetworkRecord(pathOf(stateDirectory, id));
  } catch {
    return undefined;
  }
};
