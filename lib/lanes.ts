/**
 * A limit on how much of one kind of work is done at the same time. Whoever comes first goes first; a wait can be given
 * up, and everybody's place can be seen. Nothing here waits on time.
 */
import { abortReason } from './abort.ts';

interface Waiting {
  readonly key: string;
  readonly begin: () => void;
}

export interface LanePlace {
  /** 1 is next. */
  readonly position: number;
  /** How many are at work or stand before it. */
  readonly ahead: number;
}

export class Lanes {
  readonly width: number;
  #working = 0;
  #waiting: Waiting[] = [];

  /** `width`: how many may work at once; at least 1. */
  constructor(width: number) {
    if (!Number.isInteger(width) || width < 1) throw new RangeError(`${width} lanes are none`);
    this.width = width;
  }

  get working(): number {
    return this.#working;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  /** Resolves when its turn has come, with what ends its turn; that may be called twice. Errors: the signal's reason. */
  async enter(key: string, signal: AbortSignal): Promise<() => void> {
    if (signal.aborted) throw abortReason(signal);
    if (this.#working < this.width && this.#waiting.length === 0) this.#working += 1;
    else await this.#queue(key, signal);
    let left = false;
    return () => {
      if (left) return;
      left = true;
      this.#leave();
    };
  }

  /** Where it stands in the queue; undefined when it does not wait. */
  place(key: string): LanePlace | undefined {
    const index = this.#waiting.findIndex((each) => each.key === key);
    return index < 0 ? undefined : { position: index + 1, ahead: this.#working + index };
  }

  #queue(key: string, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        this.#waiting = this.#waiting.filter((each) => each !== waiting);
        reject(abortReason(signal));
      };
      const waiting: Waiting = {
        key,
        begin: () => {
          signal.removeEventListener('abort', onAbort);
          resolve();
        },
      };
      signal.addEventListener('abort', onAbort, { once: true });
      this.#waiting.push(waiting);
    });
  }

  /** The next one takes the place over at once, so that nobody who comes meanwhile slips in. */
  #leave(): void {
    const next = this.#waiting.shift();
    if (next) next.begin();
    else this.#working -= 1;
  }
}
