/** Finds the records that lie beside files, and looks at each before it is believed. Reads only. */
import { stat } from 'node:fs/promises';
import type { z } from 'zod';
import { type ImageId, imageId } from '../../protocol/types.ts';
import { issuesOf } from '../../protocol/wire.ts';
import type { ImageStore, KeptRecord, KeptRecords, Pool, StoredImage } from '../../storage/pool.ts';
import {
  type GuestForm,
  guestForm,
  type ImageForm,
  imageForm,
  type NetworkForm,
  networkForm,
} from '../records/forms.ts';
import { networkRecordPaths, readNetworkRecord } from '../records/network-records.ts';

export interface RecordsOnDisk {
  readonly guests: readonly GuestForm[];
  readonly networks: readonly NetworkForm[];
  readonly images: readonly ImageForm[];
  readonly files: ReadonlyMap<ImageId, StoredImage>;
  readonly leftOut: readonly { readonly what: string; readonly path?: string; readonly why: string }[];
}

interface Sources {
  readonly pool: Pool;
  readonly imageStore: ImageStore;
  readonly stateDirectory: string;
}

type LeftOut = RecordsOnDisk['leftOut'][number];

/** Records of one kind in their form; the others with what is wrong. */
const inForm = <T>(
  kind: string,
  form: z.ZodType<T>,
  { records, unreadable }: KeptRecords,
  leftOut: LeftOut[],
): readonly T[] => {
  for (const { path, why } of unreadable) leftOut.push({ what: `record of a ${kind}`, path, why });
  return records.flatMap((record) => {
    const parsed = form.safeParse(record);
    if (parsed.success) return [parsed.data];
    const [first] = issuesOf(parsed.error);
    const why = `its record has not the form of one: ${first?.path ?? ''} ${first?.message ?? ''}`.trim();
    leftOut.push({ what: `${kind} ${String(record['id'])}`, why });
    return [];
  });
};

const networkRecords = async (stateDirectory: string): Promise<KeptRecords> => {
  const records: KeptRecord[] = [];
  const unreadable: { readonly path: string; readonly why: string }[] = [];
  for (const path of await networkRecordPaths(stateDirectory)) {
    try {
      records.push(await readNetworkRecord(path));
    } catch (error) {
      unreadable.push({ path, why: error instanceof Error ? error.message : String(error) });
    }
  }
  return { records, unreadable };
};

const imageFiles = async (store: ImageStore): Promise<ReadonlyMap<ImageId, StoredImage>> => {
  const files = new Map<ImageId, StoredImage>();
  for (const { name } of await store.inspect()) {
    const id = imageId.safeParse(name.slice(name.lastIndexOf('/') + 1)).data;
    const stored = id && (await store.stored(id));
    if (id && stored) files.set(id, stored);
  }
  return files;
};

const READABLE_BY_ALL = 0o444;

/**
 * What the record gives to the guest must be what anybody may read: a template of firmware variables is copied for it.
 * Firmware that is not there is told at the start of the guest.
 */
const forbiddenFirmware = async ({ machine: { firmware } }: GuestForm): Promise<string | undefined> => {
  for (const path of firmware ? [firmware.codePath, firmware.variablesTemplatePath] : []) {
    const found = await stat(path).catch(() => undefined);
    if (found && !(found.isFile() && (found.mode & READABLE_BY_ALL) === READABLE_BY_ALL)) return path;
  }
  return undefined;
};

const withPermittedFirmware = async (
  guests: readonly GuestForm[],
  leftOut: LeftOut[],
): Promise<readonly GuestForm[]> => {
  const permitted: GuestForm[] = [];
  for (const guest of guests) {
    const path = await forbiddenFirmware(guest);
    if (path === undefined) permitted.push(guest);
    else
      leftOut.push({
        what: `guest ${guest.name} (${guest.id})`,
        why: `its record names ${path} as firmware, which not everybody may read`,
      });
  }
  return permitted;
};

/** Places among the volumes in which no record is. */
const withoutRecord = async (pool: Pool, ofGuests: KeptRecords): Promise<readonly LeftOut[]> => {
  const known = new Set(ofGuests.records.map(({ id }) => id));
  return (await pool.inspect())
    .map(({ name }) => name)
    .filter((name) => !known.has(name.slice(name.lastIndexOf('/') + 1)))
    .filter((name) => ofGuests.unreadable.every(({ path }) => !path.startsWith(`${name}/`)))
    .map((path) => ({ what: 'disks of a guest', path, why: 'there is no record beside them' }));
};

export const findRecords = async ({ pool, imageStore, stateDirectory }: Sources): Promise<RecordsOnDisk> => {
  const [ofGuests, ofImages, ofNetworks, files] = await Promise.all([
    pool.readRecords(),
    imageStore.readRecords(),
    networkRecords(stateDirectory),
    imageFiles(imageStore),
  ]);
  const leftOut: LeftOut[] = [...(await withoutRecord(pool, ofGuests))];
  const guests = inForm('guest', guestForm, ofGuests, leftOut);
  return {
    networks: inForm('network', networkForm, ofNetworks, leftOut),
    images: inForm('image', imageForm, ofImages, leftOut),
    guests: await withPermittedFirmware(guests, leftOut),
    files,
    leftOut,
  };
};
