/** Programs in a guest: begun with their streams, and waited for. */
import type { ProgramLine } from '../../drivers/driver.ts';
import { deferred, waitOrAbort } from '../../lib/abort.ts';
import type { ExecStatus, ProgramRequest } from '../../protocol/agent.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { Guest } from './guest.ts';

const FIRST_PAUSE_MS = 20;
const LONGEST_PAUSE_MS = 500;

/**
 * How a program is: when it has exited, or after `waitMs`. The agent tells nobody of an end, so it is asked again and
 * again, less often the longer it takes. Errors: those of every request.
 */
export const execStatus = async (
  guest: Guest,
  { pid, waitMs, timeoutMs }: { readonly pid: number; readonly waitMs: number; readonly timeoutMs: number },
  signal: AbortSignal,
): Promise<ExecStatus> => {
  const { clock } = guest.house;
  const until = clock.now() + waitMs;
  for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS)) {
    const status = await guest.agent.use((agent, limit) => agent.execStatus(pid, limit), {
      signal,
      timeoutMs,
    });
    const leftMs = until - clock.now();
    if (status.exited || leftMs <= 0) return status;
    const over = deferred<void>();
    const cancelTimer = clock.after(Math.min(pauseMs, leftMs), over.resolve);
    await waitOrAbort(over.promise, signal).finally(cancelTimer);
  }
};

/** Starts a program and gives its streams. Errors: those of every request, Unsupported where the agent cannot. */
export const openProgram = async (
  guest: Guest,
  request: ProgramRequest,
  waiting: { readonly signal: AbortSignal; readonly timeoutMs: number },
): Promise<ProgramLine> =>
  await guest.agent.use((agent, limit) => {
    if (agent.openProgram) return agent.openProgram(request, limit);
    throw new RoostError('Unsupported', `The agent in guest ${guest.name} runs programs to their end only`, {
      data: { guest: guest.name },
      hint: 'Use guest-exec, or log in by its console or by SSH.',
    });
  }, waiting);
