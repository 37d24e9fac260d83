/**
 * A list of many running guests of which a fifth is stopped by a signal: it is answered from memory, so it must take no
 * longer than without. Both are measured in turn in one run, as others may want the machine as well. Only the long form
 * holds the ratio to a band, and a wide one.
 */
import { expect, it } from 'vitest';
import { describeWith } from '../harness/needs.ts';
import { type RealDaemon, testDaemonHome } from '../harness/real-daemon.ts';
import { importBootSector, tinyGuest } from '../harness/tiny-guests.ts';
import { guestPids } from './inspector.ts';
import { figure, isLong, progress, sized, timeoutMs } from './scale.ts';

const ROUNDS = 10;
const LISTS_A_ROUND = 40;
/** Noise of a shared machine at the 99th percentile; a list that waited for one guest would be 5,000 ms. */
const BAND = { factor: 3, ms: 10 } as const;

const percentile99 = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length * 0.99)] ?? Number.NaN;

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
    const guests = sized({ short: 20, long: 200 });
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
    const without: number[] = [];
    const stopped: number[] = [];
    for (let round = 0; round < ROUNDS; round += 1) {
      without.push(...(await listTimes(daemon, guests)));
      for (const pid of pids) process.kill(pid, 'SIGSTOP');
      stopped.push(...(await listTimes(daemon, guests)));
      for (const pid of pids) process.kill(pid, 'SIGCONT');
    }
    const [ours, theirs] = [percentile99(stopped), percentile99(without)];
    progress(
      `99 % of lists: ${ours.toFixed(1)} ms with ${pids.length} stopped, ${theirs.toFixed(1)} ms without`,
    );
    figure(`list of ${guests} guests, ${pids.length} stopped: ms at 99 %`, ours.toFixed(2));
    figure(`list of ${guests} guests, none stopped: ms at 99 %`, theirs.toFixed(2));
    figure(`list of ${guests} guests: ratio`, (ours / theirs).toFixed(2));
    expect(isLong ? ours : 0).toBeLessThan(theirs * BAND.factor + BAND.ms);
    await daemon.stop();
  });
});
