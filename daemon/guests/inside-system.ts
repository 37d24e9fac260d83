/**
 * A guest with a system of its own, seen from inside, by the agent in it: how it is left for forks, and how each of them
 * becomes itself before anybody hears it.
 */
import type { IdentityTeller } from '../../drivers/driver.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { Guest } from './guest.ts';
import { inTime } from './in-time.ts';
import { runsProgram } from './runs-program.ts';
import { forkToSetUp, linksOf, machineIdOf, markRenewed, placesOf } from './who-it-is.ts';

/** While it works for others. */
const LEAVE_TIMEOUT_MS = 60_000;
/** Under emulation its programs start with nothing translated; then it asks its networks for addresses. */
const SET_UP_TIMEOUT_MS = 120_000;

/** Leaves a running guest as the forks of its memory are to find it. Errors: those of its teller, DeadlineExceeded. */
export const leaveSystem = async (guest: Guest, token: string, signal: AbortSignal): Promise<void> =>
  await inTime(
    guest,
    { timeoutMs: LEAVE_TIMEOUT_MS, signal },
    (limit) => requireTeller(guest).prepareForForks(token, limit),
    (cause) => silent(guest, LEAVE_TIMEOUT_MS, cause),
  );

/** Makes a fork itself, then lets it be heard; nothing for other guests. Errors: those of its teller, DeadlineExceeded. */
export const setUpSystem = async (guest: Guest, signal: AbortSignal): Promise<void> => {
  const fork = forkToSetUp(guest);
  if (!fork) return;
  const links = linksOf(placesOf(guest));
  const identity = { fork, hostname: guest.name, machineId: machineIdOf(guest), links };
  const tell = async (limit: AbortSignal): Promise<void> => {
    const teller = requireTeller(guest);
    await teller.tellIdentity(identity, limit);
    if (fork.isItself) return;
    await guest.handle?.forks?.setLinks(true, limit);
    await teller.settleAddresses(links, limit);
  };
  await inTime(guest, { timeoutMs: SET_UP_TIMEOUT_MS, signal }, tell, (cause) =>
    silent(guest, SET_UP_TIMEOUT_MS, cause),
  );
  markRenewed(guest);
  guest.readiness.prove({ kind: 'agent', at: guest.house.clock.now() });
};

/** Whether nobody may hear it yet on its networks: it would speak as its template. */
export const isUnheard = (guest: Guest): boolean =>
  !runsProgram(guest.record.spec) && forkToSetUp(guest)?.isItself === false;

/** Errors: FailedPrecondition for a guest without the channel to an agent. */
const requireTeller = ({ handle, name }: Guest): IdentityTeller => {
  if (handle?.teller) return handle.teller;
  throw new RoostError('FailedPrecondition', `Guest ${name} runs without a channel to an agent`, {
    data: { guest: name },
    hint: 'Give it one with guest-update (agent.enabled), then stop and start it.',
  });
};

const silent = ({ name }: Guest, timeoutMs: number, cause: unknown): RoostError =>
  new RoostError('DeadlineExceeded', `The agent of guest ${name} was not done in ${timeoutMs / 1000} s`, {
    cause,
    data: { guest: name, timeoutMs },
    hint: 'Look at qemu-guest-agent in the guest.',
  });
