/**
 * Notices when the event loop stood still, and says during what. Whoever does work that might take long says its name
 * while it does it (`working`); a tick that comes late tells of the rest. Three things stand apart, because they are
 * mended differently: work of ours under its name, the collection of garbage, and a processor that others had. The last
 * is what the kernel says that this thread waited in its run queue, and what a host of this host took of its processors
 * (steal time); it is no part of the others. A wait for a disk is.
 * Collections are told a turn later than they were: what they fell into is judged when they are known.
 *
 * A name covers the synchronous part of its work. What runs on after an `await` has no name of its own; it is told as
 * having come after the last work that had one.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { PerformanceObserver, performance } from 'node:perf_hooks';

/** From here on a standstill is kept, in milliseconds. */
export const BLOCK_MS = 20;
const TICK_MS = 10;
const STOLEN_TIME_EVERY_MS = 1_000;
/** USER_HZ is 100 on every machine that Node runs on. */
const MS_A_TICK_OF_STAT = 10;
const KEPT = 8;
const WAITING = 'waiting for a processor';
const COLLECTION = 'garbage collection';

/** Whether it was work of ours, which can be split up or done elsewhere. */
export const isOwnWork = ({ work }: Pick<LoopBlock, 'work'>): boolean =>
  work !== WAITING && work !== COLLECTION;

export interface LoopBlock {
  /** When it ended, in milliseconds since the epoch. */
  readonly at: number;
  readonly ms: number;
  /** Of them on a processor, as exactly as the kernel counts; the rest it waited in the kernel, for a disk or a lock. */
  readonly cpuMs: number;
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

/** What has passed until now, and how much of it the thread was on a processor and was kept waiting for one. */
interface Moment {
  readonly wallMs: number;
  readonly cpuMs: number;
  readonly queuedMs: number;
}

/** Of the main thread: nanoseconds on a processor, nanoseconds in the run queue, turns (proc(5), schedstats). */
class RunQueue {
  readonly #file = openSync(`/proc/self/task/${process.pid}/schedstat`, 'r');
  readonly #bytes = Buffer.alloc(80);

