/** Handlers of what finds out and mends: fsck, and the transcript of a guest's monitor. */
import type { Handlers } from '../call.ts';
import { pageOf } from '../page.ts';
import type { Services } from './services.ts';

type RecoveryCommands = 'query-fsck' | 'fsck-repair' | 'query-guest-qmp-log';

/** More than 64 KiB hold. */
const MOST_ENTRIES = 1000;

export const recoveryHandlers = ({ fsck, guests }: Services): Pick<Handlers, RecoveryCommands> => ({
  'query-fsck': (_args, call) => fsck.report(call.signal),
  'fsck-repair': (args, call) => fsck.repair(args, call.actor),
  'query-guest-qmp-log': async ({ guest: reference, after, limit }) => {
    const guest = guests.registry.find(reference);
    const { entries, unanswered, ...rest } = await guest.driver.readTranscript(guest.place, {
      limit: limit ?? MOST_ENTRIES,
      ...(after === undefined ? {} : { after }),
    });
    // Without a place to go on from, what no longer fits is the beginning.
    const page =
      after === undefined
        ? pageOf(entries.toReversed(), limit).items.reverse()
        : pageOf(entries, limit).items;
    return { ...rest, entries: page, unanswered: [...unanswered] };
  },
});
