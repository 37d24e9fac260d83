/**
 * Thousands of guests that live and die under one daemon, networks beside them, and thousands of sessions with one
 * monitor after another: what the process keeps grows with none of them.
 */
import { describe, expect, it } from 'vitest';
import { Monitor } from '../../drivers/processes/monitor.ts';
import { TranscriptWriter } from '../../drivers/processes/transcript.ts';
import { silentLog } from '../../lib/log.ts';
import { aGuest, fakeHouse } from '../daemon/fake-house.ts';
import { FakeQemu } from '../fake-qemu/fake-qemu.ts';
import { figure, isLong, progress, sized, timeoutMs } from './scale.ts';
import { keepingNow, type Look, lookText, storyOf, trendOf } from './steady-state.ts';

/** Lives side by side. */
const AT_A_TIME = 8;
const LOOKS = 40;
/** What a life may add to the heap in the trend; in the short form code is compiled all the time. A closure is more. */
const ALLOWED_BYTES_A_LIFE = isLong ? 16 : 4_000;

/** Does the work `total` times and looks again and again at what is kept. */
const measured = async (
  what: string,
  total: number,
  work: (number: number) => Promise<void>,
): Promise<readonly Look[]> => {
  const looks: Look[] = [];
  const begun = performance.now();
  for (let done = 0; done < total; ) {
    const until = (total * (looks.length + 1)) / LOOKS;
    for (; done < until; done += AT_A_TIME) {
      const from = done;
      await Promise.all(Array.from({ length: AT_A_TIME }, (_, index) => work(from + index)));
    }
    const look = { done, ...(await keepingNow()) };
    looks.push(look);
    progress(`${what}: ${done} of ${total}, ${lookText(look)}`);
  }
  figure(what, looks.at(-1)?.done ?? 0);
  figure(`${what}: MiB of heap at 1/4, 1/2, 3/4, 1`, storyOf(looks));
  figure(`${what}: bytes of heap a piece, trend of the later half`, trendOf(looks).toFixed(1));
  figure(`${what}: descriptors`, [...new Set(looks.map(({ descriptors }) => descriptors))].join(', '));
  figure(`${what}: seconds`, Math.round((performance.now() - begun) / 1000));
  return looks;
};

/** What is to be the same however long it went on. */
const verdictOf = (looks: readonly Look[]): { readonly grows: boolean; readonly descriptors: number } => ({
  grows: trendOf(looks) >= ALLOWED_BYTES_A_LIFE,
  descriptors: new Set(looks.map(({ descriptors }) => descriptors)).size,
});

describe('memory and descriptors stay flat', () => {
  it('over the lives of guests under one daemon', { timeout: timeoutMs }, async () => {
    const house = await fakeHouse();
    const daemon = await house.start();
    const { client } = daemon;
    await client.done('network-create', { name: 'lan' });
    const looks = await measured('lifecycles', sized({ short: 504, long: 20_000 }), async (number) => {
      const name = `g${number}`;
      await client.done('guest-create', { ...aGuest(name, { nics: [{ network: 'lan' }] }), start: true });
      if (number % 3 === 0) await client.done('guest-stop', { guest: name, force: true });
      else if (number % 3 === 1) {
        await client.done('guest-pause', { guest: name });
        await client.done('guest-resume', { guest: name });
      }
      await client.done('guest-delete', { guest: name, force: true });
      // What the pretended host remembers for tests is no part of what is measured.
      house.host.forget(name);
      house.pool.calls.length = 0;
      client.events.length = 0;
    });
    expect(verdictOf(looks)).toEqual({ grows: false, descriptors: 1 });
    expect(daemon.ledger).toEqual(await daemon.host());
    expect((await client.call('query-guests', {})).total).toBe(0);
  });

  it('over sessions with monitors that come and go', { timeout: timeoutMs }, async () => {
    const signal = new AbortController().signal;
    // As many as it takes for a few bytes a session to stand out of what the heap goes up and down by.
    const looks = await measured('sessions', sized({ short: 504, long: 100_000 }), async (number) => {
      await using fake = await FakeQemu.listen(async (peer) => {
        await peer.negotiate();
        peer.reply(await peer.receive());
        peer.event('RESUME');
        const last = await peer.receive();
        // Some go without a word, some in the middle of one.
        if (number % 3 === 0) peer.raw('{"return": {');
        if (number % 3 === 2) peer.reply(last, { status: 'running', running: true });
        else peer.destroy();
      });
      const transcript = new TranscriptWriter(`${fake.path}.log`, silentLog());
      const monitor = await Monitor.open(
        {
          path: fake.path,
          pid: process.pid,
          program: 'QEMU',
          silenceAfterMs: 60_000,
          log: silentLog(),
          transcript,
          onRing: () => undefined,
          onSilent: () => undefined,
          onHeard: () => undefined,
        },
        signal,
      );
      await monitor.execute('cont', {}, signal);
      await monitor.execute('query-status', {}, signal).catch(() => undefined);
      await monitor.close();
      await transcript.close();
    });
    expect(verdictOf(looks)).toEqual({ grows: false, descriptors: 1 });
  });
});
