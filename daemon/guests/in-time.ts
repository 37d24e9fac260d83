/** What is done inside of a guest: while its process lives, and within a time. */
import { DeadlineError, deadline } from '../../lib/abort.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { Guest } from './guest.ts';

/** `late`: what it means that the time is over. Errors also: HostError when its process ends before. */
export const inTime = async (
  guest: Guest,
  { timeoutMs, signal }: { readonly timeoutMs: number; readonly signal: AbortSignal },
  act: (signal: AbortSignal) => Promise<void>,
  late: (cause: unknown) => RoostError,
): Promise<void> => {
  const { handle } = guest;
  if (!handle) throw endedEarly(guest);
  const ended = new AbortController();
  void handle.ended.then(() => ended.abort(endedEarly(guest)));
  using limit = deadline(timeoutMs, AbortSignal.any([signal, ended.signal]));
  try {
    await act(limit.signal);
  } catch (error) {
    throw limit.signal.reason instanceof DeadlineError ? late(error) : error;
  }
};

export const endedEarly = ({ name }: Guest): RoostError =>
  new RoostError('HostError', `Guest ${name} ended before it had come up`, {
    data: { guest: name },
    hint: 'Look at what it wrote while it booted: roost logs --console.',
  });
