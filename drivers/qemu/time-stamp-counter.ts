/** How fast the host's time stamp counter ticks; under TCG a guest's ticks as fast. */
import { deferred } from '../../lib/abort.ts';
import { readTicks, type Ticks } from '../../native/index.ts';

/** Where there is no such counter; a guest's kernel takes any. */
const USUAL_KHZ = 2_000_000;
/** Long against the time that a reading takes, so that what a guest counts by it is right to a few seconds a week. */
const MEASURE_MS = 20;
const NANOSECONDS_PER_MILLISECOND = 1e6;

/** Ticks in a millisecond; undefined where the counter or the clock was set back in between, as when the host slept. Pure. */
export const khzBetween = (first: Ticks, second: Ticks): number | undefined => {
  const [ticks, nanoseconds] = [second.ticks - first.ticks, second.nanoseconds - first.nanoseconds];
  if (ticks <= 0 || nanoseconds <= 0) return undefined;
  return Math.round((ticks * NANOSECONDS_PER_MILLISECOND) / nanoseconds);
};

const measure = async (): Promise<number> => {
  const first = readTicks();
  if (!first) return USUAL_KHZ;
  const over = deferred<void>();
  setTimeout(over.resolve, MEASURE_MS);
  await over.promise;
  const second = readTicks();
  return (second && khzBetween(first, second)) ?? USUAL_KHZ;
};

let measured: Promise<number> | undefined;

/** Ticks in a millisecond, measured once in the life of this process. */
export const tscKhz = (): Promise<number> => {
  measured ??= measure();
  return measured;
};
