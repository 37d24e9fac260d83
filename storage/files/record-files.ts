/** Records beside what they are about: one JSON file under the same name in each of many directories named by an id. */
import { lstat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { readOwnFile } from '../../lib/own-file.ts';
import type { KeptRecord, KeptRecords } from '../pool.ts';
import { isMissing } from './durable-files.ts';

/** No record is nearly as large. */
const MAX_RECORD_BYTES = 1024 ** 2;

const isObject = (value: unknown): value is KeptRecord =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const parse = (text: string): KeptRecord => {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Error('it is no JSON');
  }
  if (!isObject(value)) throw new Error('it is no record');
  return value;
};

/** Undefined where there is none. Rejects with what is wrong with it. */
const readRecordIn = async (directory: string, name: string): Promise<KeptRecord | undefined> => {
  try {
    if (!(await lstat(directory)).isDirectory()) throw new Error('its directory is none');
    const record = parse(await readOwnFile(join(directory, name), MAX_RECORD_BYTES));
    const { id = basename(directory) } = record;
    if (id !== basename(directory)) throw new Error(`it is that of ${String(id)}`);
    return record;
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
};

/** Those found in directories, each named by an id. */
export const readRecordsIn = async (directories: readonly string[], name: string): Promise<KeptRecords> => {
  const records: KeptRecord[] = [];
  const unreadable: { readonly path: string; readonly why: string }[] = [];
  for (const directory of directories) {
    try {
      const record = await readRecordIn(directory, name);
      if (record !== undefined) records.push(record);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      unreadable.push({ path: join(directory, name), why });
    }
  }
  return { records, unreadable };
};
