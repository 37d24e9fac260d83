/** Where the guests of a test stood that has failed or timed out: the state of each, and the end of its console's log. */
import type { GuestView } from '../../protocol/guest.ts';
import type { RealDaemon } from './real-daemon.ts';

/** Of each guest. */
const MAX_LINES = 40;
const MAX_LOG_BYTES = 16_384;
const MAX_GUESTS = 20;

const stateOf = ({ state, reason, target, observedAt, ready, agent, process, lastExit }: GuestView): string =>
  JSON.stringify({
    state,
    reason,
    target,
    since: new Date(observedAt).toISOString(),
    ready,
    agent: agent.state,
    pid: process?.pid,
    lastExit,
  });

const describeGuest = async ({ client }: RealDaemon, name: string): Promise<string> => {
  const view = await client.call('query-guest', { guest: name });
  const asked = { guest: name, stream: 'console', maxBytes: MAX_LOG_BYTES } as const;
  const { text } = await client.call('query-guest-log', asked);
  const lines = text.trimEnd().split(/\r?\n/).slice(-MAX_LINES);
  return [`guest ${name}: ${stateOf(view)}`, ...lines.map((line) => `  | ${line}`)].join('\n');
};

/** To be printed; of a hundred guests only the first ones. */
export const describeGuests = async (daemon: RealDaemon): Promise<string> => {
  const { guests, total } = await daemon.client.call('query-guests', { limit: MAX_GUESTS, fields: ['name'] });
  const told: string[] = [];
  for (const { name = '' } of guests) {
    told.push(await describeGuest(daemon, name).catch((error: unknown) => `guest ${name}: ${String(error)}`));
  }
  if (total > guests.length) told.push(`and ${total - guests.length} more`);
  return told.join('\n');
};
