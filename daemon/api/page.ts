/** Cuts a list into pages: by number where the client named one, else so that a page stays under 64 KiB. */
import { DEFAULT_PAGE_BYTES } from '../../protocol/wire.ts';

export interface Page<T> {
  readonly items: T[];
  /** Whether entries are left behind this page. */
  readonly more: boolean;
}

class PageMaker<T> {
  readonly items: T[] = [];
  readonly #limit: number | undefined;
  #bytes = 0;

  constructor(limit: number | undefined) {
    this.#limit = limit;
  }

  /** Takes an entry, or says that it is left for the next page. */
  takes(item: T): boolean {
    if (this.#limit === undefined) {
      this.#bytes += Buffer.byteLength(JSON.stringify(item)) + 1;
      if (this.#bytes > DEFAULT_PAGE_BYTES && this.items.length > 0) return false;
    } else if (this.items.length >= this.#limit) return false;
    this.items.push(item);
    return true;
  }
}

export const pageOf = <T>(items: Iterable<T>, limit: number | undefined): Page<T> => {
  const page = new PageMaker<T>(limit);
  for (const item of items) if (!page.takes(item)) return { items: page.items, more: true };
  return { items: page.items, more: false };
};

/** The same of what is read bit by bit. */
export const pageOfStream = async <T>(
  items: AsyncIterable<T>,
  limit: number | undefined,
): Promise<Page<T>> => {
  const page = new PageMaker<T>(limit);
  for await (const item of items) if (!page.takes(item)) return { items: page.items, more: true };
  return { items: page.items, more: false };
};

/** The part of a list sorted by name that comes after a name. */
export const afterName = <T extends { readonly name: string }>(
  items: readonly T[],
  after: string | undefined,
): readonly T[] => (after === undefined ? items : items.filter((item) => item.name > after));
