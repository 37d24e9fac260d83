/** Images as recorded: one row a version, and the aliases. */
import type { ImageKind, ImageSource, ImageView } from '../../protocol/image.ts';
import type { ImageReferenceParts } from '../../protocol/image-reference.ts';
import type { ImageId } from '../../protocol/types.ts';
import type { StoredImage } from '../../storage/pool.ts';
import type { Database } from './database.ts';
import { storedJson } from './stored-json.ts';

export interface ImageRecord {
  readonly id: ImageId;
  /** Grows with each image; the newest version of a name has the highest. */
  readonly number: number;
  readonly name: string;
  readonly version: string;
  readonly kind: ImageKind;
  readonly state: ImageView['state'];
  readonly stored?: StoredImage;
  readonly source?: ImageSource;
  readonly createdAt: number;
}

export type NewImage = Omit<ImageRecord, 'number' | 'state' | 'stored'> & {
  /** Where its download is, with whatever is secret in it; kept until the image is ready. */
  readonly url?: string | undefined;
};

/** A further name; without a version it means the newest one. */
export interface ImageAlias extends ImageReferenceParts {
  readonly alias: string;
  readonly createdAt: number;
}

interface Row {
  number: number;
  id: string;
  name: string;
  version: string;
  kind: ImageKind;
  state: ImageRecord['state'];
  stored: string | null;
  source: string | null;
  created_at: number;
}

interface AliasRow {
  alias: string;
  name: string;
  version: string | null;
  created_at: number;
}

const fromRow = (row: Row): ImageRecord => ({
  id: row.id as ImageId,
  number: row.number,
  name: row.name,
  version: row.version,
  kind: row.kind,
  state: row.state,
  createdAt: row.created_at,
  ...(row.stored === null ? {} : { stored: storedJson(row.stored) as StoredImage }),
  ...(row.source === null ? {} : { source: storedJson(row.source) as ImageSource }),
});

const fromAliasRow = (row: AliasRow): ImageAlias => ({
  alias: row.alias,
  name: row.name,
  createdAt: row.created_at,
  ...(row.version === null ? {} : { version: row.version }),
});

export class ImageTable {
  readonly #insert;
  readonly #ready;
  readonly #setState;
  readonly #delete;
  readonly #byId;
  readonly #versions;
  readonly #all;
  readonly #users;
  readonly #urlOf;
  readonly #setAlias;
  readonly #deleteAlias;
  readonly #deleteDeadAliases;
  readonly #aliases;

  constructor(db: Database) {
    this.#insert = db.prepare<[string, string, string, string, string | null, string | null, number], Row>(
      `INSERT INTO image (id, name, version, kind, state, source, url, created_at)
       VALUES (?, ?, ?, ?, 'importing', ?, ?, ?) RETURNING *`,
    );
    this.#ready = db.prepare<[string, string], never>(
      "UPDATE image SET state = 'ready', stored = ?, url = NULL WHERE id = ?",
    );
    this.#setState = db.prepare<[string, string], never>('UPDATE image SET state = ? WHERE id = ?');
    this.#delete = db.prepare<[string], never>('DELETE FROM image WHERE id = ?');
    this.#byId = db.prepare<[string], Row>('SELECT * FROM image WHERE id = ?');
    this.#versions = db.prepare<[string], Row>('SELECT * FROM image WHERE name = ? ORDER BY number DESC');
    this.#all = db.prepare<[], Row>('SELECT * FROM image ORDER BY name, number DESC');
    this.#users = db.prepare<[string], { name: string }>(
      'SELECT guest.name FROM image_use JOIN guest ON guest.id = image_use.guest WHERE image = ? ORDER BY guest.name',
    );
    this.#urlOf = db.prepare<[string], { url: string | null }>('SELECT url FROM image WHERE id = ?');
    this.#setAlias = db.prepare<[AliasRow], never>(
      `INSERT INTO image_alias VALUES (@alias, @name, @version, @created_at)
       ON CONFLICT (alias) DO UPDATE SET name = @name, version = @version, created_at = @created_at`,
    );
    this.#deleteAlias = db.prepare<[string], never>('DELETE FROM image_alias WHERE alias = ?');
    this.#deleteDeadAliases = db.prepare<[], AliasRow>(
      `DELETE FROM image_alias WHERE NOT EXISTS (
         SELECT 1 FROM image WHERE image.name = image_alias.name
           AND (image_alias.version IS NULL OR image.version = image_alias.version))
       RETURNING *`,
    );
    this.#aliases = db.prepare<[], AliasRow>('SELECT * FROM image_alias ORDER BY alias');
  }

  insert(image: NewImage): ImageRecord {
    const source = image.source === undefined ? null : JSON.stringify(image.source);
    const { id, name, version, kind, url, createdAt } = image;
    const row = this.#insert.get(id, name, version, kind, source, url ?? null, createdAt);
    if (!row) throw new Error('INSERT … RETURNING gave no row');
    return fromRow(row);
  }

  ready(id: ImageId, stored: StoredImage): void {
    this.#ready.run(JSON.stringify(stored), id);
  }

  setState(id: ImageId, state: ImageRecord['state']): void {
    this.#setState.run(state, id);
  }

  /** With the aliases that mean nothing any more; gives those. */
  delete(id: ImageId): readonly ImageAlias[] {
    this.#delete.run(id);
    return this.#deleteDeadAliases.all().map(fromAliasRow);
  }

  /** Not a member of the record, so that nobody shows it. */
  urlOf(id: ImageId): string | undefined {
    return this.#urlOf.get(id)?.url ?? undefined;
  }

  byId(id: string): ImageRecord | undefined {
    const row = this.#byId.get(id);
    return row && fromRow(row);
  }

  /** The newest first. */
  versions(name: string): readonly ImageRecord[] {
    return this.#versions.all(name).map(fromRow);
  }

  /** By name, the newest version first. */
  all(): readonly ImageRecord[] {
    return this.#all.all().map(fromRow);
  }

  users(id: ImageId): readonly string[] {
    return this.#users.all(id).map((row) => row.name);
  }

  setAlias({ alias, name, version, createdAt }: ImageAlias): void {
    this.#setAlias.run({ alias, name, version: version ?? null, created_at: createdAt });
  }

  deleteAlias(alias: string): void {
    this.#deleteAlias.run(alias);
  }

  aliases(): readonly ImageAlias[] {
    return this.#aliases.all().map(fromAliasRow);
  }
}
