/** Waiting for guests: `roost wait`, and `--wait` after a change. */
import type { GuestWait } from '../protocol/commands/guest.ts';
import type { GuestView } from '../protocol/guest.ts';
import { worstOf } from './exit-codes.ts';
import { type CliFailure, failureLines, Interrupted, toFailure } from './failure.ts';
import type { Context } from './io.ts';
import { lastingWait } from './lasting.ts';
import { argumentsOf, type Flag, type Invocation, type Positional } from './verb.ts';

/** Flags of changes after which a guest may be waited for. */
export const readyFlags: readonly Flag[] = [
  { name: 'wait', short: 'w', description: 'Wait until the guest has proven that it is up, too' },
  {
    name: 'wait-timeout',
    type: 'duration',
    value: 'duration',
    description: 'Give up waiting for that after this long; the guest goes on (default: 10m)',
  },
];

const DEFAULT_READY_MS = 600_000;

/** What a change does after it has succeeded; resolves with words on it, as `ready (lease, 10.91.0.2)`. */
export type AfterChange = (
  subject: string,
  invocation: Invocation,
  context: Context,
) => Promise<string | undefined>;

export const readyText = ({ ready }: Pick<GuestView, 'ready'>): string =>
  ready === undefined ? '' : `ready (${[ready.kind, ready.address].filter(Boolean).join(', ')})`;

export const afterWithReady: AfterChange = async (guest, { flags }, context) => {
  if (flags['wait'] !== true) return undefined;
  const given = flags['wait-timeout'];
  const timeoutMs = typeof given === 'number' ? given : DEFAULT_READY_MS;
  return readyText(await lastingWait(context, 'guest-wait', { guest, until: 'ready', timeoutMs }));
};

const reachedText = (view: GuestView, until: GuestWait): string =>
  until === 'ready' ? readyText(view) : view.state;

/** Waits for all that are named at once; the exit code is the worst of theirs. */
export const runWait =
  (row: { readonly positionals: readonly Positional[]; readonly flags: readonly Flag[] }) =>
  async (invocation: Invocation, context: Context): Promise<number> => {
    const { json } = context;
    const named = invocation.positionals['NAME'] ?? [];
    const guests = [...new Set(typeof named === 'string' ? [named] : named)];
    const args = argumentsOf(row, invocation);
    const until = (args['until'] ?? 'ready') as GuestWait;
    const fail = (guest: string, failure: CliFailure): number => {
      if (json) context.note(JSON.stringify({ error: failure.wire }));
      else context.note(failureLines(failure, guests.length > 1 ? { subject: guest } : {}));
      return failure.exitCode;
    };
    const outcomes = await Promise.all(
      guests.map(async (guest) => {
        try {
          const view = await lastingWait(context, 'guest-wait', { ...args, guest });
          if (!json) context.print(`${view.name} ${reachedText(view, until)}`);
          return { view, code: 0 };
        } catch (error) {
          if (error instanceof Interrupted) throw error;
          return { view: undefined, code: fail(guest, toFailure(error)) };
        }
      }),
    );
    const views = outcomes.flatMap(({ view }) => view ?? []);
    if (json && views.length > 0) context.printJson(guests.length > 1 ? views : views[0]);
    return worstOf(outcomes.map(({ code }) => code));
  };
