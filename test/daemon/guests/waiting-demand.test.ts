import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  askedAgain,
  KEPT_MS,
  type Kind,
  nextChangeAt,
  nextMove,
  wantedOf,
} from '../../../daemon/guests/waiting-demand.ts';

const kindOf = (key: string, have: number, wanted: number, lastAskedAt = 0): Kind => ({
  key,
  have,
  wanted,
  canMake: true,
  lastAskedAt,
});

describe('what is wanted', () => {
  test('as many as were asked for lately, and no more than may wait', () => {
    let demand = { askedAt: [] as readonly number[] };
    for (const now of [1, 2, 3, 4, 5]) demand = askedAgain(demand, 3, now);
    expect(wantedOf(demand, 3, 5)).toBe(3);
    expect(wantedOf(demand, 3, 3 + KEPT_MS)).toBe(2);
    expect(wantedOf(demand, 3, 5 + KEPT_MS)).toBe(0);
  });

  test('it changes by itself when the oldest asking is long ago', () => {
    const demand = { askedAt: [10, 20] };
    expect(nextChangeAt(demand, 4, 20)).toBe(10 + KEPT_MS);
    expect(nextChangeAt(demand, 4, 15 + KEPT_MS)).toBe(20 + KEPT_MS);
    expect(nextChangeAt(demand, 4, 20 + KEPT_MS)).toBeUndefined();
  });

  test('between now and the change nothing changes, and with it something does', () => {
    const time = fc.nat({ max: 3 * KEPT_MS });
    fc.assert(
      fc.property(fc.array(time), fc.integer({ min: 1, max: 8 }), time, (times, most, now) => {
        const askedAt = times.filter((at) => at <= now).toSorted((one, other) => one - other);
        const demand = { askedAt };
        const wanted = wantedOf(demand, most, now);
        const change = nextChangeAt(demand, most, now) ?? Number.NaN;
        expect(Number.isNaN(change)).toBe(wanted === 0);
        const around = [change - 1, change].map((at) => wantedOf(demand, most, at) < wanted);
        expect(around).toEqual(wanted === 0 ? [false, false] : [false, true]);
      }),
    );
  });
});

describe('the next move', () => {
  test.each<[string, readonly Kind[], number, ReturnType<typeof nextMove>]>([
    ['nothing is wanted', [], 4, undefined],
    ['all is as it should be', [kindOf('a', 2, 2)], 4, undefined],
    ['one is missing', [kindOf('a', 1, 2)], 4, { kind: 'make', key: 'a' }],
    ['one is too many', [kindOf('a', 2, 1)], 4, { kind: 'end', key: 'a' }],
    ['none can be made', [{ ...kindOf('a', 0, 2), canMake: false }], 4, undefined],
    ['another kind has two', [kindOf('a', 2, 2, 9), kindOf('b', 0, 1, 1)], 2, { kind: 'end', key: 'a' }],
    ['each has one', [kindOf('a', 1, 2, 9), kindOf('b', 1, 2, 1)], 2, undefined],
    [
      'the other was asked for before',
      [kindOf('a', 1, 1, 1), kindOf('b', 0, 1, 9)],
      1,
      { kind: 'end', key: 'a' },
    ],
    ['the other was asked for since', [kindOf('a', 1, 1, 9), kindOf('b', 0, 1, 1)], 1, undefined],
  ])('%s', (_sentence, kinds, most, expected) => {
    expect(nextMove(kinds, most)).toEqual(expected);
  });

  const anyKinds = fc.uniqueArray(
    fc.record({
      key: fc.constantFrom('a', 'b', 'c', 'd'),
      have: fc.nat({ max: 6 }),
      wanted: fc.nat({ max: 6 }),
      canMake: fc.boolean(),
      lastAskedAt: fc.nat({ max: 5 }),
    }),
    { selector: ({ key }) => key },
  );

  test('they come to an end, and none has two while another has none', () => {
    fc.assert(
      fc.property(anyKinds, fc.integer({ min: 1, max: 6 }), (kinds, most) => {
        let now: readonly Kind[] = kinds;
        for (let moves = 0, move = nextMove(now, most); move; move = nextMove(now, most), moves += 1) {
          expect(moves).toBeLessThan(100);
          const { key } = move;
          const by = move.kind === 'make' ? 1 : -1;
          now = now.map((kind) => (kind.key === key ? { ...kind, have: kind.have + by } : kind));
        }
        const countOf = (of: readonly Kind[]): number => of.reduce((sum, { have }) => sum + have, 0);
        expect(countOf(now)).toBeLessThanOrEqual(Math.max(most, countOf(kinds)));
        expect(now.filter(({ have, wanted }) => have > wanted)).toEqual([]);
        const none = now.filter(({ have, wanted, canMake }) => canMake && wanted > 0 && have === 0);
        const many = now.filter(({ have }) => have > 1);
        expect([none.length, many.length]).toContain(0);
      }),
    );
  });
});
