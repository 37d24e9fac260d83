import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { systemClock } from '../../lib/clock.ts';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

test('calls back once, after the delay and not before', () => {
  const called = vi.fn<() => void>();
  systemClock.after(1000, called);
  vi.advanceTimersByTime(999);
  expect(called).not.toHaveBeenCalled();
  vi.advanceTimersByTime(1);
  expect(called).toHaveBeenCalledTimes(1);
  vi.advanceTimersByTime(10_000);
  expect(called).toHaveBeenCalledTimes(1);
});

test('does not call back once cancelled', () => {
  const called = vi.fn<() => void>();
  systemClock.after(1000, called)();
  vi.advanceTimersByTime(2000);
  expect(called).not.toHaveBeenCalled();
});

test('a moment that has passed is called back for in the next turn', () => {
  const called = vi.fn<() => void>();
  systemClock.after(-5, called);
  expect(called).not.toHaveBeenCalled();
  vi.advanceTimersByTime(1);
  expect(called).toHaveBeenCalledTimes(1);
});

test('a delay beyond what a timer can hold does not come early', () => {
  const called = vi.fn<() => void>();
  const monthMs = 30 * 86_400_000;
  const cancel = systemClock.after(monthMs, called);
  vi.advanceTimersByTime(monthMs - 1);
  expect(called).not.toHaveBeenCalled();
  vi.advanceTimersByTime(1);
  expect(called).toHaveBeenCalledTimes(1);
  cancel();
});

test('a long delay can be cancelled after its first timer has passed', () => {
  const called = vi.fn<() => void>();
  const cancel = systemClock.after(2 ** 31 + 1000, called);
  vi.advanceTimersByTime(2 ** 31);
  cancel();
  vi.advanceTimersByTime(2 ** 31);
  expect(called).not.toHaveBeenCalled();
});
