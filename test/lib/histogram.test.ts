import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Histogram } from '../../lib/histogram.ts';

test('an empty histogram says zero', () => {
  expect(new Histogram().quantiles()).toEqual({ p50: 0, p99: 0, max: 0 });
});

test('quantiles are in order and are values that were recorded', () => {
  fc.assert(
    fc.property(fc.array(fc.nat(10_000), { minLength: 1, maxLength: 200 }), (values) => {
      const histogram = new Histogram();
      for (const value of values) histogram.record(value);
      const { p50, p99, max } = histogram.quantiles();
      expect(p50).toBeLessThanOrEqual(p99);
      expect(p99).toBeLessThanOrEqual(max);
      expect(max).toBe(Math.max(...values));
      expect(values).toContain(p50);
      expect(values).toContain(p99);
    }),
  );
});

test('only the last 1024 measurements count', () => {
  const histogram = new Histogram();
  histogram.record(1_000_000);
  for (let n = 0; n < 1024; n += 1) histogram.record(1);
  expect(histogram.quantiles()).toEqual({ p50: 1, p99: 1, max: 1 });
});
