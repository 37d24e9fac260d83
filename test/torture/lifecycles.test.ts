/**
 * Thousands of guests that live and die under one daemon, and thousands of sessions with one monitor after another: what
 * the process keeps afterwards is what it kept in the middle.
 */
import { describe, expect, it } from 'vitest';
import { Monitor } from '../../drivers/qemu/monitor.ts';
import { TranscriptWriter } from '../../drivers/qemu/transcript.ts';
import { silentLog } from '../../lib/log.ts';
import { aGuest, fakeHouse } from '../daemon/fake-house.ts';
import { FakeQemu } from '../fake-qemu/fake-qemu.ts';
import { figure, progress, sized, timeoutMs } from './scale.ts';
import { type Keeping, keepingNow } from './steady-state.ts';

/** Lives side by side. */
const AT_A_TIME = 8;
/** What the second half may add: statistics that fill up, compiled code. A leak of 500 bytes a life is more. */
const ALLOWED_GROWTH_BYTES = 4 * 1024 * 1024;

/** Does the work `total` times and looks at what is kept at a quarter, at a half and at the end. */
const measured = async (
  what: string,
  total: number,
  work: (number: number) => Promise<void>,
): Promise<readonly Keeping[]> => {
  const keeping: Keeping[] = [];
  const begun = performance.now();
  let done = 0;
  for (const share of [0.25, 0.5, 1]) {
    while (done < total * share) {
      const from = done;
      await Promise.all(Array.from({ length: AT_A_TIME }, (_, index) => work(from + index)));
      done += AT_A_TIME;
    }
    const now = await keepingNow();
    keeping.push(now);
    progress(
      `${what}: ${done} of ${total}, ${(now.heapBytes / 2 ** 20).toFixed(1)} MiB, ${now.descriptors} descriptors`,
    );
  }
  figure(what, done);
  figure(
    `${what}: MiB of heap at 1/4, 1/2, 1`,
    keeping.map(({ heapBytes }) => (heapBytes / 2 ** 20).toFixed(1)).join(', '),
  );
  figure(`${what}: descriptors at 1/4, 1/2, 1`, keeping.map(({ descriptors }) => descriptors).join(', '));
  figure(`${what}: seconds`, Math.round((performance.now() - begun) / 1000));
  return keeping;
};

describe('memory and descriptors stay flat', () => {
  it('over the lives of guests under one daemon', { timeout: timeoutMs }, async () => {
    const house = await fakeHouse();
    const daemon = await house.start();
    const { client } = daemon;
    await client.done('network-create', { name: 'lan' });
    const [, half, end] = await measured(
      'lifecycles',
      sized({ short: 504, long: 20_000 }),
      async (number) => {
        const name = `g${number}`;
        await client.done('guest-create', { ...aGuest(name, { nics: [{ network: 'lan' }] }), start: true });
        if (number % 3 === 0) await client.done('guest-stop', { guest: name, force: true });
        else if (number % 3 === 1) {
          await client.done('guest-pause', { guest: name });
          await client.done('guest-resume', { guest: name });
        }
        await client.done('guest-delete', { guest: name, force: true });
        house.host.forget(name);
        client.events.length = 0;
      },
    );
    expect((end?.heapBytes ?? 0) - (half?.heapBytes ?? 0)).toBeLessThan(ALLOWED_GROWTH_BYTES);
    expect(end?.descriptors).toBe(half?.descriptors);
    expect(daemon.ledger).toEqual(await daemon.host());
    expect((await client.call('query-guests', {})).total).toBe(0);
  });

  it('over sessions with monitors that come and go', { timeout: timeoutMs }, async () => {
    const signal = new AbortController().signal;
    const [, half, end] = await measured('sessions', sized({ short: 504, long: 20_000 }), async (number) => {
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
    expect((end?.heapBytes ?? 0) - (half?.heapBytes ?? 0)).toBeLessThan(ALLOWED_GROWTH_BYTES);
    expect(end?.descriptors).toBe(half?.descriptors);
  });
});
