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

export interface TakeOptions {
  readonly signal: AbortSignal;
  /** A few samples are enough: for a glance, not for a figure that is kept. */
  readonly short?: boolean;
}

export interface Sides {
  readonly roost: Sampler;
  readonly peer?: { readonly name: string; readonly sample: Sampler };
}

/** Fewer say nothing. */
const LEAST_SAMPLES = 5;
const SHORT: SampleLimits = { warmUps: 1, samples: LEAST_SAMPLES, budgetMs: 5_000 };

/** Takes samples of both sides in turn, each round in the other order. Stops with the signal's reason. */
export const takeFigure = async (
  name: string,
  unit: string,
  sides: Sides,
  usual: SampleLimits,
  { signal, short = false }: TakeOptions,
): Promise<Figure> => {
  const limits = short ? shortened(usual) : usual;
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

const shortened = ({ warmUps, samples, budgetMs }: SampleLimits): SampleLimits => ({
  warmUps: Math.min(warmUps, SHORT.warmUps),
  samples: Math.min(samples, SHORT.samples),
  budgetMs: Math.min(budgetMs, SHORT.budgetMs),
});

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

/** A figure at a size: so many guests, connections, subscribers. */
export interface Point {
  readonly size: number;
  readonly figure: Figure;
}

/**
 * How a figure grows with the size, over all its points: 1 is in proportion, 0 not at all. The exponent of the power that
 * lies closest to them (least squares of the logarithms).
 */
export const growthOf = (name: string, points: readonly Point[]): Figure => {
  const exponentOf = (valueOf: (figure: Figure) => number | null): number =>
    slope(points.map(({ size, figure }) => [Math.log(size), Math.log(valueOf(figure) ?? Number.NaN)]));
  const peerName = points[0]?.figure.row.peerName ?? undefined;
  return figureOf(
    name,
    'exponent',
    [exponentOf(({ row }) => row.roost)],
    peerName === undefined ? undefined : { name: peerName, values: [exponentOf(({ row }) => row.peer)] },
  );
};

/** Of the line that lies closest to the points. */
const slope = (points: readonly (readonly [number, number])[]): number => {
  const mean = (values: readonly number[]): number =>
    values.reduce((sum, value) => sum + value, 0) / values.length;
  const [meanX, meanY] = [mean(points.map(([x]) => x)), mean(points.map(([, y]) => y))];
  return (
    mean(points.map(([x, y]) => (x - meanX) * (y - meanY))) / mean(points.map(([x]) => (x - meanX) ** 2))
  );
};
