/** docs/reference/events.md: every event of the contract. */
import { factsOf } from '../../cli/facts.ts';
import { type EventName, eventNames, events } from '../../protocol/events.ts';
import { GENERATED, membersTable } from './markdown.ts';

const section = (name: EventName): string =>
  [
    `## ${name}`,
    '',
    events[name].lifecycle
      ? 'Goes to every client after `qmp_capabilities`.'
      : 'Only for clients that ask for it with `events-subscribe`.',
    '',
    membersTable(factsOf(events[name].data, 'output')),
    '',
  ].join('\n');

export const eventsReference = (): string =>
  [
    '# Events',
    GENERATED,
    '',
    'An event is `{"event", "data", "timestamp": {"seconds", "microseconds"}, "sequence"}`. Sequences grow by one with',
    'each event and are kept over a restart of the daemon: `events-subscribe` with `since` brings everything after that',
    'one first, and what is no longer kept is reported by EVENTS_LOST. The tables give the members of `data`.',
    '',
    ...eventNames.map(section),
  ].join('\n');
