/**
 * The event loop's turns, shared out: whoever has much to do at once looks whether this turn is used up, and goes on in
 * the next one, so that all others come to theirs. It counts for everybody together: a hundred who each do little make
 * a long turn as well.
 */

/** What may be done in one turn before it is left to others, in milliseconds. */
const TURN_MS = 3;

let beganAt: number | undefined;

/** Whether those who asked it in this turn have used it up. One step is due to each before it asks. */
export const isTurnOver = (): boolean => {
  const now = performance.now();
  if (beganAt !== undefined) return now - beganAt >= TURN_MS;
  beganAt = now;
  setImmediate(() => {
    beganAt = undefined;
  });
  return false;
};

/** Resolves in the next turn, when everybody else had theirs. */
export const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
