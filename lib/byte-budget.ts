/**
 * How fast bytes of somebody who is not trusted are taken: as many as come until the burst is used up, then only so many
 * a second. A flood then costs its maker and not everybody else.
 */
import { performance } from 'node:perf_hooks';

export interface ByteBudgetOptions {
  /** Bytes that may come at once. */
  readonly burst: number;
  readonly perSecond: number;
  /** Milliseconds of a clock that only goes forward. */
  readonly now?: () => number;
}

export class ByteBudget {
  readonly #options: ByteBudgetOptions;
  readonly #now: () => number;
  #left: number;
  #countedAt: number;

  constructor(options: ByteBudgetOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
    this.#left = options.burst;
    this.#countedAt = this.#now();
  }

  /** Takes note of bytes that were taken. Milliseconds after which more may be taken; 0 for at once. */
  spend(bytes: number): number {
    const { burst, perSecond } = this.#options;
    const now = this.#now();
    this.#left = Math.min(burst, this.#left + ((now - this.#countedAt) / 1000) * perSecond) - bytes;
    this.#countedAt = now;
    return this.#left >= 0 ? 0 : Math.ceil((-this.#left / perSecond) * 1000);
  }
}
