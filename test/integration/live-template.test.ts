/** A template made of a running guest, while daemons die or fail at every step of it: the guest runs on, and nothing is lost. */
import { expect, test } from 'vitest';
import { boxGuest } from '../harness/box-guests.ts';
import { leaveNothing } from '../harness/leave-nothing.ts';
import { provideMicrovmImages } from '../harness/microvm-images.ts';
import { describeWith } from '../harness/needs.ts';
import { type DaemonHome, type RealDaemon, testDaemonHome } from '../harness/real-daemon.ts';

const STEPS = [
  'turn',
  'directory',
  'disks',
  'volumes',
  'ports',
  'launch',
  'hand-over',
  'share',
  'layers',
  'record',
  'go-on',
] as const;
/** From here on there is no way back. */
const RECORD = STEPS.indexOf('record');
const SCRIPT = 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done';

const images = provideMicrovmImages();

/**
 * What the program has counted; the guest runs on in the same memory if no number comes twice. Missing is at most what was
 * on its way to a daemon that was killed.
 */
const countedBeyond = async (daemon: RealDaemon, before: number, place?: string): Promise<number> => {
  for (;;) {
    let text = '';
    for (let offset = 0; ; ) {
      const part = await daemon.client.call('query-guest-log', { guest: 'web', stream: 'program', offset });
      text += part.text;
      if (part.nextOffset === offset) break;
      offset = part.nextOffset;
    }
    const numbers = text.split('\n').slice(0, -1).map(Number);
    const sorted =
      place === undefined ? upTo(numbers.length) : [...new Set(numbers)].toSorted((a, b) => a - b);
    expect({ place, numbers }).toEqual({ place, numbers: sorted });
    if (numbers.length > before + 2) return numbers.length;
  }
};

const upTo = (count: number): readonly number[] => Array.from({ length: count }, (_, index) => index + 1);

const begin = async (): Promise<{ readonly home: DaemonHome; readonly daemon: RealDaemon }> => {
  const home = await testDaemonHome();
  const daemon = await home.start();
  await images.importInto(daemon);
  await daemon.succeed('network-create', { name: 'lan', kind: 'nat' });
  const program = { image: 'box', command: ['sh', '-c', SCRIPT] };
  await daemon.succeed('guest-create', boxGuest('web', { program, nics: [{ network: 'lan' }], start: true }));
  return { home, daemon };
};

const isThere = async (daemon: RealDaemon, name: string): Promise<boolean> =>
  (await daemon.client.call('query-guests', { nameGlob: name })).total > 0;

describeWith(
  ['root', 'qemu', 'qemu-img', 'sqfstar', 'nft', 'ip', 'dnsmasq', 'tun'],
  'a template of a guest that runs',
  () => {
    test('is made or is not, wherever the daemon dies, and the guest runs on', {
      timeout: 300_000,
    }, async () => {
      const { home, daemon: first } = await begin();
      let counted = await countedBeyond(first, 0);
      await first.stop();
      for (const [index, step] of STEPS.entries())
        for (const moment of ['before', 'after'] as const) {
          const place = `template-create/${step}/${moment}`;
          const name = `t${index}-${moment}`;
          const doomed = await home.start({ crashAt: place });
          const asked = { guest: 'web', name, idempotencyKey: name };
          await expect(doomed.change('template-create', asked)).rejects.toThrow(/connection/i);
          expect(await doomed.ended).toEqual({ code: null, signal: 'SIGKILL' });

          const next = await home.start();
          const { state } = await next.change('template-create', asked);
          const isMade = await isThere(next, name);
          expect({ place, isMade }).toEqual({ place, isMade: state === 'succeeded' });
          expect({ place, state: index > RECORD ? state : 'succeeded' }).toEqual({
            place,
            state: 'succeeded',
          });
          expect(await next.guest('web')).toMatchObject({ state: 'running' });
          counted = await countedBeyond(next, counted, place);
          await next.stop();
          const { ledger, host } = await home.compare();
          expect({ place, host }).toEqual({ place, host: ledger });
        }
      await leaveNothing({ home, daemon: await home.start() });
    });

    test('leaves the guest as it was where a step fails', { timeout: 300_000 }, async () => {
      const { home, daemon: first } = await begin();
      let counted = await countedBeyond(first, 0);
      const { process } = await first.guest('web');
      await first.stop();
      for (const step of STEPS.slice(0, RECORD)) {
        const place = `template-create/${step}/before`;
        const daemon = await home.start({ failAt: place });
        const { state } = await daemon.change('template-create', { guest: 'web', name: 'failed' });
        expect({ place, state }).toEqual({ place, state: 'failed' });
        expect(await isThere(daemon, 'failed')).toBe(false);
        expect((await daemon.guest('web')).process).toEqual(process);
        counted = await countedBeyond(daemon, counted);
        await daemon.stop();
        const { ledger, host } = await home.compare();
        expect({ place, host }).toEqual({ place, host: ledger });
      }
      await leaveNothing({ home, daemon: await home.start() });
    });
  },
);
