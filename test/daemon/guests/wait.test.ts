import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { judge, type Waited } from '../../../daemon/guests/wait.ts';
import { type GuestWait, guestWaits } from '../../../protocol/commands/guest.ts';
import { type GuestState, guestStates } from '../../../protocol/guest.ts';

const ready = { kind: 'lease', address: '10.91.7.2', at: 1 } as const;
const waited = (view: Partial<Waited['view']>, unfinished: readonly string[] = []): Waited => ({
  view: { name: 'web1', state: 'running', restarts: { count: 0 }, ...view },
  unfinished,
});

describe('judge', () => {
  test.each<[Waited, GuestWait, ReturnType<typeof judge>]>([
    [waited({ ready }), 'ready', 'reached'],
    [waited({}), 'ready', 'waiting'],
    [waited({ state: 'paused', ready }), 'ready', 'waiting'],
    [waited({ state: 'unresponsive', ready }), 'ready', 'waiting'],
    [waited({}), 'running', 'reached'],
    [waited({ state: 'starting' }), 'running', 'waiting'],
    [waited({ state: 'stopped' }), 'running', 'hopeless'],
    [waited({ state: 'failed' }), 'ready', 'hopeless'],
    [waited({ state: 'failed', restarts: { count: 1, nextAt: 9 } }), 'ready', 'waiting'],
    [waited({ state: 'stopped' }, ['guest-create']), 'ready', 'waiting'],
    [waited({ state: 'stopped' }, ['guest-start']), 'paused', 'waiting'],
    [waited({ state: 'stopped' }, ['guest-update']), 'paused', 'hopeless'],
    [waited({ state: 'stopped' }), 'stopped', 'reached'],
    [waited({ state: 'failed' }), 'stopped', 'reached'],
    [waited({ state: 'stopped' }, ['guest-start']), 'stopped', 'waiting'],
    [waited({}), 'stopped', 'waiting'],
  ])('%j until %s: %s', (now, until, verdict) => {
    expect(judge(now, until)).toBe(verdict);
  });

  test('whatever is seen, only a guest without a process and without a start ahead is hopeless', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...(Object.keys(guestStates) as GuestState[])),
        fc.boolean(),
        fc.subarray(['guest-create', 'guest-start', 'guest-stop', 'guest-update']),
        fc.option(fc.nat(), { nil: undefined }),
        fc.constantFrom(...(Object.keys(guestWaits) as GuestWait[])),
        (state, isReady, unfinished, nextAt, until) => {
          const restarts = { count: 0, ...(nextAt === undefined ? {} : { nextAt }) };
          const verdict = judge(
            waited({ state, restarts, ...(isReady ? { ready } : {}) }, unfinished),
            until,
          );
          const ended = state === 'stopped' || state === 'failed';
          const starts = unfinished.some((kind) => kind === 'guest-create' || kind === 'guest-start');
          expect(verdict === 'hopeless').toBe(
            ended && !starts && nextAt === undefined && until !== 'stopped',
          );
        },
      ),
    );
  });
});
