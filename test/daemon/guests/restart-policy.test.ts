import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decideRestart, type EndedRun, LASTING_RUN_MS } from '../../../daemon/guests/restart-policy.ts';
import type { GuestSpec } from '../../../protocol/guest.ts';

type Policy = GuestSpec['restartPolicy'];
type When = Policy['when'];
const policy = (when: When, delayMs = 1000, maxDelayMs = 300_000): Policy => ({ when, delayMs, maxDelayMs });
const run = (change: Partial<EndedRun> = {}): EndedRun => ({
  cause: 'crashed',
  target: 'running',
  restartCount: 0,
  ranMs: 5000,
  ...change,
});

const causes = ['guest-shutdown', 'asked', 'killed', 'crashed', 'unknown'] as const;
const restartsAfter: Readonly<Record<When, readonly (typeof causes)[number][]>> = {
  never: [],
  'on-failure': ['killed', 'crashed', 'unknown'],
  always: ['guest-shutdown', 'killed', 'crashed', 'unknown'],
};

describe('which ends are followed by a restart', () => {
  const rows = (Object.keys(restartsAfter) as When[]).flatMap((when) =>
    causes.map((cause) => [when, cause, restartsAfter[when].includes(cause) ? 'restart' : 'rest'] as const),
  );
  test.each(rows)('policy %s after an end by %s: %s', (when, cause, kind) => {
    expect(decideRestart(policy(when), run({ cause })).kind).toBe(kind);
  });

  test('a guest that is to be stopped is never restarted', () => {
    fc.assert(
      fc.property(
        fc.constantFrom<When>('never', 'on-failure', 'always'),
        fc.constantFrom(...causes),
        (when, cause) => {
          expect(decideRestart(policy(when), run({ cause, target: 'stopped' })).kind).toBe('rest');
        },
      ),
    );
  });
});

describe('how long it waits', () => {
  test('the first delay doubles with each failure in a row up to the cap', () => {
    const delays = Array.from({ length: 11 }, (_, restartCount) =>
      decideRestart(policy('on-failure'), run({ restartCount })),
    ).map((decision) => (decision.kind === 'restart' ? decision.delayMs : undefined));
    expect(delays).toEqual([
      1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 128_000, 256_000, 300_000, 300_000,
    ]);
  });

  test('a run that lasted begins a new row', () => {
    const decision = decideRestart(policy('on-failure'), run({ restartCount: 8, ranMs: LASTING_RUN_MS }));
    expect(decision).toEqual({ kind: 'restart', delayMs: 1000, attempt: 1 });
  });

  test('a cap below the first delay caps the first', () => {
    expect(decideRestart(policy('always', 5000, 200), run())).toMatchObject({ delayMs: 200 });
  });

  test('delays only grow with the count, are never above the cap and never below the smaller of both', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 3_600_000 }),
        fc.integer({ min: 1, max: 86_400_000 }),
        fc.nat(10_000),
        (delayMs, maxDelayMs, restartCount) => {
          const at = (count: number): number => {
            const decision = decideRestart(
              policy('always', delayMs, maxDelayMs),
              run({ restartCount: count }),
            );
            if (decision.kind !== 'restart') throw new Error('expected a restart');
            expect(decision.attempt).toBe(count + 1);
            return decision.delayMs;
          };
          expect(at(restartCount)).toBeLessThanOrEqual(at(restartCount + 1));
          expect(at(restartCount)).toBeLessThanOrEqual(maxDelayMs);
          expect(at(restartCount)).toBeGreaterThanOrEqual(Math.min(delayMs, maxDelayMs));
        },
      ),
    );
  });
});
