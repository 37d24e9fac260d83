/** Time as a thing that can be handed over: tests hand over their own. */
export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
  /** Calls back once after `delayMs`; the timer holds nobody up at exit. Returns what cancels it. */
  after(delayMs: number, callback: () => void): () => void;
}

/** Longest delay that Node's timers take; a longer one would fire at once. */
const LONGEST_DELAY_MS = 2 ** 31 - 1;

export const systemClock: Clock = {
  now: () => Date.now(),
  after: (delayMs, callback) => {
    let timer: NodeJS.Timeout;
    const wait = (restMs: number): void => {
      const now = Math.min(Math.max(0, restMs), LONGEST_DELAY_MS);
      timer = setTimeout(() => (restMs > now ? wait(restMs - now) : callback()), now).unref();
    };
    wait(delayMs);
    return () => clearTimeout(timer);
  },
};
