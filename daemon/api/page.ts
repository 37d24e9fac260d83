/** Cuts a list into pages: by number where the client named one, else so that a page stays under 64 KiB. */
import { DEFAULT_PAGE_BYTES } from '../../protocol/wire.ts';

export interface Page<T> {
  readonly items: T[];
  /** Whether entries are left behind this page. */
  readonly more: boolean;
}

export const pageOf = <T>(items: Iterable<T>, limit: number | undefined): Page<T> => {
  const page: T[] = [];
  let bytes = 0;
  for (const item of items) {
    if (limit !== undefined && page.length >= limit) return { items: page, more: true };
    if (limit === undefined) {
      bytes += Buffer.byteLength(JSON.stringify(item)) + 1;
      if (bytes > DEFAULT_PAGE_BYTES && page.length > 0) return { items: page, more: true };
    }
    page.push(item);
  }
  return { items: page, more: false };
};

/** The part of a list sorted by name that comes after a name. */
export const afterName = <T extends { readonly name: string }>(
  items: readonly T[],
  after: string | undefined,
): readonly T[] => (after === undefined ? items : items.filter((item) => item.name > after));
