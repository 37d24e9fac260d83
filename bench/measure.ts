/**
 * How a figure is taken: the two sides in turn, in one run, so that whatever else the machine does meets both alike.
 * The median stands for each side, its spread for the noise, and the ratio of the medians for the promise.
 */

/** One figure as it is kept in bench/results.json. Names are for ever: others compare by them. */
export interface Row {
  readonly name: string;
  readonly unit: string;
  /** Median of Roost. */
  readonly roost: number;
  /** Median of what it is compared with; null where there is nothing to compare with yet. */
  readonly peer: number | null;
  readonly peerName: string | null;
  /** `roost` by `peer`. */
  readonly ratio: number | null;
  /** Of each side, warm-up not counted. */
  readonly samples: number;
}

/** 10th and 90th percentile of a side. */
export interface Spread {
  readonly p10: number;
  readonly p90: number;
}

export interface Figure {
  readonly row: Row;
  readonly spread: { readonly roost: Spread; readonly peer?: Spread };
}

/** Takes one sample; the promise is fulfilled only when all that it made is gone again. */
export type Sampler = () => Promise<number>;

export interface SampleLimits {
  readonly warmUps: number;
  readonly samples: number;
  /** No further samples are begun after this, but for the few that a median needs. */
  readonly budgetMs: number;
}

export interface Sides {
  readonly roost: Sampler;
  readonly peer?: { readonly name: string; readonly sample: Sampler };
}

/** Fewer say nothing. */
const LEAST_SAMPLES = 5;

/** Takes samples of both sides in turn, each round in the other order. Stops with the signal's reason. */
export const takeFigure = async (
  name: string,
  unit: string,
  sides: Sides,
  limits: SampleLimits,
  signal: AbortSignal,
): Promise<Figure> => {
  const roost: number[] = [];
  const peer: number[] = [];
  const takers = [async (): Promise<void> => void roost.push(await sides.roost())];
  const other = sides.peer;
  if (other) takers.push(async () => void peer.push(await other.sample()));

  const begun = performance.now();
  for (let round = 0; round < limits.warmUps + limits.samples; round += 1) {
    if (round === limits.warmUps) for (const side of [roost, peer]) side.splice(0);
    const late = performance.now() - begun > limits.budgetMs;
    if (late && round >= limits.warmUps + LEAST_SAMPLES) break;
    for (const take of round % 2 === 0 ? takers : takers.toReversed()) {
      signal.throwIfAborted();
      await take();
    }
  }
  return figureOf(name, unit, roost, other && { name: other.name, values: peer });
};

/** The figure of samples that were taken already; a single one has no spread. */
export const figureOf = (
  name: string,
  unit: string,
  roost: readonly number[],
  peer?: { readonly name: string; readonly values: readonly number[] },
): Figure => {
  const ours = quantile(roost, 0.5);
  const theirs = peer && quantile(peer.values, 0.5);
  return {
    row: {
      name,
      unit,
      roost: rounded(ours),
      peer: theirs === undefined ? null : rounded(theirs),
      peerName: peer?.name ?? null,
      ratio: theirs === undefined ? null : rounded(ours / theirs),
      samples: roost.length,
    },
    spread: { roost: spreadOf(roost), ...(peer ? { peer: spreadOf(peer.values) } : {}) },
  };
};

const spreadOf = (values: readonly number[]): Spread => ({
  p10: rounded(quantile(values, 0.1)),
  p90: rounded(quantile(values, 0.9)),
});

/** Between the two nearest values where it falls between them. */
export const quantile = (values: readonly number[], share: number): number => {
  const sorted = values.toSorted((a, b) => a - b);
  const place = (sorted.length - 1) * share;
  const [below = Number.NaN, above = Number.NaN] = [sorted[Math.floor(place)], sorted[Math.ceil(place)]];
  return below + (above - below) * (place - Math.floor(place));
};

/** To three figures; more of them are noise. */
const rounded = (value: number): number => Number(value.toPrecision(3));
