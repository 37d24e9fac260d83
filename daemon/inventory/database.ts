/**
 * The one connection to the database. Rules it keeps: only this process opens the file, and nothing else in the
 * process does (closing any other descriptor of it would drop SQLite's POSIX locks); acceptance of work is durable
 * (`durably`, synchronous=FULL, grouped per turn of the event loop); everything else survives kill -9 but not a power
 * loss (`soon`, synchronous=NORMAL).
 */
import { chmodSync, closeSync, existsSync, openSync, statSync } from 'node:fs';
import Sqlite from 'better-sqlite3';
import { Histogram } from '../../lib/histogram.ts';
import { working } from '../../lib/loop-watch.ts';
import { daemonStopping, type ErrorData, RoostError } from '../../protocol/errors.ts';
import { backUp, backupsOf } from './backups.ts';
import { migrations } from './migrations.ts';
import { findDamage } from './soundness.ts';

interface PendingCommit {
  readonly run: () => unknown;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

/** SQLite's own failures in the words of the contract; anything else unchanged. */
export const inventoryFailure = (error: unknown): unknown => {
  if (!(error instanceof Sqlite.SqliteError)) return error;
  // With a full disk SQLite says either, by what it was about; the second also when the disk itself fails.
  if (error.code.startsWith('SQLITE_FULL') || error.code.startsWith('SQLITE_IOERR'))
    return full(error.message, error, { sqlite: error.code });
  if (error.code.startsWith('SQLITE_CORRUPT') || error.code === 'SQLITE_NOTADB')
    return new RoostError('DataLoss', `The inventory is damaged: ${error.message}`, {
      data: { sqlite: error.code },
      hint: 'Guests run on. Stop the daemon: its next start says what there is to put back.',
      cause: error,
    });
  if (error.code.startsWith('SQLITE_READONLY') || error.code.startsWith('SQLITE_CANTOPEN'))
    return notWritable(error.message, error);
  return error;
};

const notWritable = (why: string, cause: unknown): RoostError =>
  new RoostError('HostError', `The inventory cannot be written: ${why}`, {
    hint: 'Mount its file system for writing, and let the file belong to the daemon; running guests are not affected.',
    cause,
  });

/** The file cannot be used as it is; what the next step is, with the names of what there is. */
const damaged = (path: string, why: string, cause?: unknown): RoostError => {
  const backups = path === ':memory:' ? [] : backupsOf(path).map((backup) => backup.path);
  const [newest] = backups;
  const from = newest === undefined ? 'a backup of your own' : newest;
  return new RoostError('DataLoss', `The inventory ${path} is damaged: ${why}`, {
    data: { path, backups },
    hint: `Guests run on, and nothing was changed. 'roost recover' rebuilds it from the records beside disks and images and keeps the damaged file; or move ${path} and the files beside it that end in -wal and -shm away and put back ${from}, in which what was made since is missing.`,
    ...(cause === undefined ? {} : { cause }),
  });
};

/** A failure of the opening in the words of the contract. */
const openingFailure = (error: unknown, path: string): unknown => {
  const told = inventoryFailure(error);
  if (told instanceof RoostError && told.class === 'DataLoss' && told.data?.['path'] === undefined)
    return damaged(path, error instanceof Error ? error.message : String(error), error);
  if (!(error instanceof Error) || !('code' in error) || !('syscall' in error)) return told;
  return error.code === 'ENOSPC' || error.code === 'EDQUOT'
    ? full(error.message, error)
    : notWritable(error.message, error);
};

const full = (why: string, cause: unknown, data: ErrorData = {}): RoostError =>
  new RoostError('ResourceExhausted', `The inventory could not be written: ${why}`, {
    data,
    hint: 'Free space in the state directory, or see in the log of the kernel what its disk suffers from; running guests are not affected.',
    cause,
  });

/** Lets a statement tell its failures in the words of the contract, wherever it is run. */
const tell = (statement: Record<'run' | 'get' | 'all', (...values: never[]) => unknown>): void => {
  for (const name of ['run', 'get', 'all'] as const) {
    const native = statement[name].bind(statement) as (...values: readonly unknown[]) => unknown;
    const value = (...values: readonly unknown[]): unknown => {
      try {
        return native(...values);
      } catch (error) {
        throw inventoryFailure(error);
      }
    };
    Object.defineProperty(statement, name, { value });
  }
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

/** SQLite takes its write-ahead log away when it is closed: one that is there tells of an end that was no clean one. */
const hasContent = (path: string): boolean => (statSync(path, { throwIfNoEntry: false })?.size ?? 0) > 0;

export interface OpeningOptions {
  /** False for a file that is a copy itself. True unless given. */
  readonly backUp?: boolean;
}

/** Brings the layout up to date, after a backup beside the file when it holds an older one. */
export const migrate = (
  db: Sqlite.Database,
  steps: readonly string[] = migrations,
  { backUp: wanted = true }: OpeningOptions = {},
): void => {
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
  if (from > 0 && !db.memory && wanted) backUp(db, from, ensurePrivate);
  db.transaction(() => {
    for (const sql of steps.slice(from)) db.exec(sql);
    db.pragma(`user_version = ${steps.length}`);
  })();
  // A package that is older reads the layout in the head of the file itself, before it replaces what could ask SQLite.
  db.pragma('wal_checkpoint(TRUNCATE)');
};

export class Database {
  readonly sqlite: Sqlite.Database;
  /** Milliseconds that durable commits took. */
  readonly commitMs = new Histogram();
  /** Made once: each call of better-sqlite3's `transaction` builds four functions. */
  readonly #transaction: (work: () => unknown) => unknown;
  #pending: PendingCommit[] = [];
  /** What is to be told once the transaction under way stands. */
  #afterwards: (() => void)[] = [];
  /** What stands and is being told, in its order: telling may write, and have more to tell. */
  readonly #standing: (() => void)[] = [];
  #telling = false;
  #closed = false;

  /** Errors: FailedPrecondition for a newer file, DataLoss for a damaged one, ResourceExhausted, HostError. */
  constructor(path: string, options: OpeningOptions = {}) {
    try {
      const endedCleanly = !hasContent(`${path}-wal`);
      ensurePrivate(path);
      this.sqlite = new Sqlite(path, { timeout: 0 });
      this.#prepare(path, endedCleanly, options);
    } catch (error) {
      throw openingFailure(error, path);
    }
    this.#transaction = this.sqlite.transaction((work: () => unknown) => work());
  }

  #prepare(path: string, endedCleanly: boolean, options: OpeningOptions): void {
    try {
      this.sqlite.pragma('journal_mode = WAL');
      this.sqlite.pragma('foreign_keys = ON');
      this.sqlite.pragma('synchronous = NORMAL');
      const damage = findDamage(this.sqlite, endedCleanly);
      if (damage !== undefined) throw damaged(path, damage);
      migrate(this.sqlite, migrations, options);
    } catch (error) {
      this.sqlite.close();
      throw error;
    }
  }

  /** Errors of the statement when it runs: as `inventoryFailure` tells them. */
  prepare<P extends unknown[] | Record<string, unknown>, R>(
    sql: string,
  ): Sqlite.Statement<P extends unknown[] ? P : [P], R> {
    const statement = this.sqlite.prepare<P, R>(sql) as Sqlite.Statement<P extends unknown[] ? P : [P], R>;
    tell(statement);
    return statement;
  }

  get inTransaction(): boolean {
    return this.sqlite.inTransaction;
  }

  /** Runs `work` in one transaction that survives a crash of the daemon. Synchronous. */
  soon<T>(work: () => T): T {
    try {
      if (this.sqlite.inTransaction) return work();
      const value = this.#transaction(work) as T;
      this.#tellWhatStands();
      return value;
    } catch (error) {
      this.#afterwards = [];
      throw inventoryFailure(error);
    }
  }

  /**
   * Calls `tell` once what the transaction under way has written stands, at once without one; never when it fails. For
   * what others are told: nobody shall hear of what was taken back. `tell` must not throw.
   */
  afterwards(tell: () => void): void {
    this.#afterwards.push(tell);
    if (!this.sqlite.inTransaction) this.#tellWhatStands();
  }

  #tellWhatStands(): void {
    this.#standing.push(...this.#afterwards.splice(0));
    if (this.#telling) return;
    this.#telling = true;
    try {
      for (let tell = this.#standing.shift(); tell; tell = this.#standing.shift()) tell();
    } finally {
      this.#telling = false;
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
        reject(daemonStopping());
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
      this.#afterwards = [];
      for (const commit of batch) commit.reject(inventoryFailure(error));
      return;
    } finally {
      this.sqlite.pragma('synchronous = NORMAL');
      this.commitMs.record(performance.now() - startedAt);
    }
    this.#tellWhatStands();
    for (const outcome of outcomes) outcome.settle();
  }

  /** One of a batch, in its own savepoint: its failure leaves the others alone. */
  #attempt(commit: PendingCommit): { settle: () => void } {
    const toldBefore = this.#afterwards.length;
    try {
      const value = this.#transaction(commit.run);
      return { settle: () => commit.resolve(value) };
    } catch (error) {
      // SQLite itself gave the whole transaction up, as it does when the disk is full: nothing of the batch stands.
      if (!this.sqlite.inTransaction) throw error;
      this.#afterwards.length = toldBefore;
      return { settle: () => commit.reject(inventoryFailure(error)) };
    }
  }

  close(): void {
    if (this.#closed) return;
    if (this.#pending.length > 0) this.#commit();
    this.#closed = true;
    this.sqlite.close();
  }
}
