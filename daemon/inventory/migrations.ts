/**
 * The database's layout, step by step. A step is immutable once released and never renumbered; each has a test.
 *
 *   meta       one row per fact of the instance: its id, the boot of the host last seen
 *   guest      what was asked: written by users (and by one rule, see docs/architecture.md "Target")
 *   status     what was seen: written by the guest's own loop
 *   address    MAC and IPv4 addresses kept for NICs
 *   image      one row a version; image_alias: further names; image_use: which guests need which
 *   network, token
 *   operation  accepted work; step: its journal
 *   ledger     what exists on the host, or is about to
 *   event      numbered, kept, bounded
 */
export const migrations: readonly string[] = [
  `
  CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

  CREATE TABLE guest (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    spec TEXT NOT NULL CHECK (json_valid(spec)),
    machine TEXT NOT NULL CHECK (json_valid(machine)),
    target TEXT NOT NULL CHECK (target IN ('running', 'stopped')),
    target_actor TEXT NOT NULL,
    generation INTEGER NOT NULL,
    created_at INTEGER NOT NULL
  ) STRICT;

  CREATE TABLE status (
    guest TEXT PRIMARY KEY REFERENCES guest (id) ON DELETE CASCADE,
    state TEXT NOT NULL,
    reason TEXT,
    observed_at INTEGER NOT NULL,
    cursor INTEGER NOT NULL,
    process TEXT,
    applied TEXT,
    last_exit TEXT,
    restart_count INTEGER NOT NULL,
    restart_at INTEGER
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE network (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    subnet TEXT,
    gateway TEXT,
    state TEXT NOT NULL CHECK (state IN ('creating', 'ready', 'failed', 'deleting')),
    reason TEXT,
    created_at INTEGER NOT NULL
  ) STRICT;

  CREATE TABLE address (
    guest TEXT NOT NULL REFERENCES guest (id) ON DELETE CASCADE,
    nic TEXT NOT NULL,
    network TEXT NOT NULL REFERENCES network (id),
    mac TEXT NOT NULL UNIQUE,
    ipv4 TEXT,
    PRIMARY KEY (guest, nic),
    UNIQUE (network, ipv4)
  ) STRICT;

  CREATE TABLE image (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('importing', 'ready', 'deleting')),
    stored TEXT,
    created_at INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE image_use (
    guest TEXT NOT NULL REFERENCES guest (id) ON DELETE CASCADE,
    image TEXT NOT NULL REFERENCES image (id) ON DELETE RESTRICT,
    PRIMARY KEY (guest, image)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE operation (
    id TEXT PRIMARY KEY,
    sequence INTEGER NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    subject_kind TEXT NOT NULL CHECK (subject_kind IN ('guest', 'image', 'network')),
    subject TEXT NOT NULL,
    subject_name TEXT NOT NULL,
    actor TEXT NOT NULL,
    state TEXT NOT NULL,
    arguments TEXT NOT NULL CHECK (json_valid(arguments)),
    idempotency_key TEXT UNIQUE,
    deadline_at INTEGER,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    ended_at INTEGER,
    error TEXT,
    result TEXT
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX operation_by_subject ON operation (subject, sequence);
  CREATE INDEX operation_unfinished ON operation (sequence) WHERE ended_at IS NULL;

  CREATE TABLE step (
    operation TEXT NOT NULL REFERENCES operation (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    started_at INTEGER,
    ended_at INTEGER,
    PRIMARY KEY (operation, position)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE ledger (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    owner_kind TEXT NOT NULL CHECK (owner_kind IN ('guest', 'image', 'network')),
    owner TEXT NOT NULL,
    scope TEXT NOT NULL CHECK (scope IN ('existence', 'run')),
    recorded_at INTEGER NOT NULL,
    PRIMARY KEY (kind, name, owner)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX ledger_by_owner ON ledger (owner, scope);

  CREATE TABLE event (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms REAL NOT NULL,
    name TEXT NOT NULL,
    guest TEXT,
    data TEXT NOT NULL
  ) STRICT;

  CREATE TABLE token (
    name TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    last_used_at INTEGER
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE binary_facts (key TEXT PRIMARY KEY, facts TEXT NOT NULL) STRICT, WITHOUT ROWID;
  `,
  // The journal keeps what each step did, and knows operations on the host as a whole. SQLite cannot change a CHECK, so
  // both tables are made anew; the new step refers to the new operation before that gets its name.
  `
  CREATE TABLE operation_2 (
    id TEXT PRIMARY KEY,
    sequence INTEGER NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    subject_kind TEXT NOT NULL CHECK (subject_kind IN ('guest', 'image', 'network', 'host')),
    subject TEXT NOT NULL,
    subject_name TEXT NOT NULL,
    actor TEXT NOT NULL,
    state TEXT NOT NULL,
    arguments TEXT NOT NULL CHECK (json_valid(arguments)),
    idempotency_key TEXT UNIQUE,
    deadline_at INTEGER,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    ended_at INTEGER,
    error TEXT,
    result TEXT
  ) STRICT, WITHOUT ROWID;
  INSERT INTO operation_2 SELECT * FROM operation;

  CREATE TABLE step_2 (
    operation TEXT NOT NULL REFERENCES operation_2 (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    started_at INTEGER,
    ended_at INTEGER,
    account TEXT,
    error TEXT,
    PRIMARY KEY (operation, position)
  ) STRICT, WITHOUT ROWID;
  INSERT INTO step_2 SELECT *, NULL, NULL FROM step;

  DROP TABLE step;
  DROP TABLE operation;
  ALTER TABLE operation_2 RENAME TO operation;
  ALTER TABLE step_2 RENAME TO step;
  CREATE INDEX operation_by_subject ON operation (subject, sequence);
  CREATE INDEX operation_by_name ON operation (subject_name, sequence);
  CREATE INDEX operation_unfinished ON operation (sequence) WHERE ended_at IS NULL;

  CREATE INDEX event_by_guest ON event (guest, sequence) WHERE guest IS NOT NULL;
  `,
  // Images get versions, sources and aliases. A table that others refer to is moved out of the way with them.
  `
  ALTER TABLE image RENAME TO image_before;
  ALTER TABLE image_use RENAME TO image_use_before;

  CREATE TABLE image (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('importing', 'ready', 'deleting')),
    stored TEXT,
    source TEXT CHECK (source IS NULL OR json_valid(source)),
    -- The whole URL of a download, with what is secret in it, until the import has ended.
    url TEXT,
    created_at INTEGER NOT NULL,
    UNIQUE (name, version)
  ) STRICT;
  INSERT INTO image (id, name, version, kind, state, stored, source, created_at)
    SELECT id, name, strftime('%Y%m%d', created_at / 1000, 'unixepoch'), kind, state, stored,
      (SELECT json_object('kind', 'file', 'path', json_extract(arguments, '$.path')) FROM operation
       WHERE operation.kind = 'image-import' AND subject = image_before.id
         AND json_type(arguments, '$.path') = 'text'
       ORDER BY sequence DESC LIMIT 1),
      created_at
    FROM image_before ORDER BY created_at, name;

  CREATE TABLE image_use (
    guest TEXT NOT NULL REFERENCES guest (id) ON DELETE CASCADE,
    image TEXT NOT NULL REFERENCES image (id) ON DELETE RESTRICT,
    PRIMARY KEY (guest, image)
  ) STRICT, WITHOUT ROWID;
  INSERT INTO image_use SELECT guest, image FROM image_use_before;
  DROP TABLE image_use_before;
  DROP TABLE image_before;
  CREATE INDEX image_use_by_image ON image_use (image);

  CREATE TABLE image_alias (
    alias TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    version TEXT,
    created_at INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  `,
  // Networks of kind bridge join a bridge of the host.
  'ALTER TABLE network ADD COLUMN bridge TEXT',
  // Size of all events up to this one: the bound of the log is found without adding up.
  'ALTER TABLE event ADD COLUMN total_bytes INTEGER NOT NULL DEFAULT 0',
  // Forks, and the templates that they are of.
  `
  ALTER TABLE status ADD COLUMN forked_at INTEGER;
  CREATE INDEX guest_by_template ON guest (json_extract(spec, '$.forkOf')) WHERE json_extract(spec, '$.forkOf') IS NOT NULL;
  `,
];
