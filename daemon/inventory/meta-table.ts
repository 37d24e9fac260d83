/** Facts of the instance, and what was learnt of QEMU binaries. */
import type { Database } from './database.ts';
import { storedJson } from './stored-json.ts';

/** `autostart`: ids of the guests that this boot of the host has still to start. */
export type MetaKey = 'instance' | 'boot-id' | 'autostart';

export class MetaTable {
  readonly #get;
  readonly #set;
  readonly #facts;
  readonly #setFacts;

  constructor(db: Database) {
    this.#get = db.prepare<[string], { value: string }>('SELECT value FROM meta WHERE key = ?');
    this.#set = db.prepare<[string, string], never>('INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)');
    this.#facts = db.prepare<[string], { facts: string }>('SELECT facts FROM binary_facts WHERE key = ?');
    this.#setFacts = db.prepare<[string, string], never>(
      'INSERT OR REPLACE INTO binary_facts (key, facts) VALUES (?, ?)',
    );
  }

  get(key: MetaKey): string | undefined {
    return this.#get.get(key)?.value;
  }

  set(key: MetaKey, value: string): void {
    this.#set.run(key, value);
  }

  binaryFacts(key: string): unknown {
    const row = this.#facts.get(key);
    return row && storedJson(row.facts);
  }

  setBinaryFacts(key: string, facts: unknown): void {
    this.#setFacts.run(key, JSON.stringify(facts));
  }
}
