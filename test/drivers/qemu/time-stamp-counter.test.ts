import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { khzBetween, tscKhz } from '../../../drivers/qemu/time-stamp-counter.ts';

it('the rate of the counter is what it has counted by the clock', () => {
  const first = { ticks: 1_000, nanoseconds: 5_000 };
  expect(khzBetween(first, { ticks: 1_000 + 48_000_000, nanoseconds: 5_000 + 20_000_000 })).toBe(2_400_000);
});

it('a counter that was set back has no rate', () => {
  expect(khzBetween({ ticks: 9, nanoseconds: 1 }, { ticks: 3, nanoseconds: 2 })).toBeUndefined();
  expect(khzBetween({ ticks: 3, nanoseconds: 1 }, { ticks: 9, nanoseconds: 1 })).toBeUndefined();
});

it('is measured once, and not far from what the processor runs at', async () => {
  const [one, other] = await Promise.all([tscKhz(), tscKhz()]);
  expect(other).toBe(one);
  const mhz = Number(/^cpu MHz\s*: ([\d.]+)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1] ?? 2000);
  expect(one / 1000 / mhz).toBeGreaterThan(0.1);
  expect(one / 1000 / mhz).toBeLessThan(10);
});
