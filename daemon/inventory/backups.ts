/**
 * Backups of the database beside its file: one before each change of its layout, `roost.db.layout-<n>.<time>`. A newer
 * one of the same layout takes the place of the older, and only those of the last few layouts are kept.
 */
import { readdirSync, renameSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type Sqlite from 'better-sqlite3';

const KEPT_BACKUPS = 3;

export interface BackedUp {
  readonly path: string;
  readonly layout: number;
  /** As in its name; empty for those of the first versions, which had none. */
  readonly time: string;
}

/** The newest layout first. */
export const backupsOf = (database: string): readonly BackedUp[] => {
  const directory = dirname(database);
  const form = /^\.layout-(\d+)(?:\.(\d{8}T\d{6}Z))?$/;
  return readdirSync(directory)
    .flatMap((name) => {
      if (!name.startsWith(basename(database))) return [];
      const [, layout, time = ''] = form.exec(name.slice(basename(database).length)) ?? [];
      return layout === undefined ? [] : [{ path: join(directory, name), layout: Number(layout), time }];
    })
    .sort((a, b) => b.layout - a.layout || (a.time < b.time ? 1 : -1));
};

const prune = (database: string): void => {
  const all = backupsOf(database);
  const newestOfEach = all.filter(({ layout }, index) => all[index - 1]?.layout !== layout);
  const kept = newestOfEach.slice(0, KEPT_BACKUPS);
  for (const backup of all) if (!kept.includes(backup)) rmSync(backup.path, { force: true });
};

/** A time in the name of a file. */
export const stamp = (at: Date): string => `${at.toISOString().slice(0, 19).replace(/[-:]/g, '')}Z`;

/**
 * Whole under its name or not there at all. `makePrivate` makes the empty file that VACUUM INTO then fills, and which it
 * takes for none. Throws SqliteError, as for a disk that is full.
 */
export const backUp = (db: Sqlite.Database, layout: number, makePrivate: (path: string) => void): void => {
  const part = `${db.name}.backup.part`;
  rmSync(part, { force: true });
  try {
    makePrivate(part);
    db.prepare('VACUUM INTO ?').run(part);
    renameSync(part, `${db.name}.layout-${layout}.${stamp(new Date())}`);
  } finally {
    rmSync(part, { force: true });
  }
  prune(db.name);
};
