import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  formatAge,
  formatDuration,
  formatSize,
  parseDuration,
  parseInteger,
  parseSize,
  UnitError,
} from '../../cli/units.ts';

describe('sizes', () => {
  it.each([
    ['0', 0],
    ['4096', 4096],
    ['512B', 512],
    ['4GiB', 4 * 1024 ** 3],
    ['4gib', 4 * 1024 ** 3],
    ['4 GiB', 4 * 1024 ** 3],
    ['4GB', 4_000_000_000],
    ['1.5KiB', 1536],
    ['0.1KB', 100],
  ])('reads %s as %i bytes', (text, bytes) => {
    expect(parseSize(text)).toBe(bytes);
  });

  it.each([
    ['', 'not a size'],
    ['GiB', 'not a size'],
    ['-1', 'not a size'],
    ['1e3', 'not a size'],
    ['4G', 'write 4GiB (powers of 1024) or 4GB (powers of 1000)'],
    ['4 potatoes', 'unknown unit'],
    ['1.5', 'not a whole number of bytes'],
    ['0.3KiB', 'not a whole number of bytes'],
    ['8PiB', 'too large'],
  ])('refuses %j: %s', (text, message) => {
    expect(() => parseSize(text)).toThrow(message);
  });

  it('reads what it shows, up to the one decimal shown', () => {
    fc.assert(
      fc.property(fc.nat(Number.MAX_SAFE_INTEGER), (bytes) => {
        const shown = formatSize(bytes);
        expect(shown).toMatch(/^\d{1,4}(\.\d)?([KMGTP]i)?B$/);
        const [, number = '', unit = ''] = /^([\d.]+)(\w+)$/.exec(shown) ?? [];
        const again = Number(number) * parseSize(`1${unit}`);
        expect(Math.abs(again - bytes)).toBeLessThanOrEqual(Math.max(bytes * 0.06, 0));
      }),
    );
  });

  it('shows whole units exactly', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 1023 }), fc.integer({ min: 0, max: 4 }), (count, power) => {
        const bytes = count * 1024 ** power;
        expect(parseSize(formatSize(bytes))).toBe(bytes);
      }),
    );
  });

  it('throws nothing but UnitError', () => {
    const outcomeOf = (parse: (text: string) => number, text: string): string => {
      try {
        return Number.isSafeInteger(parse(text)) ? 'integer' : 'strange number';
      } catch (error) {
        return error instanceof UnitError ? 'refused' : `threw ${String(error)}`;
      }
    };
    fc.assert(
      fc.property(fc.string(), fc.constantFrom(parseSize, parseDuration, parseInteger), (text, parse) => {
        expect(['integer', 'refused']).toContain(outcomeOf(parse, text));
      }),
    );
  });
});

describe('durations', () => {
  it.each([
    ['0', 0],
    ['30s', 30_000],
    ['2m', 120_000],
    ['1h30m', 5_400_000],
    ['1.5s', 1_500],
    ['250ms', 250],
    ['1d', 86_400_000],
    ['1m5ms', 60_005],
  ])('reads %s as %i ms', (text, milliseconds) => {
    expect(parseDuration(text)).toBe(milliseconds);
  });

  it.each([
    ['30', 'no unit; write 30s, 30m or 30ms'],
    ['', 'not a duration'],
    ['5x', 'not a duration'],
    ['30s2m', 'not a duration'],
    ['-5s', 'not a duration'],
  ])('refuses %j: %s', (text, message) => {
    expect(() => parseDuration(text)).toThrow(message);
  });

  it('reads what it shows, within the smaller of the two units shown', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 10 ** 11 }), (milliseconds) => {
        const again = parseDuration(formatDuration(milliseconds));
        expect(again).toBeLessThanOrEqual(milliseconds);
        expect(milliseconds - again).toBeLessThanOrEqual(milliseconds * 0.05 + 999);
      }),
    );
  });

  it.each([
    [0, '0s'],
    [250, '250ms'],
    [30_000, '30s'],
    [90_000, '1m30s'],
    [7_500_000, '2h5m'],
    [86_400_000, '1d'],
    [1_500, '1s'],
  ])('shows %i ms as %s', (milliseconds, text) => {
    expect(formatDuration(milliseconds)).toBe(text);
  });
});

describe('moments', () => {
  it.each([
    [1_000_000, 'just now'],
    [1_000_000 - 3_000, '3s ago'],
    [1_000_000 - 185_000, '3m ago'],
    [1_000_000 + 5_000, 'in 5s'],
  ])('shows %i, seen from 1000000, as %s', (at, text) => {
    expect(formatAge(at, 1_000_000)).toBe(text);
  });
});
