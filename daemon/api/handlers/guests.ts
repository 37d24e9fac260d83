/** Handlers of guests: each names things and calls one method. */
import { RoostError } from '../../../protocol/errors.ts';
import type { GuestView } from '../../../protocol/guest.ts';
import { ByteSession } from '../../guests/byte-session.ts';
import { runsProgram } from '../../guests/runs-program.ts';
import type { Handlers } from '../call.ts';
import { afterName, pageOf } from '../page.ts';
import type { AgentCommands, ProgramCommands } from './agent.ts';
import type { DeviceCommands } from './devices.ts';
import type { GuestFinding } from './guest-finding.ts';
import type { Services } from './services.ts';

type GuestCommands = Exclude<
  Extract<
    keyof Handlers,
    | `guest-${string}`
    | 'template-create'
    | 'query-guests'
    | 'query-guest'
    | 'query-guest-history'
    | 'query-guest-log'
    | 'query-guest-cloud-init'
  >,
  GuestFinding | AgentCommands | ProgramCommands | DeviceCommands
>;

const chosenFields = (view: GuestView, fields: readonly string[] | undefined): Partial<GuestView> =>
  fields === undefined
    ? view
    : Object.fromEntries(Object.entries(view).filter(([field]) => fields.includes(field)));

/** `after` of a list that is told from its beginning. Errors: InvalidArgument. */
const placeIn = (after: string | undefined, length: number): number => {
  const place = Number(after ?? 0);
  if (Number.isInteger(place) && place >= 0 && place <= length) return place;
  throw new RoostError('InvalidArgument', `'${after}' is no place in this history`, {
    hint: 'Give the `next` of the page before.',
  });
};

export const guestHandlers = ({
  guests,
  histories,
  adoptions,
  consoles,
  rootSaves,
}: Services): Pick<Handlers, GuestCommands> => ({
  'guest-create': (args, call) => guests.creations.create(args, call),
  'guest-update': (args, call) => guests.update(args, call),
  'guest-rename': (args, call) => guests.rename(args, call),
  'guest-start': (args, call) => guests.start(args, call),
  'template-create': (args, call) => guests.makeTemplate(args, call),
  'guest-fork': (args, call) => guests.creations.fork(args, call),
  'guest-clone': (args, call) => guests.clones.clone(args, call),
  'guest-save': (args, call) => rootSaves.accept(args, call.actor),
  'guest-stop': (args, call) => guests.stop(args, call),
  'guest-reset': (args, call) => guests.verb('guest-reset', args, call),
  'guest-pause': (args, call) => guests.verb('guest-pause', args, call),
  'guest-resume': (args, call) => guests.verb('guest-resume', args, call),
  'guest-adopt': (args, call) => adoptions.adopt(args, call),
  'guest-reset-state': (args, call) => guests.resetState(args, call),
  'guest-delete': (args, call) => guests.delete(args, call),
  'guest-plan': ({ guest }) => guests.plan(guest),
  'query-guests': ({ fields, limit, after, ...filter }) => {
    const matching = guests.registry.select(filter);
    const rest = afterName(matching, after);
    const wanted = fields === undefined ? rest : rest.map((view) => chosenFields(view, fields));
    const page = pageOf(wanted, limit);
    const last = rest[page.items.length - 1];
    return { guests: page.items, total: matching.length, ...(page.more && last ? { next: last.name } : {}) };
  },
  'query-guest': ({ guest }) => guests.registry.find(guest).view,
  'query-guest-history': ({ guest, limit, after }) => {
    const { entries, ...about } = histories.of(guest);
    const from = placeIn(after, entries.length);
    const page = pageOf(entries.slice(from), limit);
    return {
      ...about,
      entries: page.items,
      ...(page.more ? { next: String(from + page.items.length) } : {}),
    };
  },
  'query-guest-cloud-init': ({ guest }) => guests.seedFiles(guest),
  'query-guest-log': async ({ guest: reference, stream, offset, maxBytes }) => {
    const guest = guests.registry.find(reference);
    const written = stream ?? (runsProgram(guest.record.spec) ? 'program' : 'console');
    const part = await guest.driver.readLog(guest.place, written, {
      maxBytes,
      ...(offset === undefined ? {} : { offset }),
    });
    return { ...part };
  },
  'guest-console': async ({ guest: reference, replayBytes }, call) => {
    const guest = guests.registry.find(reference);
    const line = await consoles.attach(guest, replayBytes, call.signal);
    call.session.becomeStream(new ByteSession(line, false, guest.house));
    return { guest: guest.name };
  },
});
