/** `roost events`: kept events, and with `--follow` those that come, without a gap between the two. */
import { waitOrAbort } from '../lib/abort.ts';
import type { CommandInput } from '../protocol/commands.ts';
import type { EventView } from '../protocol/events.ts';
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
  const { eventNames } = await import('../protocol/events.ts');
  return { ...args, events: [...eventNames] };
};

/** A line of JSON for each while following: a stream has no end that could close one document. */
const showOne = (event: EventView, { json, print }: Context): void =>
  print(json ? JSON.stringify(event) : printEvent(event));

const follow = async (filter: Filter, context: Context): Promise<number> => {
  const client = await context.client();
  const events = client.events();
  await client.call('events-subscribe', filter, { signal: context.signal });
  let last = filter.since;
  const show = async (): Promise<void> => {
    for await (const event of events) {
      showOne(event, context);
      last = event.sequence;
    }
  };
  try {
    await waitOrAbort(show(), context.signal, { onLate: () => undefined });
  } catch (error) {
    if (context.signal.aborted) throw error;
    const again = last === undefined ? '' : ` --since ${last}`;
    throw unreachable(
      'The connection to roostd was lost',
      `Go on without a gap when it is back: roost events --follow${again}`,
      error,
    );
  } finally {
    events.close();
  }
  return 0;
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
  else if (lost) context.note(`Events ${lost.from} to ${lost.to} are no longer kept.`);
  return 0;
};

export const showEvents = async (invocation: Invocation, context: Context): Promise<number> => {
  const filter = await filterOf(invocation);
  return invocation.flags['follow'] === true ? follow(filter, context) : list(filter, context);
};
