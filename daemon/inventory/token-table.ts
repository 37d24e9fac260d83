/** Tokens for the WebSocket: only the hash of a secret is kept. */
import type { Role } from '../../protocol/types.ts';
import type { Database } from './database.ts';

export interface TokenRecord {
  readonly name: string;
  readonly role: Role;
  readonly createdAt: number;
  readonly lastUsedAt?: number;
}

interface Row {
  name: string;
  role: Role;
  created_at: number;
  last_used_at: number | null;
}

const fromRow = (row: Row): TokenRecord => ({
  name: row.name,
  role: row.role,
  createdAt: row.created_at,
  ...(row.last_used_at === null ? {} : { lastUsedAt: row.last_used_at }),
});

export class TokenTable {
  readonly #insert;
  readonly #delete;
  readonly #byHash;
  readonly #byName;
  readonly #all;
  readonly #used;

  constructor(db: Database) {
    this.#insert = db.prepare<[string, string, string, number], never>(
      'INSERT INTO token (name, role, hash, created_at) VALUES (?, ?, ?, ?)',
    );
    this.#delete = db.prepare<[string], never>('DELETE FROM token WHERE name = ?');
    this.#byHash = db.prepare<[string], Row>('SELECT * FROM token WHERE hash = ?');
    this.#byName = db.prepare<[string], Row>('SELECT * FROM token WHERE name = ?');
    this.#all = db.prepare<[], Row>('SELECT * FROM token ORDER BY name');
    this.#used = db.prepare<[number, string], never>('UPDATE token SET last_used_at = ? WHERE name = ?');
  }

  insert(token: TokenRecord, hash: string): void {
    this.#insert.run(token.name, token.role, hash, token.createdAt);
  }

  /** Whether there was one. */
  delete(name: string): boolean {
    return this.#delete.run(name).changes > 0;
  }

  byHash(hash: string): TokenRecord | undefined {
    const row = this.#byHash.get(hash);
    return row && fromRow(row);
  }

  byName(name: string): TokenRecord | undefined {
    const row = this.#byName.get(name);
    return row && fromRow(row);
  }

  all(): readonly TokenRecord[] {
    return this.#all.all().map(fromRow);
  }

  used(name: string, at: number): void {
    this.#used.run(at, name);
  }
}