  now(): Moment {
    const length = readSync(this.#file, this.#bytes, 0, this.#bytes.length, 0);
    const [cpu, queued] = this.#bytes.toString('latin1', 0, length).split(' ').map(Number);
    return { wallMs: performance.now(), cpuMs: (cpu ?? 0) / 1e6, queuedMs: (queued ?? 0) / 1e6 };
  }

  close(): void {
    closeSync(this.#file);
  }
}

/** Milliseconds of this host's processors that its own host gave to others (proc(5), /proc/stat: steal), in steps of 10. */
class StolenTime {
  readonly #file = openSync('/proc/stat', 'r');
  readonly #bytes = Buffer.alloc(256);
  /** Seldom: on a host of many processors the kernel takes long to tell. The newest comes first. */
  #looks: { readonly wallMs: number; readonly stolenMs: number }[] = [];

  look(wallMs: number): void {
    const [last] = this.#looks;
    if (last !== undefined && wallMs - last.wallMs < STOLEN_TIME_EVERY_MS) return;
    this.#looks = [{ wallMs, stolenMs: this.#read() }, ...this.#looks.slice(0, 1)];
  }

  /** Since the last look before that moment: at most what was taken from this thread. */
  since(wallMs: number): number {
    const before = this.#looks.find((look) => look.wallMs <= wallMs);
    return before === undefined ? 0 : this.#read() - before.stolenMs;
  }

  close(): void {
    closeSync(this.#file);
  }

  #read(): number {
    const length = readSync(this.#file, this.#bytes, 0, this.#bytes.length, 0);
    // cpu user nice system idle iowait irq softirq steal
    const steal = /^cpu +(?:\d+ ){7}(\d+)/.exec(this.#bytes.toString('latin1', 0, length))?.[1];
    return Number(steal ?? 0) * MS_A_TICK_OF_STAT;
  }
}

interface Span {
  readonly name: string;
  /** In milliseconds of `performance.now()`. */
  readonly since: number;
}

/** A standstill that may have been a collection, in whole or in part. */
interface Suspect {
  readonly work: string;
  readonly ms: number;
  readonly cpuMs: number;
  readonly from: number;
  readonly to: number;
  readonly at: number;
}

/** Is told of work that took long by the clock; whether its thread had a processor is for it to find out. */
type Told = (name: string, since: number) => void;

/** The process has one event loop, so there is one of these. */
let current: Span | undefined;
let lastName = 'the start';
let told: Told | undefined;

/** Milliseconds since then that the thread was not kept waiting for a processor. */
const ownMs = (since: Moment, now: Moment): number =>
  now.wallMs - since.wallMs - (now.queuedMs - since.queuedMs);

/** Does something under a name, and gives what it gives. Only the synchronous part of it counts. */
export const working = <T>(name: string, work: () => T): T => {
  if (told === undefined) return work();
  const outer = current;
  current = { name, since: performance.now() };
  try {
    return work();
  } finally {
    const now = performance.now();
    const { since } = current;
    // The outer work stood still for as long; it is told by the name of what is inside of it.
    current = outer === undefined ? undefined : { name: outer.name, since: now };
    lastName = name;
    if (now - since >= BLOCK_MS) told?.(name, since);
  }
};

const tenths = (ms: number): number => Math.round(ms * 10) / 10;

export class LoopWatch {
  readonly #onBlock: (block: LoopBlock) => void;
  readonly #worst: LoopBlock[] = [];
  readonly #latest: LoopBlock[] = [];
  #count = 0;
  /** Those of the last turn, and the collections that are known of it. */
  #suspects: Suspect[] = [];
  #collected: { readonly from: number; readonly to: number }[] = [];
  /** What has a name of the time since the last tick. */
  readonly #named = { ms: 0, cpuMs: 0 };
  #clock: RunQueue | undefined;
  #stolen: StolenTime | undefined;
  #tickAt: Moment = { wallMs: 0, cpuMs: 0, queuedMs: 0 };
  /** The last look at what the kernel counts: at a tick, or after work that took long. Each look costs a system call. */
  #looked: Moment = this.#tickAt;
  #timer: NodeJS.Timeout | undefined;
  #collections: PerformanceObserver | undefined;

  constructor(onBlock: (block: LoopBlock) => void = () => undefined) {
    this.#onBlock = onBlock;
  }

  start(): void {
    const clock = new RunQueue();
    this.#clock = clock;
    this.#stolen = new StolenTime();
    told = (name, since) => this.#told(name, since, clock.now());
    this.#tickAt = clock.now();
    this.#looked = this.#tickAt;
    this.#timer = setInterval(() => this.#tick(clock), TICK_MS);
    this.#timer.unref();
    this.#collections = new PerformanceObserver((entries) => {
      for (const { startTime, duration } of entries.getEntries()) {
        this.#collected.push({ from: startTime, to: startTime + duration });
        if (duration >= BLOCK_MS)
          this.#keep({ work: COLLECTION, ms: duration, cpuMs: duration, at: Date.now() });
      }
    });
    this.#collections.observe({ entryTypes: ['gc'] });
  }

  stop(): void {
    told = undefined;
    clearInterval(this.#timer);
    this.#collections?.disconnect();
    this.#clock?.close();
    this.#clock = undefined;
    this.#stolen?.close();
    this.#stolen = undefined;
  }

  blocks(): LoopBlocks {
    return { count: this.#count, worst: [...this.#worst], latest: [...this.#latest] };
  }

  /** What the thread waited for a processor since the last look, some ms earlier, counts as a wait of this work. */
  #told(name: string, since: number, now: Moment): void {
    const before = this.#looked;
    this.#looked = now;
    const ms = ownMs({ ...before, wallMs: since }, now);
    if (ms < BLOCK_MS) return;
    const cpuMs = Math.min(ms, now.cpuMs - before.cpuMs);
    this.#named.ms += ms;
    this.#named.cpuMs += cpuMs;
    this.#suspect(name, { ms, cpuMs, from: since, to: now.wallMs });
  }

  /** What is late and has no name was a continuation of something, or others had the processor. */
  #tick(clock: RunQueue): void {
    const now = clock.now();
    this.#judge();
    this.#stolen?.look(now.wallMs);
    const before = this.#tickAt.wallMs;
    const unnamedMs = ownMs(this.#tickAt, now) - TICK_MS - this.#named.ms;
    const cpuMs = now.cpuMs - this.#tickAt.cpuMs - this.#named.cpuMs;
    const queuedMs = now.queuedMs - this.#tickAt.queuedMs;
    this.#tickAt = now;
    this.#looked = now;
    this.#named.ms = 0;
    this.#named.cpuMs = 0;
    if (unnamedMs >= BLOCK_MS)
      this.#suspect(`after ${lastName}`, { ms: unnamedMs, cpuMs, from: before, to: now.wallMs });
    if (queuedMs >= BLOCK_MS) this.#keep({ work: WAITING, ms: queuedMs, cpuMs: 0, at: Date.now() });
  }

  #suspect(work: string, seen: Omit<Suspect, 'work' | 'at'>): void {
    this.#suspects.push({ ...seen, work, at: Date.now() });
  }

  /** Tells those of the turn before: by now every collection that fell into them is known. */
  #judge(): void {
    const suspects = this.#suspects;
    const collected = this.#collected;
    this.#suspects = [];
    this.#collected = [];
    for (const { work, ms, cpuMs, from, to, at } of suspects) {
      const collecting = collected.reduce(
        (sum, one) => sum + Math.max(0, Math.min(to, one.to) - Math.max(from, one.from)),
        0,
      );
      this.#tell({ work, ms: ms - collecting, cpuMs: cpuMs - collecting, from, at });
    }
  }

  /** The kernel counts as computing also what others had of a processor meanwhile. */
  #tell({ work, ms, cpuMs, from, at }: Omit<Suspect, 'to'>): void {
    if (ms < BLOCK_MS) return;
    const stolenMs = Math.min(ms, this.#stolen?.since(from) ?? 0);
    if (stolenMs >= BLOCK_MS) this.#keep({ work: WAITING, ms: stolenMs, cpuMs: 0, at });
    if (ms - stolenMs >= BLOCK_MS) this.#keep({ work, ms: ms - stolenMs, cpuMs: cpuMs - stolenMs, at });
  }

  #keep(seen: LoopBlock): void {
    const cpuMs = tenths(Math.min(Math.max(0, seen.cpuMs), seen.ms));
    const block: LoopBlock = { ...seen, ms: tenths(seen.ms), cpuMs };
    this.#count += 1;
    this.#latest.unshift(block);
    this.#latest.length = Math.min(this.#latest.length, KEPT);
    this.#worst.push(block);
    this.#worst.sort((a, b) => b.ms - a.ms);
    this.#worst.length = Math.min(this.#worst.length, KEPT);
    this.#onBlock(block);
  }
}
