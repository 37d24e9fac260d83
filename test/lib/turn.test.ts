import { expect, it } from 'vitest';
import { isTurnOver } from '../../lib/turn.ts';

const spin = (ms: number): void => {
  const before = performance.now();
  while (performance.now() - before < ms);
};
const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

it('is over when those who asked have used it up, and for all of them', async () => {
  await nextTurn();
  expect(isTurnOver()).toBe(false);
  spin(3);
  await Promise.resolve();
  spin(3);
  expect(isTurnOver()).toBe(true);
  await nextTurn();
  expect(isTurnOver()).toBe(false);
});

it('lets each of many do its step, and none of them a second one in a turn that is over', async () => {
  await nextTurn();
  const steps: string[] = [];
  const serve = async (name: string, count: number): Promise<void> => {
    for (let left = count; left > 0; left -= 1) {
      steps.push(name);
      spin(6);
      if (isTurnOver()) await nextTurn();
    }
  };
  await Promise.all([serve('a', 4), serve('b', 4), serve('c', 4)]);
  for (const name of ['a', 'b', 'c']) expect(steps.slice(0, 6)).toContain(name);
});
