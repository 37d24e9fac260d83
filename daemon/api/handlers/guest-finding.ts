/** Handlers that find a guest: where it is, and when it is up. */
import { deadline } from '../../../lib/abort.ts';
import { addressesOf } from '../../guests/addresses.ts';
import { notInTime, waitForGuest } from '../../guests/wait.ts';
import type { Handlers } from '../call.ts';
import type { Services } from './services.ts';

export type GuestFinding = 'guest-wait' | 'query-guest-addresses';

export const guestFindingHandlers = ({ guests }: Services): Pick<Handlers, GuestFinding> => ({
  'guest-wait': async ({ guest: reference, until, timeoutMs }, call) => {
    const guest = guests.registry.find(reference);
    using limit = deadline(timeoutMs ?? Number.POSITIVE_INFINITY, call.signal);
    try {
      return await waitForGuest(guest, until, limit.signal);
    } catch (error) {
      if (!limit.signal.aborted || call.signal.aborted) throw error;
      throw notInTime(guest.view, until, timeoutMs ?? 0);
    }
  },
  'query-guest-addresses': ({ guest }, call) => addressesOf(guests.registry.find(guest), call.signal),
});
