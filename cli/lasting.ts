/** Calls that may take as long as they want, a restart of the daemon included: they are made again when it is back. */
import type { CommandName, CommandReturn } from '../protocol/commands.ts';
import { isAway, isSilent } from './failure.ts';
import type { Context } from './io.ts';
import type { Arguments } from './verb.ts';

/**
 * Calls a command that changes nothing by being called twice. `args` is asked for at each call: what is left of a time
 * may be among them. Throws as `Client.call` does.
 */
export const lastingCall = async (
  context: Context,
  name: CommandName,
  args: () => Arguments,
): Promise<unknown> => {
  let client = await context.client().catch((error: unknown) => {
    if (isSilent(error)) return context.again(undefined, error);
    throw error;
  });
  for (;;) {
    try {
      return await client.callAny(name, args(), { signal: context.signal });
    } catch (error) {
      if (!isAway(error)) throw error;
      client = await context.again(client, error);
    }
  }
};

/** Waits for something over restarts of the daemon, in all no longer than `timeoutMs` where that is given. */
export const lastingWait = async <N extends 'guest-wait' | 'operation-wait'>(
  context: Context,
  name: N,
  args: Arguments,
): Promise<CommandReturn<N>> => {
  const { timeoutMs } = args;
  let until: number | undefined;
  const left = (): Arguments => {
    if (typeof timeoutMs !== 'number') return args;
    const now = performance.now();
    until ??= now + timeoutMs;
    return { ...args, timeoutMs: Math.max(1, Math.round(until - now)) };
  };
  return (await lastingCall(context, name, left)) as CommandReturn<N>;
};
