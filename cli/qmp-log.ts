/** `roost qmp-log`: what was said by QMP, and with `--follow` what is. */
import { setTimeout as delay } from 'node:timers/promises';
import type { CommandInput, CommandReturn } from '../protocol/commands.ts';
import type { Context } from './io.ts';
import { lastingCall } from './lasting.ts';
import { printQmpLogEntry, printUnanswered } from './print/qmp-log.ts';
import { argumentsOf, type Invocation } from './verb.ts';

/** The transcript is written beside the guest and makes no event: it is looked at so often. */
const FOLLOW_INTERVAL_MS = 500;

type Input = CommandInput<'query-guest-qmp-log'>;
type Part = CommandReturn<'query-guest-qmp-log'>;

const row = {
  positionals: [{ name: 'NAME', member: 'guest' }],
  flags: [{ name: 'lines', member: 'limit' }],
} as const;

const showEntries = ({ entries, lost }: Part, { json, note, print }: Context): void => {
  if (lost) note(`Entries ${lost.from} to ${lost.to} are no longer kept.`);
  for (const entry of entries) print(json ? JSON.stringify(entry) : printQmpLogEntry(entry));
};

const follow = async (first: Part, input: Input, context: Context): Promise<never> => {
  const { signal } = context;
  let part = first;
  let after = 0;
  for (;;) {
    showEntries(part, context);
    after = part.entries.at(-1)?.number ?? after;
    // A part that is not empty may be the first of several.
    if (part.entries.length === 0 || part === first)
      await delay(FOLLOW_INTERVAL_MS, undefined, { signal }).catch(() => undefined);
    signal.throwIfAborted();
    const args = { guest: input.guest, after };
    part = (await lastingCall(context, 'query-guest-qmp-log', () => args)) as Part;
  }
};

export const showQmpLog = async (invocation: Invocation, context: Context): Promise<number> => {
  const input = argumentsOf(row, invocation) as Input;
  const client = await context.client();
  const part = await client.call('query-guest-qmp-log', input, { signal: context.signal });
  if (invocation.flags['follow'] === true) return follow(part, input, context);
  if (context.json) context.printJson(part);
  else {
    showEntries(part, context);
    context.print(part.unanswered.map(printUnanswered));
  }
  return 0;
};
