/**
 * MicroVMs booted over and over: a kernel that stands still while it boots is booted again, so that no start hangs and
 * none fails. Two guests, each of which ends with its program and is started again.
 */
import { expect, it } from 'vitest';
import { MEBIBYTE } from '../../protocol/types.ts';
import { leaveNothing } from '../harness/leave-nothing.ts';
import { provideMicrovmImages } from '../harness/microvm-images.ts';
import { describeWith } from '../harness/needs.ts';
import { type RealDaemon, testDaemonHome } from '../harness/real-daemon.ts';
import { figure, progress, sized, timeoutMs } from './scale.ts';

const GUESTS = ['even', 'odd'] as const;
const TOLD_EACH = 50;

/** Milliseconds from the request to the program's end. */
const live = async (daemon: RealDaemon, guest: string): Promise<number> => {
  const begun = performance.now();
  await daemon.succeed('guest-start', { guest });
  const ended = await daemon.client.call('guest-wait', { guest, until: 'stopped' });
  expect(ended.lastExit).toMatchObject({ cause: 'guest-shutdown', exitCode: 0 });
  return performance.now() - begun;
};

describeWith(['root', 'qemu', 'qemu-img', 'sqfstar'], 'microVMs that boot again and again', () => {
  const images = provideMicrovmImages();

  it('come up each time and end with their program', { timeout: timeoutMs }, async () => {
    const boots = sized({ short: 6, long: 1000 });
    const home = await testDaemonHome();
    const daemon = await home.start();
    await images.importInto(daemon);
    for (const name of GUESTS)
      await daemon.succeed('guest-create', {
        name,
        machine: 'microvm',
        memoryBytes: 128 * MEBIBYTE,
        program: { image: 'box', command: ['true'] },
        qemu: { accel: 'tcg' },
      });
    const times: number[] = [];
    let begun = 0;
    const each = async (guest: string): Promise<void> => {
      while (begun < boots) {
        begun += 1;
        times.push(await live(daemon, guest));
        if (times.length % TOLD_EACH === 0)
          progress(`${times.length} of ${boots} boots, the longest ${Math.round(Math.max(...times))} ms`);
      }
    };
    await Promise.all(GUESTS.map(each));
    expect(times).toHaveLength(boots);
    const sorted = times.toSorted((a, b) => a - b);
    figure(`${boots} boots to the end of \`true\`: ms at the median`, Math.round(sorted[boots >> 1] ?? 0));
    figure(`${boots} boots: longest in ms`, Math.round(sorted.at(-1) ?? 0));
    await leaveNothing({ home, daemon });
  });
});
