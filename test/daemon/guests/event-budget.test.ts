import { describe, expect, test } from 'vitest';
import { EventBudget } from '../../../daemon/guests/event-budget.ts';

const HOUR_MS = 3_600_000;

describe('the budget of a guest for events of its own', () => {
  test('ends a flood, counts what it left out, and is there again later', () => {
    const budget = new EventBudget();
    const admitted = Array.from({ length: 10_000 }, () => budget.admits(HOUR_MS)).filter(Boolean).length;
    expect(admitted).toBe(500);
    expect(budget.takeSkipped()).toBe(9_500);
    expect(budget.takeSkipped()).toBe(0);
    expect(budget.admits(HOUR_MS + 49)).toBe(false);
    expect(budget.admits(HOUR_MS + 50)).toBe(true);
  });

  test('lets pass what was gathered over hours, however fast it is read', () => {
    const budget = new EventBudget();
    const times = Array.from({ length: 10_000 }, (_, index) => HOUR_MS + index * 50);
    expect(times.every((at) => budget.admits(at))).toBe(true);
  });

  test('is not refilled by a clock that goes back and forth', () => {
    const budget = new EventBudget();
    for (let count = 0; count < 500; count += 1) budget.admits(HOUR_MS);
    expect(budget.admits(0)).toBe(false);
    expect(budget.admits(HOUR_MS)).toBe(false);
  });
});
