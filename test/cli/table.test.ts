import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { renderFields, renderTable, safe } from '../../cli/print/table.ts';

describe('tables', () => {
  it('aligns columns under upper-case headings, without trailing blanks', () => {
    const rows = [
      ['a', 1, undefined],
      ['longer', 20, 'x'],
    ];
    expect(renderTable(['name', 'n', 'note'], rows)).toEqual([
      'NAME     N    NOTE',
      'a        1    -',
      'longer   20   x',
    ]);
  });

  it('starts every column at the same place whatever the cells hold', () => {
    const cell = fc.oneof(fc.string({ unit: 'grapheme' }), fc.integer(), fc.constant(undefined));
    fc.assert(
      fc.property(fc.array(fc.tuple(cell, cell)), (rows) => {
        const lines = renderTable(
          ['one', 'two'],
          rows.map(([first]) => [first, '§']),
        );
        const starts = lines.slice(1).map((line) => Array.from(line).lastIndexOf('§'));
        expect(new Set(starts).size).toBeLessThanOrEqual(1);
        for (const line of lines) expect(line).toBe(line.trimEnd());
      }),
    );
  });

  it('lets no control character of a cell through', () => {
    const escape = String.fromCodePoint(27);
    expect(safe(`a${escape}[31mb\n`)).toBe('a?[31mb?');
    expect(renderTable(['x'], [[`${escape}]0;title`]])).toEqual(['X', '?]0;title']);
  });

  it('leaves out fields without a value', () => {
    expect(
      renderFields([
        ['Name', 'a'],
        ['Reason', undefined],
        ['Memory', '1MiB'],
      ]),
    ).toEqual(['Name:    a', 'Memory:  1MiB']);
  });
});
