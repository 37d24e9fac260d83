/** How many guests should wait, from what was asked for lately. Pure. */

/** Guests like one another, of one template, that were asked for: when, in milliseconds since the epoch, the last at the end. */
export interface Demand {
  readonly askedAt: readonly number[];
}

/** For how long somebody's asking is a reason to expect another. */
export const KEPT_MS = 600_000;

const lately = ({ askedAt }: Demand, now: number): readonly number[] =>
  askedAt.filter((at) => now - at < KEPT_MS);

/** As many as were asked for lately, `most` at most. */
export const wantedOf = (demand: Demand, most: number, now: number): number =>
  Math.min(most, lately(demand, now).length);

/** When fewer are wanted unless somebody asks again; undefined where none are. */
export const nextChangeAt = (demand: Demand, most: number, now: number): number | undefined => {
  const counted = lately(demand, now).slice(-most);
  const [oldest] = counted;
  return oldest === undefined ? undefined : oldest + KEPT_MS;
};

export const askedAgain = ({ askedAt }: Demand, most: number, now: number): Demand => ({
  askedAt: [...askedAt, now].slice(-most),
});

/** Guests of one kind, as many as there are and should be. */
export interface Kind<Key extends string = string> {
  readonly key: Key;
  readonly have: number;
  readonly wanted: number;
  /** Whether one more can be made. */
  readonly canMake: boolean;
  readonly lastAskedAt: number;
}

export interface Move<Key extends string = string> {
  readonly kind: 'make' | 'end';
  readonly key: Key;
}

/**
 * What brings the guests that wait nearer to what is wanted, `most` of all kinds together; undefined where nothing does. A
 * kind of which none waits gets one before another has its second.
 */
export const nextMove = <Key extends string>(
  kinds: readonly Kind<Key>[],
  most: number,
): Move<Key> | undefined => {
  const surplus = kinds.find(({ have, wanted }) => have > wanted);
  if (surplus) return { kind: 'end', key: surplus.key };
  const [lacking] = kinds
    .filter(({ have, wanted, canMake }) => canMake && have < wanted)
    .toSorted((one, other) => one.have - other.have || other.lastAskedAt - one.lastAskedAt);
  if (!lacking) return undefined;
  const total = kinds.reduce((sum, { have }) => sum + have, 0);
  if (total < most) return { kind: 'make', key: lacking.key };
  const [victim] = kinds
    .filter((kind) => kind.have > 0 && givesWay(kind, lacking))
    .toSorted((one, other) => other.have - one.have || one.lastAskedAt - other.lastAskedAt);
  return victim && { kind: 'end', key: victim.key };
};

const givesWay = (kind: Kind, lacking: Kind): boolean =>
  kind.have >= lacking.have + 2 || (lacking.have === 0 && kind.lastAskedAt < lacking.lastAskedAt);
