/** The last measurements of one quantity, bounded; quantiles on demand. */
const CAPACITY = 1024;

export interface Quantiles {
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

export class Histogram {
  readonly #samples: number[] = [];
  #next = 0;

  record(value: number): void {
    this.#samples[this.#next] = value;
    this.#next = (this.#next + 1) % CAPACITY;
  }

  quantiles(): Quantiles {
    const sorted = Float64Array.from(this.#samples).sort();
    const at = (quantile: number): number => {
      const value = sorted[Math.min(sorted.length - 1, Math.floor(quantile * sorted.length))] ?? 0;
      return Math.round(value * 1000) / 1000;
    };
    return { p50: at(0.5), p99: at(0.99), max: at(1) };
  }
}
