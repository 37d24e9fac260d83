/**
 * The ledger: what of ours exists on the host, or is about to. A row is written before its object is made and removed
 * after the object is gone; so every object of ours has a row, and a row without an object is work that was cut short.
 */
import { type HostObject, hostObjectKey } from '../../protocol/host-object.ts';
import type { SubjectKind } from '../../protocol/operation.ts';
import type { Database } from './database.ts';

export interface LedgerOwner {
  readonly kind: SubjectKind;
  readonly id: string;
}

/** `existence`: as long as its owner is in the inventory · `run`: as long as the owner's process runs. */
export type LedgerScope = 'existence' | 'run';

export interface LedgerRow {
  readonly object: HostObject;
  readonly owner: LedgerOwner;
  readonly scope: LedgerScope;
}

interface Row {
  kind: HostObject['kind'];
  name: string;
  owner_kind: SubjectKind;
  owner: string;
  scope: LedgerScope;
}

export class LedgerTable {
  readonly #insert;
  readonly #release;
  readonly #releaseAll;
  readonly #forget;
  readonly #all;

  constructor(db: Database) {
    this.#insert = db.prepare<[string, string, string, string, string, number], never>(
      `INSERT INTO ledger (kind, name, owner_kind, owner, scope, recorded_at) VALUES (?, ?, ?, ?, ?, ?)
       ON CONFLICT (kind, name, owner) DO UPDATE SET scope = excluded.scope`,
    );
    this.#release = db.prepare<[string, string], never>('DELETE FROM ledger WHERE owner = ? AND scope = ?');
    this.#releaseAll = db.prepare<[string], never>('DELETE FROM ledger WHERE owner = ?');
    this.#forget = db.prepare<[string, string, string], never>(
      'DELETE FROM ledger WHERE kind = ? AND name = ? AND owner = ?',
    );
    this.#all = db.prepare<[], Row>(
      'SELECT kind, name, owner_kind, owner, scope FROM ledger ORDER BY kind, name',
    );
  }

  /** Records objects before they are made. */
  record(owner: LedgerOwner, scope: LedgerScope, objects: readonly HostObject[], now: number): void {
    for (const object of objects)
      this.#insert.run(object.kind, object.name, owner.kind, owner.id, scope, now);
  }

  /** Forgets an owner's objects after they are gone. */
  release(owner: LedgerOwner, scope?: LedgerScope): void {
    if (scope === undefined) this.#releaseAll.run(owner.id);
    else this.#release.run(owner.id, scope);
  }

  /** Forgets one object of an owner after it is gone. */
  forget(owner: string, object: HostObject): void {
    this.#forget.run(object.kind, object.name, owner);
  }

  all(): readonly LedgerRow[] {
    return this.#all.all().map((row) => ({
      object: { kind: row.kind, name: row.name },
      owner: { kind: row.owner_kind, id: row.owner },
      scope: row.scope,
    }));
  }

  /** Keys of all objects, each once: an nft table of the instance stands under every network that needs it. */
  keys(): ReadonlySet<string> {
    return new Set(this.all().map((row) => hostObjectKey(row.object)));
  }
}
