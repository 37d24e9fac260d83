/**
 * A list of many running guests of which a fifth is stopped by a signal: it is answered from memory, so it must take no
 * longer than without. Both are measured in turn in one run, as others may want the machine as well, and whether the
 * difference is more than noise is asked of the measurements themselves: how often does chance, when it deals the two
 * names anew in each round, make as large a one (a permutation test)?
 */
import { expect, it } from 'vitest';
import { describeWith } from '../harness/needs.ts';
import { type RealDaemon, testDaemonHome } from '../harness/real-daemon.ts';
import { importBootSector, tinyGuest } from '../harness/tiny-guests.ts';
import { guestPids } from './inspector.ts';
import type { Random } from './random.ts';
import { figure, isLong, progress, seededRandom, sized, timeoutMs } from './scale.ts';

const ROUNDS = 40;
const LISTS_A_ROUND = 25;
/** What is at most noise whatever chance says: timers, caches. A list that waited for one guest would be 5,000 ms. */
const TOLERATED_RATIO = 1.25;
const DEALS = 2_000;
/** A difference that chance makes less often than this is one. */
const SIGNIFICANCE = 0.001;

/** Milliseconds that lists of one round took. */
interface Round {
  readonly without: readonly number[];
  readonly stopped: readonly number[];
}

const percentile99 = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length * 0.99)] ?? Number.NaN;

const ratioOf = (rounds: readonly Round[]): number =>
  percentile99(rounds.flatMap(({ stopped }) => stopped)) /
  percentile99(rounds.flatMap(({ without }) => without));

/** The share of deals in which chance alone makes as large a ratio. */
const chanceOf = (rounds: readonly Round[], random: Random): number => {
  const ratio = ratioOf(rounds);
  const dealt = (): readonly Round[] =>
    rounds.map((round) => (random.chance(0.5) ? round : { without: round.stopped, stopped: round.without }));
  return Array.from({ length: DEALS }, () => ratioOf(dealt())).filter((each) => each >= ratio).length / DEALS;
};

const listTimes = async (daemon: RealDaemon, guests: number): Promise<readonly number[]> => {
  const times: number[] = [];
  for (let count = 0; count < LISTS_A_ROUND; count += 1) {
    const begun = performance.now();
    const page = await daemon.client.call('query-guests', { limit: 1000 });
    times.push(performance.now() - begun);
    expect(page.guests).toHaveLength(guests);
  }
  return times;
};

describeWith(['qemu', 'qemu-img'], 'a list of guests of which a fifth is stopped', () => {
  it('takes as long as one of which none is', { timeout: timeoutMs }, async () => {
    const guests = isLong ? 200 : 20;
    const home = await testDaemonHome({ ownNamespace: false });
    const daemon = await home.start();
    await importBootSector(daemon, 'idle');
    for (let number = 0; number < guests; number += 1) {
      const { operation } = await daemon.client.call('guest-create', {
        ...tinyGuest(`g${String(number).padStart(3, '0')}`, 'idle'),
        start: true,
      });
      await daemon.client.call('operation-wait', { operation });
    }
    const pids = (await guestPids(home)).slice(0, guests / 5);
    expect(pids).toHaveLength(guests / 5);
    const rounds: Round[] = [];
    const random = seededRandom();
    const withStopped = async (): Promise<readonly number[]> => {
      for (const pid of pids) process.kill(pid, 'SIGSTOP');
      const times = await listTimes(daemon, guests);
      for (const pid of pids) process.kill(pid, 'SIGCONT');
      return times;
    };
    for (let number = 0; number < sized({ short: 6, long: ROUNDS }); number += 1) {
      // Each comes first in every other round: what drifts is nobody's.
      const first = number % 2 === 0 ? await listTimes(daemon, guests) : await withStopped();
      const second = number % 2 === 0 ? await withStopped() : await listTimes(daemon, guests);
      rounds.push(
        number % 2 === 0 ? { without: first, stopped: second } : { without: second, stopped: first },
      );
    }
    const [ratio, chance] = [ratioOf(rounds), chanceOf(rounds, random)];
    const [ours, theirs] = [
      percentile99(rounds.flatMap(({ stopped }) => stopped)),
      percentile99(rounds.flatMap(({ without }) => without)),
    ];
    progress(
      `99 % of lists: ${ours.toFixed(1)} ms with ${pids.length} stopped, ${theirs.toFixed(1)} ms without; chance ${chance}`,
    );
    figure(`list of ${guests} guests, ${pids.length} stopped: ms at 99 %`, ours.toFixed(2));
    figure(`list of ${guests} guests, none stopped: ms at 99 %`, theirs.toFixed(2));
    figure(
      `list of ${guests} guests: ratio, and how often chance makes as large a one`,
      `${ratio.toFixed(2)}, ${chance}`,
    );
    expect({ ratio, isMoreThanNoise: isLong && ratio > TOLERATED_RATIO && chance < SIGNIFICANCE }).toEqual({
      ratio,
      isMoreThanNoise: false,
    });
    await daemon.stop();
  });
});
