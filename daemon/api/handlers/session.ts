/** Handlers of the session, the contract itself, events and tokens. */
import { isTurnOver, nextTurn } from '../../../lib/turn.ts';
import { commandNames } from '../../../protocol/commands.ts';
import { type EventName, type EventView, eventNames, events } from '../../../protocol/events.ts';
import { describeByName, describeContract } from '../../../protocol/introspect.ts';
import { guestId } from '../../../protocol/types.ts';
import { greeting } from '../../../protocol/wire.ts';
import { eventView } from '../../event-log.ts';
import type { EventFilter } from '../../inventory/event-table.ts';
import type { Handlers } from '../call.ts';
import { pageOfStream } from '../page.ts';
import type { Services } from './services.ts';

const lifecycle = eventNames.filter((name) => events[name].lifecycle);

const READ_PAGE = 500;

type SessionCommands =
  | 'qmp_capabilities'
  | 'query-version'
  | 'query-commands'
  | 'query-schema'
  | 'events-subscribe'
  | 'query-events'
  | 'token-create'
  | 'token-revoke'
  | 'query-tokens';

export const sessionHandlers = (services: Services): Pick<Handlers, SessionCommands> => {
  const { eventLog, guests, tokens } = services;

  /** A guest that is gone has its events still; they are asked for by its id. */
  const guestIdOf = (reference: string): string =>
    guestId.safeParse(reference).success ? reference : guests.registry.find(reference).id;

  const filterOf = (args: {
    events?: EventName[] | undefined;
    guests?: string[] | undefined;
  }): EventFilter => ({
    names: new Set(args.events ?? lifecycle),
    ...(args.guests === undefined ? {} : { guests: new Set(args.guests.map(guestIdOf)) }),
  });

  /** Kept events after a sequence that the filter lets through, read bit by bit while others have their turns. */
  async function* kept(since: number, filter: EventFilter): AsyncGenerator<EventView> {
    for (let after = since; after < eventLog.lastSequence; ) {
      const { events, through } = eventLog.since(after, READ_PAGE, filter);
      yield* events.map(eventView);
      after = through;
      if (isTurnOver()) await nextTurn();
    }
  }

  return {
    qmp_capabilities: (_args, { session }) => {
      session.negotiate();
      return {};
    },
    'query-version': () => ({ qemu: greeting.QMP.version.qemu, package: greeting.QMP.version.package }),
    'query-commands': () => commandNames.map((name) => ({ name })),
    'query-schema': ({ name }) => (name === undefined ? describeContract() : describeByName(name)),
    'events-subscribe': (args, { session }) => {
      session.subscribe(filterOf(args), args.since);
      return { lastSequence: eventLog.lastSequence };
    },
    'query-events': async (args) => {
      const lost = eventLog.lostAfter(args.since);
      const page = await pageOfStream(kept(args.since, filterOf(args)), args.limit);
      const last = page.items.at(-1);
      return {
        events: page.items,
        ...(lost === undefined ? {} : { lost: { ...lost } }),
        ...(page.more && last ? { next: last.sequence } : {}),
      };
    },
    'token-create': ({ name, role }) => tokens.create(role, name),
    'token-revoke': ({ name }) => tokens.revoke(name),
    'query-tokens': () => ({ tokens: tokens.all() }),
  };
};
