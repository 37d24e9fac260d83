import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { matchesGlob } from '../../../daemon/guests/select-guests.ts';

const rows = [
  ['web1', 'web1', true],
  ['web1', 'web2', false],
  ['web*', 'web', true],
  ['web*', 'web1-a', true],
  ['*1', 'web1', true],
  ['*1', 'web12', false],
  ['w?b', 'web', true],
  ['w?b', 'wb', false],
  ['*', '', true],
  ['', '', true],
  ['', 'a', false],
  ['?', '', false],
  ['a*b*c', 'a-b-b-c', true],
  ['a*b*c', 'a-c-b', false],
  ['we.1', 'web1', false],
  ['(a|b)', 'a', false],
  ['[ab]', 'a', false],
  ['a\\', 'a\\', true],
  ['***a', 'ba', true],
] as const;

describe('a glob', () => {
  test.each(rows)('%s against "%s" is %s', (glob, name, expected) => {
    expect(matchesGlob(glob, name)).toBe(expected);
  });

  test('is the same as its plain recursive meaning', () => {
    const plain = (glob: string, text: string): boolean => {
      if (glob === '') return text === '';
      if (glob.startsWith('*'))
        return plain(glob.slice(1), text) || (text !== '' && plain(glob, text.slice(1)));
      return text !== '' && (glob[0] === '?' || glob[0] === text[0]) && plain(glob.slice(1), text.slice(1));
    };
    const short = (letters: readonly string[]) =>
      fc.string({ unit: fc.constantFrom(...letters), maxLength: 9 });
    fc.assert(
      fc.property(short(['a', 'b', '*', '?']), short(['a', 'b']), (glob, text) => {
        expect(matchesGlob(glob, text)).toBe(plain(glob, text));
      }),
      { numRuns: 1000 },
    );
  });

  test('made to be slow is not: it looks at each pair of characters a constant number of times', () => {
    // A regular expression of this would take longer than the test may.
    expect(matchesGlob(`${'*a'.repeat(62)}*b`, 'a'.repeat(63))).toBe(false);
  });
});
