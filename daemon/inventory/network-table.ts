/** Networks as recorded. */
import type { NetworkKind, NetworkView } from '../../protocol/network.ts';
import type { NetworkId } from '../../protocol/types.ts';
import type { Database } from './database.ts';

export interface NetworkRecord {
  readonly id: NetworkId;
  readonly number: number;
  readonly name: string;
  readonly kind: NetworkKind;
  readonly subnet?: string;
  readonly gateway?: string;
  /** Bridge of somebody else that it joins; only of kind bridge. */
  readonly bridge?: string;
  readonly state: NetworkView['state'];
  readonly reason?: string;
  readonly createdAt: number;
}

interface Row {
  number: number;
  id: string;
  name: string;
  kind: NetworkKind;
  subnet: string | null;
  gateway: string | null;
  state: NetworkRecord['state'];
  reason: string | null;
  created_at: number;
  bridge: string | null;
}

const fromRow = (row: Row): NetworkRecord => ({
  id: row.id as NetworkId,
  number: row.number,
  name: row.name,
  kind: row.kind,
  state: row.state,
  createdAt: row.created_at,
  ...(row.subnet === null ? {} : { subnet: row.subnet }),
  ...(row.gateway === null ? {} : { gateway: row.gateway }),
  ...(row.bridge === null ? {} : { bridge: row.bridge }),
  ...(row.reason === null ? {} : { reason: row.reason }),
});

export class NetworkTable {
  readonly #insert;
  readonly #state;
  readonly #delete;
  readonly #find;
  readonly #all;
  readonly #users;

  constructor(db: Database) {
    this.#insert = db.prepare<
      [number | null, string, string, string, string | null, string | null, string | null, string, number],
      Row
    >(
      `INSERT INTO network (number, id, name, kind, subnet, gateway, bridge, state, created_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING *`,
    );
    this.#state = db.prepare<[string, string | null, string], never>(
      'UPDATE network SET state = ?, reason = ? WHERE id = ?',
    );
    this.#delete = db.prepare<[string], never>('DELETE FROM network WHERE id = ?');
    this.#find = db.prepare<[string, string, string], Row>(
      'SELECT * FROM network WHERE id = ? OR name = ? ORDER BY id = ? DESC LIMIT 1',
    );
    this.#all = db.prepare<[], Row>('SELECT * FROM network ORDER BY name');
    this.#users = db.prepare<[string], { name: string }>(
      `SELECT DISTINCT guest.name FROM address JOIN guest ON guest.id = address.guest
       WHERE network = ? AND json_extract(guest.spec, '$.waiting') IS NULL ORDER BY guest.name`,
    );
  }

  insert(network: Omit<NetworkRecord, 'number' | 'state' | 'reason'>): NetworkRecord {
    return this.#insertAs(null, 'creating', network);
  }

  /** A network that was there before, with the number that it had. */
  restore({ number, ...network }: Omit<NetworkRecord, 'state' | 'reason'>): NetworkRecord {
    return this.#insertAs(number, 'ready', network);
  }

  #insertAs(
    number: number | null,
    state: NetworkRecord['state'],
    network: Omit<NetworkRecord, 'number' | 'state' | 'reason'>,
  ): NetworkRecord {
    const row = this.#insert.get(
      number,
      network.id,
      network.name,
      network.kind,
      network.subnet ?? null,
      network.gateway ?? null,
      network.bridge ?? null,
      state,
      network.createdAt,
    );
    if (!row) throw new Error('INSERT … RETURNING gave no row');
    return fromRow(row);
  }

  setState(id: NetworkId, state: NetworkRecord['state'], reason?: string): void {
    this.#state.run(state, reason ?? null, id);
  }

  delete(id: NetworkId): void {
    this.#delete.run(id);
  }

  /** By id or name; an id wins. */
  find(reference: string): NetworkRecord | undefined {
    const row = this.#find.get(reference, reference, reference);
    return row && fromRow(row);
  }

  all(): readonly NetworkRecord[] {
    return this.#all.all().map(fromRow);
  }

  /** Names of the guests that are on it; those that are nobody's are on it only where their template is. */
  users(id: NetworkId): readonly string[] {
    return this.#users.all(id).map((row) => row.name);
  }
}
