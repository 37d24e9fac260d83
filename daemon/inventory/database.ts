/**
 * The one connection to the database. Rules it keeps: only this process opens the file, and nothing else in the
 * process does (closing any other descriptor of it would drop SQLite's POSIX locks); acceptance of work is durable
 * (`durably`, synchronous=FULL, grouped per turn of the event loop); everything else survives kill -9 but not a power
 * loss (`soon`, synchronous=NORMAL).
 */
import { chmodSync, closeSync, existsSync, openSync, renameSync, rmSync } from 'node:fs';
import Sqlite from 'better-sqlite3';
import { Histogram } from '../../lib/histogram.ts';
import { working } from '../../lib/loop-watch.ts';
import { RoostError } from '../../protocol/errors.ts';
import { migrations } from './migrations.ts';

interface PendingCommit {
  readonly run: () => unknown;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

/** SQLite's own failures in the words of the contract; anything else unchanged. */
const translated = (error: unknown): unknown => {
  if (!(error instanceof Sqlite.SqliteError)) return error;
  if (error.code.startsWith('SQLITE_FULL') || error.code.startsWith('SQLITE_IOERR'))
    return new RoostError('ResourceExhausted', `The inventory could not be written: ${error.message}`, {
      data: { sqlite: error.code },
      hint: 'Free space in the state directory; running guests are not affected.',
      cause: error,
    });
  if (error.code.startsWith('SQLITE_CORRUPT') || error.code === 'SQLITE_NOTADB')
    return new RoostError('DataLoss', `The inventory is damaged: ${error.message}`, {
      data: { sqlite: error.code },
      hint: 'Stop the daemon and restore a backup of roost.db from the state directory.',
      cause: error,
    });
  return error;
};

const userVersion = (db: Sqlite.Database): number => Number(db.pragma('user_version', { simple: true }));

/** Nobody else's: whoever can open the file can read it all, and by a lock of his own keep us from writing it. */
const FILE_MODE = 0o600;

/**
 * Makes the file before SQLite would make it for everybody; the two beside it get its mode. Before it is opened, because
 * closing a descriptor of it later would drop SQLite's locks.
 */
const ensurePrivate = (path: string): void => {
  if (path === ':memory:') return;
  closeSync(openSync(path, 'a', FILE_MODE));
  for (const file of [path, `${path}-wal`, `${path}-shm`]) if (existsSync(file)) chmodSync(file, FILE_MODE);
};

/** Whole under its name or not there at all. */
const backUp = (db: Sqlite.Database, path: string): void => {
  const part = `${path}.part`;
  rmSync(part, { force: true });
  // VACUUM INTO takes an empty file for none.
  ensurePrivate(part);
  db.prepare('VACUUM INTO ?').run(part);
  renameSync(part, path);
};

/** Brings the layout up to date, after a backup beside the file when it holds an older one. */
export const migrate = (db: Sqlite.Database, steps: readonly string[] = migrations): void => {
  const from = userVersion(db);
  if (from > steps.length)
    throw new RoostError(
      'FailedPrecondition',
      `The inventory was written by a newer Roost (layout ${from}, this one knows ${steps.length})`,
      {
        data: { layout: from, known: steps.length },
        hint: 'Install that version again; a downgrade of the inventory is not possible.',
      },
    );
  if (from === steps.length) return;
  if (from > 0 && !db.memory) {
    const backup = `${db.name}.layout-${from}`;
    if (!existsSync(backup)) backUp(db, backup);
  }
  db.transaction(() => {
    for (const sql of steps.slice(from)) db.exec(sql);
    db.pragma(`user_version = ${steps.length}`);
  })();
};

export class Database {
  readonly sqlite: Sqlite.Database;
  /** Milliseconds that durable commits took. */
  readonly commitMs = new Histogram();
  /** Made once: each call of better-sqlite3's `transaction` builds four functions. */
  readonly #transaction: (work: () => unknown) => unknown;
  #pending: PendingCommit[] = [];
  #closed = false;

  constructor(path: string) {
    ensurePrivate(path);
    this.sqlite = new Sqlite(path, { timeout: 0 });
    try {
      this.sqlite.pragma('journal_mode = WAL');
      this.sqlite.pragma('foreign_keys = ON');
      this.sqlite.pragma('synchronous = NORMAL');
      migrate(this.sqlite);
    } catch (error) {
      this.sqlite.close();
      throw translated(error);
    }
    this.#transaction = this.sqlite.transaction((work: () => unknown) => work());
  }

  prepare<P extends unknown[] | Record<string, unknown>, R>(
    sql: string,
  ): Sqlite.Statement<P extends unknown[] ? P : [P], R> {
    return this.sqlite.prepare<P, R>(sql) as Sqlite.Statement<P extends unknown[] ? P : [P], R>;
  }

  /** Runs `work` in one transaction that survives a crash of the daemon. Synchronous. */
  soon<T>(work: () => T): T {
    try {
      return this.sqlite.inTransaction ? work() : (this.#transaction(work) as T);
    } catch (error) {
      throw translated(error);
    }
  }

  /**
   * Runs `work` in a transaction that also survives a power loss, together with all others asked for in the same turn
   * of the event loop: one fsync for all. `work` must only read and write the database: its transaction may still
   * fail after it returned.
   */
  durably<T>(work: () => T): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (this.#closed) {
        reject(new RoostError('Unavailable', 'The daemon is stopping', { hint: 'Try again when it runs.' }));
        return;
      }
      if (this.#pending.length === 0) setImmediate(() => working('commit', () => this.#commit()));
      this.#pending.push({ run: work, resolve: resolve as (value: unknown) => void, reject });
    });
  }

  #commit(): void {
    const batch = this.#pending;
    if (batch.length === 0) return;
    this.#pending = [];
    const outcomes: { settle: () => void }[] = [];
    const startedAt = performance.now();
    try {
      this.sqlite.pragma('synchronous = FULL');
      this.#transaction(() => {
        for (const commit of batch) outcomes.push(this.#attempt(commit));
      });
    } catch (error) {
      for (const commit of batch) commit.reject(translated(error));
      return;
    } finally {
      this.sqlite.pragma('synchronous = NORMAL');
      this.commitMs.record(performance.now() - startedAt);
    }
    for (const outcome of outcomes) outcome.settle();
  }

  /** One of a batch, in its own savepoint: its failure leaves the others alone. */
  #attempt(commit: PendingCommit): { settle: () => void } {
    try {
      const value = this.#transaction(commit.run);
      return { settle: () => commit.resolve(value) };
    } catch (error) {
      // SQLite itself gave the whole transaction up, as it does when the disk is full: nothing of the batch stands.
      if (!this.sqlite.inTransaction) throw error;
      return { settle: () => commit.reject(translated(error)) };
    }
  }

  close(): void {
    if (this.#closed) return;
    if (this.#pending.length > 0) this.#commit();
    this.#closed = true;
    this.sqlite.close();
  }
}
