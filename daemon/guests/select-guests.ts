/** Which guests a query means, and which of their members: from memory, without asking anybody. */
import type { CommandArguments } from '../../protocol/commands.ts';
import type { GuestView } from '../../protocol/guest.ts';
import type { Guest } from './guest.ts';

export type GuestFilter = Pick<CommandArguments<'query-guests'>, 'names' | 'nameGlob' | 'states' | 'labels'>;

/** A glob with * and ? as a regular expression; every other character means itself. */
export const globToRegExp = (glob: string): RegExp =>
  new RegExp(
    `^${glob
      .replace(/[.+^${}()|[\]\\]/g, '\\$&')
      .replace(/\*+/g, '.*')
      .replace(/\?/g, '.')}$`,
  );

export const selectGuests = (
  guests: readonly Guest[],
  filter: GuestFilter,
  find: (reference: string) => Guest,
): readonly GuestView[] => {
  const glob = filter.nameGlob === undefined ? undefined : globToRegExp(filter.nameGlob);
  const states = filter.states && new Set(filter.states);
  const labels = Object.entries(filter.labels ?? {});
  const named = filter.names
    ? [...new Set(filter.names.map(find))].sort((a, b) => (a.name < b.name ? -1 : 1))
    : guests;
  return named
    .filter(
      (guest) =>
        (!glob || glob.test(guest.name)) &&
        (!states || states.has(guest.status.state)) &&
        labels.every(([key, value]) => guest.record.spec.labels[key] === value),
    )
    .map((guest) => guest.view);
};
