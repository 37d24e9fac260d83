/**
 * Whether the database's file is whole, looked at before anything is read from it. After an end that was no clean one all
 * of it is looked through; else only what is small and what nothing works without, because the journal and the events
 * would hold up every start. Damage in those is found when they are used.
 */
import { statSync } from 'node:fs';
import type Sqlite from 'better-sqlite3';

/** Large, and of the past. */
const HISTORY = ['event', 'operation', 'step'];

/** What `quick_check` says, if it is not that all is well. */
const complaint = (db: Sqlite.Database, pragma: string): string | undefined => {
  const said = String(db.pragma(pragma, { simple: true }));
  return said === 'ok' ? undefined : said.replace(/\n/g, ' ');
};

/** The file is shorter than its own header says. Only for one without a write-ahead log, which may hold the rest. */
const cutShort = (db: Sqlite.Database): string | undefined => {
  const number = (pragma: string): number => Number(db.pragma(pragma, { simple: true }));
  const wanted = number('page_count') * number('page_size');
  const { size } = statSync(db.name);
  return size < wanted ? `it has ${size} bytes, and ${wanted} are its own` : undefined;
};

/** What is wrong with the file. Throws SqliteError where even that cannot be read. */
export const findDamage = (db: Sqlite.Database, endedCleanly: boolean): string | undefined => {
  if (!endedCleanly) return complaint(db, 'quick_check(1)');
  const cut = db.memory ? undefined : cutShort(db);
  if (cut !== undefined) return cut;
  const tables = db
    .prepare<[string], { name: string }>(
      `SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
         AND name NOT IN (SELECT value FROM json_each(?))`,
    )
    .all(JSON.stringify(HISTORY));
  for (const { name } of tables) {
    const said = complaint(db, `quick_check("${name}")`);
    if (said !== undefined) return said;
  }
  return undefined;
};
