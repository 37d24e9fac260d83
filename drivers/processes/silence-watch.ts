/**
 * Notices that a monitor owes an answer and is silent, and finds out why. Silence alone proves nothing and ends
 * nothing: it is told, again when its reason changes, and so is the first sign of life after it.
 */
import { performance } from 'node:perf_hooks';
import type { WhySilent } from './why-silent.ts';

export type SilenceReason = Exclude<WhySilent, 'dead'>;

export interface SilenceWatchOptions {
  /** What is the matter at this moment. */
  readonly why: () => Promise<WhySilent>;
  readonly afterMs: number;
  /** Whether an answer is owed at this moment. */
  readonly isOwed: () => boolean;
  readonly onSilent: (reason: SilenceReason, since: number) => void;
  readonly onHeard: () => void;
}

export class SilenceWatch {
  readonly #options: SilenceWatchOptions;
  #timer: NodeJS.Timeout | undefined;
  #lastNewsAt = performance.now();
  #told: SilenceReason | undefined;
  readonly #waiting = new Set<(reason: SilenceReason) => void>();
  #closed = false;

  constructor(options: SilenceWatchOptions) {
    this.#options = options;
  }

  /** Calls back at once if silence was told, else when it is. Returns what ends the wait. */
  whenSilent(callback: (reason: SilenceReason) => void): () => void {
    if (this.#told !== undefined) callback(this.#told);
    else this.#waiting.add(callback);
    return () => this.#waiting.delete(callback);
  }

  /** Something was asked. */
  asked(): void {
    if (this.#timer !== undefined || this.#closed) return;
    // An answer is owed from now on, not from the last one.
    if (this.#told === undefined) this.#lastNewsAt = performance.now();
    this.#arm(this.#options.afterMs);
  }

  /** Something was heard. */
  heard(): void {
    this.#lastNewsAt = performance.now();
    if (this.#told === undefined) return;
    this.#told = undefined;
    this.#options.onHeard();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #arm(delayMs: number): void {
    this.#timer = setTimeout(() => {
      void this.#look();
    }, delayMs);
    this.#timer.unref();
  }

  async #look(): Promise<void> {
    const { afterMs, isOwed, why } = this.#options;
    const quietMs = performance.now() - this.#lastNewsAt;
    if (!isOwed()) {
      this.#timer = undefined;
      return;
    }
    if (quietMs < afterMs) {
      this.#arm(afterMs - quietMs);
      return;
    }
    const newsAt = this.#lastNewsAt;
    const reason = await why();
    if (this.#closed) return;
    if (newsAt === this.#lastNewsAt && reason !== 'dead') this.#tell(reason, Date.now() - quietMs);
    this.#arm(afterMs);
  }

  #tell(reason: SilenceReason, since: number): void {
    if (reason === this.#told) return;
    this.#told = reason;
    this.#options.onSilent(reason, Math.floor(since));
    for (const callback of this.#waiting) callback(reason);
    this.#waiting.clear();
  }
}
