/** How the daemon fares: lag of its event loop, latency of its commits, its memory. */
import { type IntervalHistogram, monitorEventLoopDelay } from 'node:perf_hooks';
import type { Quantiles } from '../lib/histogram.ts';
import type { Log } from '../lib/log.ts';
import { isOwnWork, type LoopBlocks, LoopWatch } from '../lib/loop-watch.ts';

const RESOLUTION_MS = 10;
const NANOSECONDS_PER_MS = 1e6;

export class Health {
  readonly #loop: IntervalHistogram = monitorEventLoopDelay({ resolution: RESOLUTION_MS });

  readonly #watch: LoopWatch;

  constructor(log: Log) {
    this.#watch = new LoopWatch((block) =>
      log[isOwnWork(block) ? 'info' : 'debug'](block, 'the event loop stood still'),
    );
  }

  start(): void {
    this.#loop.enable();
    this.#watch.start();
  }

  stop(): void {
    this.#loop.disable();
    this.#watch.stop();
  }

  /** Times it stood still, and during what. */
  eventLoopBlocks(): LoopBlocks {
    return this.#watch.blocks();
  }

  /** Lag beyond the sampling interval, since the start. */
  eventLoopLagMs(): Quantiles {
    const lag = (nanoseconds: number): number =>
      Number.isFinite(nanoseconds)
        ? Math.max(0, Math.round((nanoseconds / NANOSECONDS_PER_MS - RESOLUTION_MS) * 100) / 100)
        : 0;
    return {
      p50: lag(this.#loop.percentile(50)),
      p99: lag(this.#loop.percentile(99)),
      max: lag(this.#loop.max),
    };
  }
}
