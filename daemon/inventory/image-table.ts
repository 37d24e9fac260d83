/** Images as recorded. */
import type { ImageKind, ImageView } from '../../protocol/image.ts';
import type { ImageId } from '../../protocol/types.ts';
import type { StoredImage } from '../../storage/pool.ts';
import type { Database } from './database.ts';

export interface ImageRecord {
  readonly id: ImageId;
  readonly name: string;
  readonly kind: ImageKind;
  readonly state: ImageView['state'];
  readonly stored?: StoredImage;
  readonly createdAt: number;
}

interface Row {
  id: string;
  name: string;
  kind: ImageKind;
  state: ImageRecord['state'];
  stored: string | null;
  created_at: number;
}

const fromRow = (row: Row): ImageRecord => ({
  id: row.id as ImageId,
  name: row.name,
  kind: row.kind,
  state: row.state,
  createdAt: row.created_at,
  ...(row.stored === null ? {} : { stored: JSON.parse(row.stored) as StoredImage }),
});

export class ImageTable {
  readonly #insert;
  readonly #ready;
  readonly #setState;
  readonly #delete;
  readonly #find;
  readonly #all;
  readonly #users;

  constructor(db: Database) {
    this.#insert = db.prepare<[string, string, string, number], never>(
      "INSERT INTO image (id, name, kind, state, created_at) VALUES (?, ?, ?, 'importing', ?)",
    );
    this.#ready = db.prepare<[string, string], never>(
      "UPDATE image SET state = 'ready', stored = ? WHERE id = ?",
    );
    this.#setState = db.prepare<[string, string], never>('UPDATE image SET state = ? WHERE id = ?');
    this.#delete = db.prepare<[string], never>('DELETE FROM image WHERE id = ?');
    this.#find = db.prepare<[string, string, string], Row>(
      'SELECT * FROM image WHERE id = ? OR name = ? ORDER BY id = ? DESC LIMIT 1',
    );
    this.#all = db.prepare<[], Row>('SELECT * FROM image ORDER BY name');
    this.#users = db.prepare<[string], { name: string }>(
      'SELECT guest.name FROM image_use JOIN guest ON guest.id = image_use.guest WHERE image = ? ORDER BY guest.name',
    );
  }

  insert(image: Pick<ImageRecord, 'id' | 'name' | 'kind' | 'createdAt'>): void {
    this.#insert.run(image.id, image.name, image.kind, image.createdAt);
  }

  ready(id: ImageId, stored: StoredImage): void {
    this.#ready.run(JSON.stringify(stored), id);
  }

  setState(id: ImageId, state: ImageRecord['state']): void {
    this.#setState.run(state, id);
  }

  delete(id: ImageId): void {
    this.#delete.run(id);
  }

  /** By id or name; an id wins. */
  find(reference: string): ImageRecord | undefined {
    const row = this.#find.get(reference, reference, reference);
    return row && fromRow(row);
  }

  all(): readonly ImageRecord[] {
    return this.#all.all().map(fromRow);
  }

  users(id: ImageId): readonly string[] {
    return this.#users.all(id).map((row) => row.name);
  }
}
