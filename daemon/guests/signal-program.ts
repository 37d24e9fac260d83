/** guest-signal: a signal for the main program of a guest that runs a container image. */
import { constants } from 'node:os';
import { RoostError } from '../../protocol/errors.ts';
import type { Guest } from './guest.ts';
import { requireInit } from './inside.ts';

const numberOf = (signal: number | string): number => {
  if (typeof signal === 'number') return signal;
  const name = signal.startsWith('SIG') ? signal : `SIG${signal}`;
  const number: number | undefined = constants.signals[name as NodeJS.Signals];
  if (number !== undefined) return number;
  throw new RoostError('InvalidArgument', `There is no signal ${signal}`, {
    data: { signal },
    hint: 'Name one as SIGTERM, or give its number (signal(7)).',
  });
};

/** Errors: FailedPrecondition when it does not run, Unsupported for other guests, Unavailable when its init is out of reach. */
export const signalProgram = async (
  guest: Guest,
  signal: number | string,
  waiting: { readonly signal: AbortSignal; readonly timeoutMs: number },
): Promise<void> => {
  const number = numberOf(signal);
  const init = requireInit(guest);
  await guest.agent.use((_agent, limit) => init.signalProgram(number, limit), waiting);
};
