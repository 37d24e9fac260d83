/** When guests that wait are made and ended; how that is done is pretended. */
import { setImmediate as turn } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import type { Guest } from '../../../daemon/guests/guest.ts';
import { WaitingGuests, type WaitingOptions } from '../../../daemon/guests/waiting.ts';
import { type Deferred, deferred } from '../../../lib/abort.ts';
import { silentLog } from '../../../lib/log.ts';
import type { NetworkId } from '../../../protocol/types.ts';
import { ManualClock } from '../manual-clock.ts';

const QUIET_MS = 100;

const begin = () => {
  const clock = new ManualClock();
  const house = {
    clock,
    log: silentLog(),
    stopping: new AbortController().signal,
    operations: { isUnderWay: () => false, wait: async () => ({ state: 'succeeded' }) },
  };
  const template = {
    id: 'mother',
    name: 'mother',
    removed: false,
    unfinished: [],
    handle: {},
    record: { spec: { template: { madeAt: 1 } } },
  } as unknown as Guest;
  const there = new Set<Guest>();
  /** What is being made, the latest last. */
  const makings: Deferred<void>[] = [];
  const ends: Guest[] = [];
  let held: Promise<void> | undefined;
  const holdEnds = (): Deferred<void> => {
    const until = deferred<void>();
    held = until.promise;
    return until;
  };
  const options = {
    house,
    registry: { waiting: () => [...there], byId: () => template },
    most: 4,
    make: async () => {
      const making = deferred<void>();
      makings.push(making);
      await making.promise;
      there.add({
        name: `waiting-${makings.length}`,
        removed: false,
        unfinished: [],
        handle: {},
        status: { state: 'paused', applied: { prepared: true } },
        record: { spec: { forkOf: 'mother', nics: [{ network: 'lan', ipv4: `10.0.0.${makings.length}` }] } },
      } as unknown as Guest);
    },
    end: async (guest: Guest) => {
      ends.push(guest);
      await held;
      there.delete(guest);
      return { operation: 'end', id: guest.id };
    },
  } as unknown as WaitingOptions;
  const waiting = new WaitingGuests(options);
  /** Lets so much time go by, and whatever that sets going come as far as it can. */
  const pass = async (ms: number): Promise<void> => {
    clock.advance(ms);
    await turn();
  };
  const isMade = async (): Promise<void> => {
    makings.at(-1)?.resolve();
    await turn();
  };
  const fails = async (): Promise<void> => {
    makings.at(-1)?.reject(new Error('the test says no'));
    await turn();
  };
  /** Nothing is being made, and nothing will be before fewer are wanted. */
  const isQuiet = (): boolean => clock.delays.every((delay) => delay > QUIET_MS);
  return { clock, template, there, makings, ends, waiting, pass, isMade, fails, isQuiet, holdEnds };
};

describe('guests that wait', () => {
  it('give way to whoever wishes for an address of theirs, and to nobody else', async () => {
    const { template, there, makings, ends, waiting, pass, isMade } = begin();
    waiting.asked(template);
    await pass(QUIET_MS);
    await isMade();
    const [network, other] = ['lan', 'dmz'] as NetworkId[];
    if (!network || !other) throw new Error('no networks');
    await waiting.giveWay([
      { network, ipv4: '10.0.0.9' },
      { network: other, ipv4: '10.0.0.1' },
      { network, ipv4: undefined },
    ]);
    expect(ends).toHaveLength(0);
    await waiting.giveWay([{ network, ipv4: '10.0.0.1' }]);
    expect({ ended: ends.length, there: there.size }).toEqual({ ended: 1, there: 0 });
    await pass(QUIET_MS);
    expect(makings).toHaveLength(2);
  });

  it('are made one after the other, as many as were asked for, and end when nobody asks any more', async () => {
    const { template, there, makings, ends, waiting, pass, isMade, isQuiet } = begin();
    waiting.asked(template);
    waiting.asked(template);
    expect(makings).toHaveLength(0);
    await pass(QUIET_MS);
    expect(makings).toHaveLength(1);
    await isMade();
    await pass(QUIET_MS);
    expect(makings).toHaveLength(2);
    await isMade();
    await pass(QUIET_MS);
    expect({ made: makings.length, there: there.size, quiet: isQuiet() }).toEqual({
      made: 2,
      there: 2,
      quiet: true,
    });
    await pass(600_000);
    await pass(QUIET_MS);
    await pass(QUIET_MS);
    expect({ ended: ends.length, there: there.size }).toEqual({ ended: 2, there: 0 });
  });

  it('are made again where somebody asks while one is made that fails', async () => {
    const { template, there, makings, waiting, pass, isMade, fails } = begin();
    waiting.asked(template);
    await pass(QUIET_MS);
    // Long before it fails.
    waiting.asked(template);
    await pass(QUIET_MS);
    await fails();
    await pass(QUIET_MS);
    expect(makings).toHaveLength(2);
    await isMade();
    await pass(QUIET_MS);
    await isMade();
    expect(there.size).toBe(2);
  });

  it('are not made again where that failed, until somebody asks', async () => {
    const { template, makings, waiting, pass, fails } = begin();
    waiting.asked(template);
    await pass(QUIET_MS);
    await fails();
    for (let count = 0; count < 10; count += 1) await pass(QUIET_MS);
    expect(makings).toHaveLength(1);
    waiting.asked(template);
    await pass(QUIET_MS);
    expect(makings).toHaveLength(2);
  });

  it('are made where somebody asks while one is ended in vain', async () => {
    const { template, there, makings, ends, waiting, pass, isMade, holdEnds } = begin();
    waiting.asked(template);
    await pass(QUIET_MS);
    await isMade();
    await pass(QUIET_MS);
    const held = holdEnds();
    await pass(600_000);
    expect(ends).toHaveLength(1);
    waiting.asked(template);
    waiting.asked(template);
    await pass(QUIET_MS);
    held.reject(new Error('the test says no'));
    await turn();
    await pass(QUIET_MS);
    expect({ made: makings.length, there: there.size }).toEqual({ made: 2, there: 1 });
    await isMade();
    expect(there.size).toBe(2);
  });

  it('are made up for when one has died, though nothing was to be done', async () => {
    const { template, there, makings, waiting, pass, isMade, isQuiet } = begin();
    waiting.asked(template);
    await pass(QUIET_MS);
    await isMade();
    await pass(QUIET_MS);
    expect(isQuiet()).toBe(true);
    const [dead] = there;
    await waiting.died(dead as Guest);
    expect(there.size).toBe(0);
    await pass(QUIET_MS);
    expect(makings).toHaveLength(2);
    await isMade();
    expect(there.size).toBe(1);
  });

  it('are made no more once that is over', async () => {
    const { template, makings, waiting, pass, fails, clock } = begin();
    waiting.asked(template);
    await pass(QUIET_MS);
    waiting.asked(template);
    const idle = waiting.idle();
    await fails();
    await idle;
    expect(clock.delays).toEqual([]);
    expect(makings).toHaveLength(1);
  });
});
