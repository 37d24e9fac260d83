import { existsSync } from 'node:fs';
import { chmod, readdir, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { backupsOf } from '../../../daemon/inventory/backups.ts';
import { Database, migrate } from '../../../daemon/inventory/database.ts';
import { openInventory } from '../../../daemon/inventory/inventory.ts';
import { migrations } from '../../../daemon/inventory/migrations.ts';
import { RoostError } from '../../../protocol/errors.ts';
import { testDirectory } from '../../harness/test-directory.ts';

const newFile = async (): Promise<string> => join(await testDirectory('inventory'), 'roost.db');

const open = (path: string): Database => {
  const db = new Database(path);
  onTestFinished(() => db.close());
  return db;
};

const openRaw = (path: string): Sqlite.Database => {
  const db = new Sqlite(path);
  onTestFinished(() => {
    db.close();
  });
  return db;
};

const layoutOf = (db: Sqlite.Database): unknown => db.pragma('user_version', { simple: true });

test('the file, those beside it and its backups are for the daemon alone, also where they were not', async () => {
  const path = await newFile();
  await writeFile(path, '');
  await chmod(path, 0o644);
  const raw = openRaw(path);
  raw.pragma('journal_mode = WAL');
  migrate(raw, migrations);
  migrate(raw, [...migrations, 'CREATE TABLE later (a TEXT) STRICT']);
  raw.pragma(`user_version = ${migrations.length}`);
  open(path);
  const directory = dirname(path);
  const names = (await readdir(directory)).sort();
  expect(names).toEqual([
    'roost.db',
    'roost.db-shm',
    'roost.db-wal',
    expect.stringMatching(`^roost.db.layout-${migrations.length}.\\d{8}T\\d{6}Z$`),
  ]);
  const modes = await Promise.all(
    names.map(async (name) => (await stat(join(directory, name))).mode & 0o777),
  );
  expect(modes).toEqual(names.map(() => 0o600));
});

describe('migrations', () => {
  test('of the journal keep every operation with its steps', () => {
    const raw = openRaw(':memory:');
    raw.pragma('foreign_keys = ON');
    migrate(raw, migrations.slice(0, 1));
    raw.exec(`INSERT INTO operation (id, sequence, kind, subject_kind, subject, subject_name, actor, state, arguments, created_at)
              VALUES ('o', 7, 'guest-start', 'guest', 'g', 'web', 'daemon', 'running', '{}', 5)`);
    raw.exec("INSERT INTO step (operation, position, name, state) VALUES ('o', 0, 'volumes', 'running')");
    migrate(raw, migrations);
    expect(raw.prepare('SELECT id, sequence, kind, created_at FROM operation').all()).toEqual([
      { id: 'o', sequence: 7, kind: 'guest-start', created_at: 5 },
    ]);
    expect(raw.prepare('SELECT operation, name, account FROM step').all()).toEqual([
      { operation: 'o', name: 'volumes', account: null },
    ]);
    raw.exec("DELETE FROM operation WHERE id = 'o'");
    expect(raw.prepare('SELECT * FROM step').all()).toEqual([]);
    expect(raw.pragma('foreign_key_check')).toEqual([]);
  });

  test('a fresh file gets the newest layout, and opening it again changes nothing', async () => {
    const path = await newFile();
    const first = openInventory(path);
    expect(layoutOf(first.db.sqlite)).toBe(migrations.length);
    first.meta.set('instance', 'abcde');
    first.db.close();
    const second = openInventory(path);
    expect(second.meta.get('instance')).toBe('abcde');
    second.db.close();
  });

  test('a file of a newer Roost is refused with both layouts and is left as it is', async () => {
    const path = await newFile();
    const raw = openRaw(path);
    raw.pragma(`user_version = ${migrations.length + 3}`);
    raw.close();
    expect(() => openInventory(path)).toThrow(
      expect.objectContaining({
        class: 'FailedPrecondition',
        data: { layout: migrations.length + 3, known: migrations.length },
      }),
    );
    expect(layoutOf(openRaw(path))).toBe(migrations.length + 3);
  });

  test('an older layout is backed up beside the file before it is changed', async () => {
    const path = await newFile();
    const steps = ['CREATE TABLE a (x INTEGER)', 'ALTER TABLE a ADD COLUMN y INTEGER'];
    const db = openRaw(path);
    migrate(db, steps.slice(0, 1));
    db.prepare('INSERT INTO a VALUES (7)').run();
    expect(backupsOf(path)).toEqual([]);
    migrate(db, steps);
    expect(db.prepare('SELECT * FROM a').all()).toEqual([{ x: 7, y: null }]);
    const [made] = backupsOf(path);
    const backup = openRaw(made?.path ?? '');
    expect(layoutOf(backup)).toBe(1);
    expect(backup.prepare('SELECT * FROM a').all()).toEqual([{ x: 7 }]);
  });

  test('images of layout 1 become the first versions of their names, with their guests and sources', async () => {
    const path = await newFile();
    const raw = openRaw(path);
    raw.pragma('foreign_keys = ON');
    migrate(raw, migrations.slice(0, 1));
    raw.exec(`
      INSERT INTO guest VALUES (1, 'g1', 'web1', '{}', '{}', 'stopped', 'daemon', 1, 0);
      INSERT INTO image VALUES ('i1', 'debian', 'disk', 'ready', '{"format":"qcow2"}', 1764110000000);
      INSERT INTO image VALUES ('i2', 'alpine', 'kernel', 'importing', NULL, 1764110000001);
      INSERT INTO image_use VALUES ('g1', 'i1');
      INSERT INTO operation (id, sequence, kind, subject_kind, subject, subject_name, actor, state, arguments, created_at)
        VALUES ('o1', 1, 'image-import', 'image', 'i1', 'debian', 'daemon', 'succeeded', '{"path":"/srv/d.qcow2"}', 1);
    `);
    raw.close();
    const inventory = openInventory(path);
    onTestFinished(() => inventory.db.close());
    expect(inventory.images.all()).toMatchObject([
      { id: 'i2', number: 2, name: 'alpine', version: '20251125', kind: 'kernel', state: 'importing' },
      {
        id: 'i1',
        number: 1,
        name: 'debian',
        version: '20251125',
        state: 'ready',
        stored: { format: 'qcow2' },
        source: { kind: 'file', path: '/srv/d.qcow2' },
      },
    ]);
    expect(inventory.images.byId('i2')).not.toHaveProperty('source');
    const id = inventory.images.all()[1]?.id;
    expect(id && inventory.images.users(id)).toEqual(['web1']);
    expect(() => id && inventory.images.delete(id)).toThrow('FOREIGN KEY');
    expect(inventory.db.sqlite.pragma('foreign_key_check')).toEqual([]);
  });

  test('a backup that was begun before a crash is made anew', async () => {
    const path = await newFile();
    const steps = ['CREATE TABLE a (x INTEGER)', 'ALTER TABLE a ADD COLUMN y INTEGER'];
    const db = openRaw(path);
    migrate(db, steps.slice(0, 1));
    await writeFile(`${path}.backup.part`, 'half a backup');
    migrate(db, steps);
    expect(layoutOf(openRaw(backupsOf(path)[0]?.path ?? ''))).toBe(1);
    expect(existsSync(`${path}.backup.part`)).toBe(false);
  });

  test('only the backups of the last layouts are kept, the newest of each', async () => {
    const path = await newFile();
    const db = openRaw(path);
    const steps = Array.from({ length: 6 }, (_, n) => `CREATE TABLE t${n} (x INTEGER)`);
    await writeFile(`${path}.layout-2`, 'from a version that wrote no dates');
    for (let layout = 1; layout <= steps.length; layout += 1) migrate(db, steps.slice(0, layout));
    expect(backupsOf(path).map(({ layout }) => layout)).toEqual([5, 4, 3]);
    const again = (await readdir(dirname(path))).filter((name) => name.includes('layout'));
    expect(again).toHaveLength(3);
  });

  test('a step that fails leaves the layout and the data as they were', async () => {
    const db = openRaw(await newFile());
    migrate(db, ['CREATE TABLE a (x INTEGER)']);
    expect(() => migrate(db, ['', 'DROP TABLE a', 'CREATE TABLE broken ('])).toThrow('incomplete input');
    expect(layoutOf(db)).toBe(1);
    expect(db.prepare('SELECT * FROM a').all()).toEqual([]);
  });
});

describe('a damaged file', () => {
  test('is DataLoss, whoever wrote it, and is closed again', async () => {
    const path = await newFile();
    await writeFile(path, 'this is no database, and it is longer than the header of one '.repeat(100));
    expect(() => openInventory(path)).toThrow(expect.objectContaining({ class: 'DataLoss' }));
  });

  test('is DataLoss when its pages are damaged below a sound header', async () => {
    const path = await newFile();
    openInventory(path).db.close();
    const raw = openRaw(path);
    const pages = Number(raw.pragma('page_count', { simple: true }));
    const size = Number(raw.pragma('page_size', { simple: true }));
    raw.close();
    const { open: openFile } = await import('node:fs/promises');
    const file = await openFile(path, 'r+');
    await file.write(Buffer.alloc(size * (pages - 1), 0xa5), 0, size * (pages - 1), size);
    await file.close();
    const use = (): void => {
      const inventory = openInventory(path);
      onTestFinished(() => inventory.db.close());
      inventory.db.soon(() => inventory.meta.set('instance', 'abcde'));
    };
    expect(use).toThrow(expect.objectContaining({ class: 'DataLoss' }));
  });
});

describe('durably', () => {
  const openCounted = async (): Promise<{
    db: Database;
    insert: (n: number) => void;
    rows: () => unknown[];
  }> => {
    const db = open(await newFile());
    db.sqlite.exec('CREATE TABLE t (n INTEGER UNIQUE)');
    const statement = db.prepare<[number], never>('INSERT INTO t VALUES (?)');
    return {
      db,
      insert: (n) => void statement.run(n),
      rows: () => db.sqlite.prepare('SELECT n FROM t ORDER BY n').pluck().all(),
    };
  };

  test('many of one turn share one commit, and each gets its own value', async () => {
    const { db, insert, rows } = await openCounted();
    const seenFull: unknown[] = [];
    const values = await Promise.all(
      [1, 2, 3, 4].map((n) =>
        db.durably(() => {
          seenFull.push(db.sqlite.pragma('synchronous', { simple: true }));
          insert(n);
          return n * 10;
        }),
      ),
    );
    expect(values).toEqual([10, 20, 30, 40]);
    expect(rows()).toEqual([1, 2, 3, 4]);
    // FULL is 2, NORMAL is 1.
    expect(seenFull).toEqual([2, 2, 2, 2]);
    expect(db.sqlite.pragma('synchronous', { simple: true })).toBe(1);
  });

  test('commits of one turn count as one', async () => {
    const { db, insert } = await openCounted();
    let commits = 0;
    vi.spyOn(db.commitMs, 'record').mockImplementation(() => {
      commits += 1;
    });
    await Promise.all([1, 2, 3].map((n) => db.durably(() => insert(n))));
    expect(commits).toBe(1);
    await db.durably(() => insert(4));
    expect(commits).toBe(2);
  });

  test('one that fails is undone alone and leaves the others', async () => {
    const { db, insert, rows } = await openCounted();
    const refusal = new RoostError('AlreadyExists', 'no');
    const outcomes = await Promise.allSettled([
      db.durably(() => insert(1)),
      db.durably(() => {
        insert(2);
        throw refusal;
      }),
      db.durably(() => insert(1)),
      db.durably(() => insert(3)),
    ]);
    expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'rejected', 'fulfilled']);
    expect(outcomes[1]).toMatchObject({ reason: refusal });
    expect(rows()).toEqual([1, 3]);
  });

  test('nothing resolves before all of its commit is on disk', async () => {
    const { db, insert } = await openCounted();
    const other = openRaw(db.sqlite.name);
    const visible = (): unknown => other.prepare('SELECT count(*) FROM t').pluck().get();
    const first = db.durably(() => insert(1)).then(visible);
    const second = db.durably(() => insert(2)).then(visible);
    expect(await Promise.all([first, second])).toEqual([2, 2]);
  });

  test('after a transaction that SQLite itself gave up, every one of the commit is refused', async () => {
    const { db, insert, rows } = await openCounted();
    const outcomes = await Promise.allSettled([
      db.durably(() => insert(1)),
      db.durably(() => {
        db.sqlite.exec('ROLLBACK');
        throw new Error('the disk is full');
      }),
      db.durably(() => insert(2)),
    ]);
    expect(outcomes.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected']);
    expect(rows()).toEqual([]);
    await db.durably(() => insert(5));
    expect(rows()).toEqual([5]);
  });

  test('closing commits what waits, and what comes later is refused', async () => {
    const path = await newFile();
    const inventory = openInventory(path);
    const waiting = inventory.db.durably(() => inventory.meta.set('instance', 'abcde'));
    inventory.db.close();
    await waiting;
    await expect(inventory.db.durably(() => 1)).rejects.toMatchObject({ class: 'Unavailable' });
    // The turn in which the commit was due passes without a word.
    await new Promise((resolve) => setImmediate(resolve));
    const again = openInventory(path);
    expect(again.meta.get('instance')).toBe('abcde');
    again.db.close();
  });
});

describe('soon', () => {
  test('is undone whole when it throws, and joins the transaction it is called in', async () => {
    const db = open(await newFile());
    db.sqlite.exec('CREATE TABLE t (n INTEGER)');
    const insert = db.prepare<[number], never>('INSERT INTO t VALUES (?)');
    const attempt = (): void =>
      db.soon(() => {
        insert.run(1);
        db.soon(() => insert.run(2));
        throw new Error('no');
      });
    expect(attempt).toThrow('no');
    expect(db.sqlite.prepare('SELECT count(*) FROM t').pluck().get()).toBe(0);
  });
});

test('a statement tells a full disk in the words of the contract, also outside of any transaction', () => {
  const db = open(':memory:');
  const pages = Number(db.sqlite.pragma('page_count', { simple: true }));
  db.sqlite.pragma(`max_page_count = ${pages}`);
  const insert = db.prepare<[string], never>("INSERT INTO meta (key, value) VALUES ('large', ?)");
  expect(() => insert.run('x'.repeat(100_000))).toThrow(
    expect.objectContaining({
      class: 'ResourceExhausted',
      message: expect.stringContaining('full') as string,
    }),
  );
});
