/**
 * What a piece of work does to the host, kept for people: tools run, monitor commands sent, objects made and removed.
 * Whoever owns the work opens an account around it; `enter` finds it by the asynchronous context (AsyncLocalStorage),
 * so that no layer between has to hand it on. What ends after the account was closed goes to its heir, the account of
 * the work that followed. Outside of an account entries go nowhere. Bounded: an account counts what it no longer keeps.
 *
 * The first account of a process makes every `await` in it some 0.3 µs slower on Node 20; a start of a guest has a few
 * hundred of them.
 */
import { AsyncLocalStorage } from 'node:async_hooks';

export type AccountEntry =
  /** A program that was run to its end. */
  | {
      readonly kind: 'tool';
      readonly argv: readonly string[];
      readonly ms: number;
      /** How it failed; absent when it went well. */
      readonly error?: string;
    }
  /** A command to a guest's monitor. */
  | {
      readonly kind: 'monitor';
      /** Whose monitor it is: `QEMU`. */
      readonly program: string;
      readonly command: string;
      readonly arguments?: string;
      readonly ms: number;
      readonly error?: string;
    }
  /** A process that was left running. */
  | { readonly kind: 'process'; readonly argv: readonly string[]; readonly pid: number }
  | { readonly kind: 'made' | 'removed'; readonly object: string }
  | { readonly kind: 'note'; readonly text: string };

const MAX_ENTRIES = 64;
const MAX_WORDS = 200;
const MAX_WORD_LENGTH = 1024;

const shortened = (word: string): string =>
  word.length <= MAX_WORD_LENGTH ? word : `${word.slice(0, MAX_WORD_LENGTH)}…`;

const bounded = (entry: AccountEntry): AccountEntry => {
  switch (entry.kind) {
    case 'tool':
    case 'process': {
      const argv = entry.argv.slice(0, MAX_WORDS).map(shortened);
      return { ...entry, argv: entry.argv.length > MAX_WORDS ? [...argv, '…'] : argv };
    }
    case 'monitor':
      return entry.arguments === undefined ? entry : { ...entry, arguments: shortened(entry.arguments) };
    case 'made':
    case 'removed':
      return entry;
    case 'note':
      return { ...entry, text: shortened(entry.text) };
  }
};

export class Account {
  readonly #entries: AccountEntry[] = [];
  #left = 0;
  #closed = false;
  #heir: Account | undefined;

  add(entry: AccountEntry): void {
    if (this.#closed) this.#heir?.add(entry);
    else if (this.#entries.length < MAX_ENTRIES) this.#entries.push(bounded(entry));
    else this.#left += 1;
  }

  /** What is entered after the end of this account goes to that one. */
  leaveTo(heir: Account): void {
    this.#heir = heir;
  }

  /** Ends the account and gives what it has; what is entered later is its heir's, or nobody's. */
  close(): readonly AccountEntry[] {
    this.#closed = true;
    return this.#left === 0
      ? this.#entries
      : [...this.#entries, { kind: 'note', text: `${this.#left} further entries are not kept` }];
  }
}

const current = new AsyncLocalStorage<Account>();

/** Does the work with its entries going to `account`. */
export const accounted = <T>(account: Account, work: () => T): T => current.run(account, work);

/** Enters something into the account of the work that this is part of, if there is one. */
export const enter = (entry: AccountEntry): void => current.getStore()?.add(entry);

/** Whether anybody keeps entries here: not to build what goes nowhere. */
export const isAccounted = (): boolean => current.getStore() !== undefined;

/** Milliseconds since `startedAt` (of `performance.now()`), to a tenth. */
export const tookMs = (startedAt: number): number => Math.round((performance.now() - startedAt) * 10) / 10;
