import fc from 'fast-check';
import { expect, test } from 'vitest';
import { ByteBudget } from '../../lib/byte-budget.ts';

test('a burst is free, and what is more waits for its time', () => {
  let now = 0;
  const budget = new ByteBudget({ burst: 1000, perSecond: 100, now: () => now });
  expect(budget.spend(1000)).toBe(0);
  expect(budget.spend(50)).toBe(500);
  now = 500;
  expect(budget.spend(0)).toBe(0);
  expect(budget.spend(10)).toBe(100);
});

test('rest fills it up to the burst and no further', () => {
  let now = 0;
  const budget = new ByteBudget({ burst: 1000, perSecond: 100, now: () => now });
  budget.spend(1000);
  now = 3_600_000;
  expect(budget.spend(1000)).toBe(0);
  expect(budget.spend(1)).toBeGreaterThan(0);
});

test('who keeps to what it says takes no more than the burst and its rate', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 5000 }), { maxLength: 200 }), (chunks) => {
      let now = 0;
      let taken = 0;
      const budget = new ByteBudget({ burst: 10_000, perSecond: 1000, now: () => now });
      for (const bytes of chunks) {
        now += budget.spend(bytes);
        taken += bytes;
      }
      expect(taken).toBeLessThanOrEqual(10_000 + now + 1);
    }),
  );
});
