/** `roost events`: kept events, and with `--follow` those that come, without a gap between the two. */
import { waitOrAbort } from '../lib/abort.ts';
import type { CommandInput } from '../protocol/commands.ts';
import type { EventData, EventView } from '../protocol/events.ts';
import type { Client } from './client.ts';
import { unreachable } from './failure.ts';
import type { Context } from './io.ts';
import { printEvent } from './print/lists.ts';
import { type Arguments, argumentsOf, type Flag, type Invocation } from './verb.ts';

type Filter = CommandInput<'events-subscribe'>;

const flags: readonly Flag[] = [
  { name: 'since', member: 'since' },
  { name: 'guest', member: 'guests' },
  { name: 'event', member: 'events' },
];

const filterOf = async (invocation: Invocation): Promise<Filter> => {
  const args: Arguments = argumentsOf({ positionals: [], flags }, invocation);
  if (invocation.flags['all'] !== true) return args;
  const { eventNames } = await import('./contract-facts.ts');
  return { ...args, events: [...eventNames] };
};

const noteLost = ({ from, to }: EventData<'EVENTS_LOST'>, { note }: Context): void =>
  note(`Events ${from} to ${to} are no longer kept.`);

/** A line of JSON for each while following: a stream has no end that could close one document. */
const showOne = (event: EventView, { json, print }: Context): void =>
  print(json ? JSON.stringify(event) : printEvent(event));

/** Shows what comes until the connection is lost. Resolves with that, and the place to go on from. */
const showUntilLost = async (
  client: Client,
  filter: Filter,
  context: Context,
): Promise<{ readonly since: number; readonly failure: unknown }> => {
  const events = client.events();
  let since = filter.since;
  const show = async (): Promise<void> => {
    const { lastSequence } = await client.call('events-subscribe', filter, { signal: context.signal });
    // What is older than this will not come unless it was asked for.
    since ??= lastSequence;
    for await (const event of events) {
      if (event.event === 'EVENTS_LOST') noteLost(event.data as EventData<'EVENTS_LOST'>, context);
      showOne(event, context);
      since = event.sequence;
    }
  };
  try {
    await waitOrAbort(show(), context.signal, { onLate: () => undefined });
    throw new Error('The events ended');
  } catch (failure) {
    if (context.signal.aborted || since === undefined) throw failure;
    return { since, failure };
  } finally {
    events.close();
  }
};

/** Goes on behind the last event when the daemon is back. */
const follow = async (filter: Filter, context: Context): Promise<never> => {
  let client = await context.client();
  let from = filter;
  for (;;) {
    const { since, failure } = await showUntilLost(client, from, context);
    from = { ...filter, since };
    try {
      client = await context.again(client, failure);
    } catch (error) {
      if (context.signal.aborted) throw error;
      throw unreachable(
        'The connection to roostd was lost',
        `Go on without a gap when it is back: roost events --follow --since ${since}`,
        error,
      );
    }
  }
};

/** All kept events that match, page by page. */
const list = async (filter: Filter, context: Context): Promise<number> => {
  const client = await context.client();
  const all: EventView[] = [];
  let since = filter.since ?? 0;
  let lost: { readonly from: number; readonly to: number } | undefined;
  for (;;) {
    const page = await client.call('query-events', { ...filter, since }, { signal: context.signal });
    lost ??= page.lost;
    if (context.json) all.push(...page.events);
    else for (const event of page.events) showOne(event, context);
    if (page.next === undefined) break;
    since = page.next;
  }
  if (context.json) context.printJson({ events: all, ...(lost === undefined ? {} : { lost }) });
  else if (lost) noteLost(lost, context);
  return 0;
};

export const showEvents = async (invocation: Invocation, context: Context): Promise<number> => {
  const filter = await filterOf(invocation);
  return invocation.flags['follow'] === true ? follow(filter, context) : list(filter, context);
};
