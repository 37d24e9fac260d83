/**
 * What a process keeps after everything that can be collected was collected, and whether that grows. One look at the end
 * says little: caches fill, tables are resized, code is compiled. So it is looked at many times, and what is judged is the
 * trend of the later half: the median of the slopes between all pairs of looks (Theil and Sen), which a few odd ones do
 * not move.
 */
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

export interface Keeping {
  /** Of the JavaScript heap, and of buffers outside of it. */
  readonly heapBytes: number;
  readonly residentBytes: number;
  readonly descriptors: number;
}

/** Of this process, now. */
export const keepingNow = async (): Promise<Keeping> => {
  // What a first collection finds finalizers for, a second one takes.
  for (let round = 0; round < 3; round += 1) {
    collect();
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
  const { heapUsed, external, rss } = process.memoryUsage();
  return {
    heapBytes: heapUsed + external,
    residentBytes: rss,
    descriptors: readdirSync('/proc/self/fd').length,
  };
};

/** Of the process that listens there. */
export const keepingOf = async (path: string): Promise<Keeping> => {
  const socket = connect(path);
  await once(socket, 'connect');
  return JSON.parse(await text(socket)) as Keeping;
};

/** A look at what is kept after so much work. */
export interface Look extends Keeping {
  readonly done: number;
}

const median = (values: readonly number[]): number => {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
};

/** Bytes of heap that each piece of work adds, by the later half of the looks. */
export const trendOf = (looks: readonly Look[]): number => {
  const later = looks.slice(Math.floor(looks.length / 2));
  return median(
    later.flatMap((from, index) =>
      later.slice(index + 1).map((to) => (to.heapBytes - from.heapBytes) / (to.done - from.done)),
    ),
  );
};

const mebibytes = (bytes: number): string => (bytes / 2 ** 20).toFixed(1);

/** What was kept, in a few words for a table. */
export const storyOf = (looks: readonly Look[]): string => {
  const at = (share: number): Look | undefined => looks[Math.ceil(looks.length * share) - 1];
  return [0.25, 0.5, 0.75, 1].map((share) => mebibytes(at(share)?.heapBytes ?? Number.NaN)).join(', ');
};

/** One line for whoever watches. */
export const lookText = ({ heapBytes, residentBytes, descriptors }: Keeping): string =>
  `${mebibytes(heapBytes)} MiB of heap, ${mebibytes(residentBytes)} MiB resident, ${descriptors} descriptors`;
