/** Which guests a query means, and which of their members: from memory, without asking anybody. */
import type { CommandArguments } from '../../protocol/commands.ts';
import type { GuestView } from '../../protocol/guest.ts';
import type { Guest } from './guest.ts';

export type GuestFilter = Pick<CommandArguments<'query-guests'>, 'names' | 'nameGlob' | 'states' | 'labels'>;

/**
 * Whether a glob matches the whole text: * is any run of characters, ? any one, every other character itself. Goes back
 * to the last * only, so that no glob takes longer than the product of both lengths; a regular expression might.
 */
export const matchesGlob = (glob: string, text: string): boolean => {
  let at = 0;
  let star = -1;
  let tried = 0;
  for (let index = 0; index < text.length; ) {
    if (glob[at] === '*') {
      star = at;
      at += 1;
      tried = index;
    } else if (at < glob.length && (glob[at] === '?' || glob[at] === text[index])) {
      at += 1;
      index += 1;
    } else if (star >= 0) {
      at = star + 1;
      tried += 1;
      index = tried;
    } else return false;
  }
  while (glob[at] === '*') at += 1;
  return at === glob.length;
};

export const selectGuests = (
  guests: readonly Guest[],
  filter: GuestFilter,
  find: (reference: string) => Guest,
): readonly GuestView[] => {
  const { nameGlob } = filter;
  const states = filter.states && new Set(filter.states);
  const labels = Object.entries(filter.labels ?? {});
  const named = filter.names
    ? [...new Set(filter.names.map(find))].sort((a, b) => (a.name < b.name ? -1 : 1))
    : guests;
  return named
    .filter(
      (guest) =>
        (nameGlob === undefined || matchesGlob(nameGlob, guest.name)) &&
        (!states || states.has(guest.state)) &&
        labels.every(([key, value]) => guest.record.spec.labels[key] === value),
    )
    .map((guest) => guest.view);
};
