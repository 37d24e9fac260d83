/**
 * In which order guests go when the host does: the reverse of the order in which autostart brings them back. Those
 * without autostart, on which no other can count after a boot, go first. Pure.
 */

export interface Ordered {
  readonly autostart: { readonly enabled: boolean; readonly order: number };
}

/** Stages, each of guests that go together, the first to go first. */
export const shutdownStages = <T extends Ordered>(guests: readonly T[]): readonly (readonly T[])[] => {
  const place = ({ autostart: { enabled, order } }: T): number =>
    enabled ? order : Number.POSITIVE_INFINITY;
  const places = [...new Set(guests.map(place))].sort((a, b) => b - a);
  return places.map((each) => guests.filter((guest) => place(guest) === each));
};

/**
 * How long a stage is waited for before the next one begins, in milliseconds. Nobody is ended for being slow before the
 * deadline of all; but one guest that does not heed its button shall not take all the time of those that come after it.
 */
export const patienceMs = (leftMs: number, isLast: boolean): number =>
  Math.max(0, isLast ? leftMs : leftMs / 2);
