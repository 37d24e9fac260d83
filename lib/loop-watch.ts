/**
 * Notices when the event loop stood still, and says during what. Whoever does work that might take long says its name
 * while it does it (`working`); a tick that comes late tells of the rest. Three things stand apart, because they are
 * mended differently: work of ours under its name, the collection of garbage, and a processor that others had.
 *
 * A name covers the synchronous part of its work. What runs on after an `await` has no name of its own; it is told as
 * having come after the last work that had one.
 */
import { PerformanceObserver, performance } from 'node:perf_hooks';

/** From here on a standstill is kept, in milliseconds. */
export const BLOCK_MS = 20;
const TICK_MS = 10;
const KEPT = 8;

export interface LoopBlock {
  /** When it ended, in milliseconds since the epoch. */
  readonly at: number;
  readonly ms: number;
  /** `query-guests`, `guest-start/launch`, `commit`, `after …`, `garbage collection`, `waiting for a processor`. */
  readonly work: string;
}

export interface LoopBlocks {
  readonly count: number;
  /** The longest, the longest first. */
  readonly worst: LoopBlock[];
  /** The last, the newest first. */
  readonly latest: LoopBlock[];
}

interface Span {
  readonly name: string;
  readonly startedAt: number;
}

/** The process has one event loop, so there is one of these. */
let current: Span | undefined;
let lastName = 'the start';
let told: ((name: string, ms: number) => void) | undefined;

/** Does something under a name, and gives what it gives. Only the synchronous part of it counts. */
export const working = <T>(name: string, work: () => T): T => {
  if (told === undefined) return work();
  const outer = current;
  current = { name, startedAt: performance.now() };
  try {
    return work();
  } finally {
    const ms = performance.now() - current.startedAt;
    // The outer work stood still for as long; it is told by the name of what is inside of it.
    current = outer === undefined ? undefined : { name: outer.name, startedAt: performance.now() };
    lastName = name;
    if (ms >= BLOCK_MS) told(name, ms);
  }
};

export class LoopWatch {
  readonly #onBlock: (block: LoopBlock) => void;
  readonly #worst: LoopBlock[] = [];
  readonly #latest: LoopBlock[] = [];
  #count = 0;
  /** Milliseconds since the last tick that have a name. */
  #named = 0;
  #tickAt = 0;
  #cpu = process.cpuUsage();
  #timer: NodeJS.Timeout | undefined;
  #collections: PerformanceObserver | undefined;

  constructor(onBlock: (block: LoopBlock) => void = () => undefined) {
    this.#onBlock = onBlock;
  }

  start(): void {
    told = (name, ms) => {
      this.#named += ms;
      this.#keep(name, ms);
    };
    this.#tickAt = performance.now();
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
    this.#timer.unref();
    this.#collections = new PerformanceObserver((entries) => {
      for (const { duration } of entries.getEntries())
        if (duration >= BLOCK_MS) this.#keep('garbage collection', duration);
    });
    this.#collections.observe({ entryTypes: ['gc'] });
  }

  stop(): void {
    told = undefined;
    clearInterval(this.#timer);
    this.#collections?.disconnect();
  }

  blocks(): LoopBlocks {
    return { count: this.#count, worst: [...this.#worst], latest: [...this.#latest] };
  }

  /** What is late and has no name was a continuation of something, or nobody's: then the process had no processor. */
  #tick(): void {
    const now = performance.now();
    const lateMs = now - this.#tickAt - TICK_MS;
    const unnamedMs = lateMs - this.#named;
    const { user, system } = process.cpuUsage(this.#cpu);
    this.#cpu = process.cpuUsage();
    this.#tickAt = now;
    this.#named = 0;
    if (unnamedMs < BLOCK_MS) return;
    const ownMs = (user + system) / 1000;
    this.#keep(ownMs < BLOCK_MS ? 'waiting for a processor' : `after ${lastName}`, unnamedMs);
  }

  #keep(work: string, exactMs: number): void {
    const block: LoopBlock = { at: Date.now(), ms: Math.round(exactMs * 10) / 10, work };
    this.#count += 1;
    this.#latest.unshift(block);
    this.#latest.length = Math.min(this.#latest.length, KEPT);
    this.#worst.push(block);
    this.#worst.sort((a, b) => b.ms - a.ms);
    this.#worst.length = Math.min(this.#worst.length, KEPT);
    this.#onBlock(block);
  }
}
