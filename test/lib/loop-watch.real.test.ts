import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { afterEach, describe, expect, test } from 'vitest';
import { deferred } from '../../lib/abort.ts';
import { type LoopBlock, LoopWatch, working } from '../../lib/loop-watch.ts';

/** Milliseconds that this thread has had a processor (proc(5), schedstat); of a turn that goes on the kernel counts late. */
const ranMs = (): number =>
  Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'latin1').split(' ')[0]) / 1e6;

/**
 * Keeps the processor, as a defect would: for that long of its own time, for others may want the machine as well. It looks
 * seldom, because each look leaves something to collect.
 */
const spin = (ms: number): void => {
  const before = ranMs();
  let sum = 0;
  do for (let step = 0; step < 1_000_000; step += 1) sum += step & 1;
  while (ranMs() - before < ms);
  expect(sum).toBeGreaterThan(0);
};

let watch: LoopWatch | undefined;
afterEach(() => watch?.stop());

/** A watch, and the first standstill that fits. */
const watching = (fits: (block: LoopBlock) => boolean): Promise<LoopBlock> => {
  const seen = deferred<LoopBlock>();
  watch = new LoopWatch((block) => {
    if (fits(block)) seen.resolve(block);
  });
  watch.start();
  return seen.promise;
};

describe('a standstill of the event loop', () => {
  test('is told by the name of the work that made it', async () => {
    const seen = watching(({ work }) => work === 'query-guests');
    expect(working('query-guests', () => spin(60))).toBeUndefined();
    // Less what was collected meanwhile.
    expect((await seen).ms).toBeGreaterThan(30);
    expect(watch?.blocks().latest.map(({ work }) => work)).toContain('query-guests');
  });

  test('tells computing from a wait in the kernel', async () => {
    const seen = watching(({ work }) => work === 'a pipe');
    working('a pipe', () => spawnSync('sleep', ['0.1']));
    const { ms, cpuMs } = await seen;
    expect(ms).toBeGreaterThan(80);
    expect(cpuMs).toBeLessThan(ms / 2);
  });

  test('is told by the innermost name', async () => {
    const seen = watching(({ work }) => work === 'inner');
    working('outer', () => working('inner', () => spin(60)));
    await seen;
    expect(watch?.blocks().worst.map(({ work }) => work)).not.toContain('outer');
  });

  test('in what goes on after an await is told as having come after the last name', async () => {
    const seen = watching(({ work }) => work === 'after guest-start/launch');
    await working('guest-start/launch', () => Promise.resolve());
    spin(60);
    expect((await seen).ms).toBeGreaterThan(20);
  });

  test('is not what others take of the processor', async () => {
    const seen = watching(({ work }) => work === 'waiting for a processor');
    // More of them than there are processors, so that the kernel makes each wait for its turn.
    const others = Array.from({ length: 4 * availableParallelism() }, () =>
      spawn(process.execPath, ['-e', 'for (;;);'], { stdio: 'ignore' }),
    );
    const busy = setInterval(() => working('little by little', () => spin(5)), 1);
    try {
      await seen;
      expect(watch?.blocks().worst.map(({ work }) => work)).not.toContain('little by little');
    } finally {
      clearInterval(busy);
      for (const other of others) {
        const gone = once(other, 'exit');
        other.kill('SIGKILL');
        await gone;
      }
    }
  });

  test('keeps the worst first, and no more than a few', async () => {
    const last = watching(({ work }) => work === 'work 11');
    for (let number = 0; number < 12; number += 1) working(`work ${number}`, () => spin(40 + number));
    await last;
    const { count, worst, latest } = watch?.blocks() ?? { count: 0, worst: [], latest: [] };
    // A busy machine may hold up the loop besides.
    expect(count).toBeGreaterThanOrEqual(12);
    expect(worst).toHaveLength(8);
    expect(worst.map(({ ms }) => ms)).toEqual(worst.map(({ ms }) => ms).toSorted((a, b) => b - a));
    expect(latest.map(({ work }) => work)).toContain('work 11');
  });

  test('is not looked for when nobody watches', () => {
    expect(working('anything', () => 7)).toBe(7);
    expect(() =>
      working('anything', () => {
        throw new Error('passes through');
      }),
    ).toThrow('passes through');
  });
});
