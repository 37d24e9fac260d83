/** `roost attach`: the streams of a guest's main program here; and what `roost run` does in the foreground. */
import { type ByteSessionEnding, carryByteSession, exitCodeOf } from './byte-session.ts';
import { usageFailure } from './failure.ts';
import type { Context } from './io.ts';
import type { Invocation } from './verb.ts';

export interface AttachOptions {
  readonly guest: string;
  readonly terminal: boolean;
  /** What is typed goes to the program. */
  readonly interactive: boolean;
  /** Show what it has written before, from this byte of its log on. */
  readonly fromOffset?: number;
}

/** Resolves when the program has ended or is left to itself. Throws CliFailure. */
export const attachHere = async (
  context: Context,
  { guest, fromOffset, ...options }: AttachOptions,
): Promise<ByteSessionEnding> => {
  const { io, note, signal } = context;
  const client = await context.anotherClient();
  try {
    const args = { guest, ...(fromOffset === undefined ? {} : { fromOffset }) };
    const socket = await client.attach('guest-attach', args, { signal });
    const isHere = options.terminal && options.interactive && io.stdin.isTTY === true;
    const onOpen = (): void => {
      if (isHere) note(`Attached to ${guest}. Ctrl-] leaves; the guest goes on.`);
    };
    const ending = await carryByteSession(socket, io, { ...options, of: 'program', mayLeave: true, onOpen });
    // The cursor stands wherever the program left it.
    if (ending === 'left') note(['', `Left ${guest}; it goes on. 'roost attach ${guest}' comes back.`]);
    return ending;
  } finally {
    client.close();
  }
};

/** Refuses a terminal for the program where there is none here. */
export const requireTerminal = (
  { io }: Context,
  { terminal, interactive }: Omit<AttachOptions, 'guest'>,
): void => {
  if (terminal && interactive && io.stdin.isTTY !== true)
    throw usageFailure('Standard input is no terminal', 'Leave out -t, or run it in a terminal.');
};

export const attachToGuest = async (
  { flags, positionals }: Invocation,
  context: Context,
): Promise<number> => {
  const guest = String(positionals['NAME']);
  const client = await context.client();
  const { program } = await client.call('query-guest', { guest }, { signal: context.signal });
  const terminal = program?.terminal ?? false;
  const interactive = (program?.interactive ?? false) && flags['no-input'] !== true;
  const options = { guest, terminal, interactive };
  requireTerminal(context, options);
  const ending = await attachHere(context, options);
  return ending === 'left' ? 0 : exitCodeOf(ending);
};
