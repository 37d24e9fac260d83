import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { afterName, pageOf } from '../../../daemon/api/page.ts';

interface Item {
  readonly name: string;
  readonly text: string;
}

const LINE_LIMIT = 64 * 1024;
const items = fc
  .uniqueArray(fc.record({ name: fc.stringMatching(/^[a-z0-9-]{1,20}$/), size: fc.nat(20_000) }), {
    selector: (item) => item.name,
    maxLength: 60,
  })
  .map((list): readonly Item[] =>
    list
      .map(({ name, size }) => ({ name, text: 'ü'.repeat(size / 2) }))
      .sort((a, b) => (a.name < b.name ? -1 : 1)),
  );

const allPages = (list: readonly Item[], limit: number | undefined): Item[][] => {
  const pages: Item[][] = [];
  for (let after: string | undefined; ; ) {
    const page = pageOf(afterName(list, after), limit);
    pages.push(page.items);
    if (!page.more) return pages;
    after = page.items.at(-1)?.name;
  }
};

describe('pages', () => {
  test('cover a list exactly once, whatever the limit', () => {
    fc.assert(
      fc.property(items, fc.option(fc.integer({ min: 1, max: 20 }), { nil: undefined }), (list, limit) => {
        expect(allPages(list, limit).flat()).toEqual(list);
      }),
    );
  });

  test('without a limit a page of entries that are not too large themselves stays under 64 KiB', () => {
    fc.assert(
      fc.property(items, (list) => {
        for (const page of allPages(list, undefined))
          expect(Buffer.byteLength(JSON.stringify({ return: page, next: 'x'.repeat(63) }))).toBeLessThan(
            LINE_LIMIT,
          );
      }),
    );
  });

  test('with a limit every page but the last is full', () => {
    fc.assert(
      fc.property(items, fc.integer({ min: 1, max: 20 }), (list, limit) => {
        for (const page of allPages(list, limit).slice(0, -1)) expect(page).toHaveLength(limit);
      }),
    );
  });

  test('an entry larger than a page is a page of its own and stops nothing', () => {
    const list = ['a', 'b', 'c'].map((name) => ({ name, text: 'x'.repeat(100_000) }));
    expect(allPages(list, undefined).map((page) => page.map(({ name }) => name))).toEqual([
      ['a'],
      ['b'],
      ['c'],
    ]);
  });

  test('read no further than one entry beyond the page', () => {
    let read = 0;
    function* endless(): Generator<number> {
      for (;;) yield read++;
    }
    expect(pageOf(endless(), 5)).toEqual({ items: [0, 1, 2, 3, 4], more: true });
    expect(read).toBe(6);
  });
});
