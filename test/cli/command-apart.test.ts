import { describe, expect, test } from 'vitest';
import { setCommandApart } from '../../cli/command-apart.ts';
import type { Verb } from '../../cli/verb.ts';
import { findVerb } from '../../cli/verbs.ts';

const exec = findVerb(['exec']) as Verb;
const apart = (line: string): string => setCommandApart(line.split(' '), exec).join(' ');

describe('the command of another', () => {
  test.each([
    ['exec web ls -l', 'exec web -- ls -l'],
    ['exec web ls --json', 'exec web -- ls --json'],
    ['exec -i -e A=b web cat -n', 'exec -i -e A=b web -- cat -n'],
    ['exec --env A=b --socket /s web cat', 'exec --env A=b --socket /s web -- cat'],
    ['exec --env=A=b web cat', 'exec --env=A=b web -- cat'],
    ['--json exec -ie A=b web cat', '--json exec -ie A=b web -- cat'],
  ])('is set apart in %s', (line, told) => {
    expect(apart(line)).toBe(told);
  });

  test.each(['exec web -- ls -l', 'exec -- web ls -l', 'exec web', 'exec', 'exec --help'])(
    'is left as it is in %s',
    (line) => {
      expect(apart(line)).toBe(line);
    },
  );

  test('is nothing that other verbs have', () => {
    expect(setCommandApart(['start', 'a', 'b'], findVerb(['start']))).toEqual(['start', 'a', 'b']);
  });
});
