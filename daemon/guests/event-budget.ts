/**
 * How many of a guest's own events are kept. A guest can make its QEMU say tens of thousands a second, which would fill
 * the log of events and crowd out everybody else's. Counted by the times of the events themselves, so that what was
 * gathered over hours while no daemon watched is not taken for a flood. Pure but for its own count.
 */
const BURST = 500;
const PER_SECOND = 20;

export class EventBudget {
  #left = BURST;
  #countedAt = 0;
  #skipped = 0;

  /** Whether an event of that moment is to be kept. */
  admits(atMs: number): boolean {
    const passedMs = Math.max(0, atMs - this.#countedAt);
    this.#left = Math.min(BURST, this.#left + (passedMs / 1000) * PER_SECOND);
    this.#countedAt = Math.max(this.#countedAt, atMs);
    if (this.#left < 1) {
      this.#skipped += 1;
      return false;
    }
    this.#left -= 1;
    return true;
  }

  /** How many were not kept since this was last asked. */
  takeSkipped(): number {
    const skipped = this.#skipped;
    this.#skipped = 0;
    return skipped;
  }
}
