/**
 * The database's file after it was lost: what is in its place, and a fresh one to be filled. What is there is only read
 * here; it is moved aside by whoever has a new one to put in its place.
 */
import { copyFileSync, existsSync, renameSync, rmSync, statSync } from 'node:fs';
import Sqlite from 'better-sqlite3';
import { RoostError } from '../../protocol/errors.ts';
import { type BackedUp, backupsOf, stamp } from './backups.ts';
import { inventoryFailure } from './database.ts';
import { type Inventory, openInventory } from './inventory.ts';
import { migrations } from './migrations.ts';
import { findDamage } from './soundness.ts';

export interface Diagnosis {
  readonly was: 'lost' | 'damaged' | 'sound';
  /** In words, after "it". */
  readonly why: string;
}

/** What of a database lies beside its file. */
const filesOf = (path: string): readonly string[] => [path, `${path}-wal`, `${path}-shm`];

/** Whether there is an inventory to go on with. Changes nothing. Errors: FailedPrecondition for a newer one. */
export const diagnose = (path: string): Diagnosis => {
  const size = statSync(path, { throwIfNoEntry: false })?.size;
  if (size === undefined) return { was: 'lost', why: 'is not there' };
  if (size === 0) return { was: 'lost', why: 'is empty' };
  try {
    const db = new Sqlite(path, { readonly: true, fileMustExist: true, timeout: 0 });
    try {
      return diagnosisOf(db);
    } finally {
      db.close();
    }
  } catch (error) {
    const told = inventoryFailure(error);
    if (!(told instanceof RoostError) || told.class !== 'DataLoss') throw told;
    return { was: 'damaged', why: `cannot be read: ${told.message}` };
  }
};

const diagnosisOf = (db: Sqlite.Database): Diagnosis => {
  const layout = Number(db.pragma('user_version', { simple: true }));
  if (layout > migrations.length)
    throw new RoostError(
      'FailedPrecondition',
      `The inventory was written by a newer Roost (layout ${layout}, this one knows ${migrations.length})`,
      {
        data: { layout, known: migrations.length },
        hint: 'Install that version again, and use its recover.',
      },
    );
  const damage = findDamage(db, false);
  if (damage !== undefined) return { was: 'damaged', why: `is damaged: ${damage}` };
  const isEmpty = layout === 0 || db.prepare('SELECT 1 FROM operation LIMIT 1').get() === undefined;
  return isEmpty ? { was: 'lost', why: 'holds nothing' } : { was: 'sound', why: 'is sound' };
};

/** Empty of all but the history of a backup, where a sound one is there. */
export interface FreshInventory {
  readonly inventory: Inventory;
  /** Path of the backup. */
  readonly history?: string;
  /** Names of the tokens in the backup; the secrets' hashes are not taken over. */
  readonly tokens: readonly string[];
}

const removeFiles = (path: string): void => {
  for (const file of filesOf(path)) rmSync(file, { force: true });
};

/**
 * Makes a database at `path` for an inventory that is to take the place of `lost`. Operations, their steps and their keys
 * come from the newest backup that is sound. Events do not: their numbers go on far above all that were given, so that
 * whoever resumes is told of the gap.
 */
export const openFresh = (path: string, lost: string, now: number): FreshInventory => {
  for (const backup of backupsOf(lost)) {
    removeFiles(path);
    const inventory = openCopy(backup, path);
    if (inventory === undefined) continue;
    const tokens = inventory.tokens.all().map(({ name }) => name);
    forgetObjects(inventory, now);
    return { inventory, history: backup.path, tokens };
  }
  removeFiles(path);
  const inventory = openInventory(path);
  forgetObjects(inventory, now);
  return { inventory, tokens: [] };
};

const openCopy = (backup: BackedUp, path: string): Inventory | undefined => {
  let inventory: Inventory | undefined;
  try {
    copyFileSync(backup.path, path);
    inventory = openInventory(path, undefined, { backUp: false });
    if (findDamage(inventory.db.sqlite, false) === undefined) return inventory;
  } catch (error) {
    if (
      !(error instanceof RoostError) ||
      (error.class !== 'DataLoss' && error.class !== 'FailedPrecondition')
    )
      throw error;
  }
  inventory?.db.close();
  return undefined;
};

const UNKNOWN_END = JSON.stringify({
  class: 'DataLoss',
  desc: 'The inventory was lost and rebuilt; nobody knows how this operation ended',
});

const forgetObjects = ({ db }: Inventory, now: number): void => {
  db.soon(() => {
    db.sqlite.exec(
      `DELETE FROM guest; DELETE FROM network; DELETE FROM image; DELETE FROM image_alias; DELETE FROM ledger;
       DELETE FROM token; DELETE FROM event; DELETE FROM meta WHERE key IN ('boot-id', 'autostart');
       DELETE FROM sqlite_sequence WHERE name = 'event';`,
    );
    db.prepare<[number], never>("INSERT INTO sqlite_sequence (name, seq) VALUES ('event', ?)").run(now);
    db.prepare<[number, string], never>(
      "UPDATE operation SET state = 'failed', ended_at = ?, error = ? WHERE ended_at IS NULL",
    ).run(now, UNKNOWN_END);
  });
};

/**
 * Puts the finished database at `fresh` in the place of the one at `path`. Whatever lies there is moved aside first, under
 * a dated name, never written to and never removed. Gives the new names.
 */
export const putInPlace = (fresh: string, path: string, now: number): readonly string[] => {
  const base = `${path}.damaged.${stamp(new Date(now))}`;
  let aside = base;
  for (let count = 2; filesOf(aside).some((file) => existsSync(file)); count += 1) aside = `${base}.${count}`;
  const moved = filesOf(path).flatMap((file): readonly string[] => {
    if (!existsSync(file)) return [];
    const to = `${aside}${file.slice(path.length)}`;
    renameSync(file, to);
    return [to];
  });
  renameSync(fresh, path);
  return moved;
};

export const discardFresh = removeFiles;
