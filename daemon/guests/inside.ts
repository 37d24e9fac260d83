/** A guest that boots a container image, seen from inside: what its init is told, and that it ends with its program. */
import type { GuestInit, GuestSetup, ProgramLine } from '../../drivers/driver.ts';
import { DeadlineError, deadline } from '../../lib/abort.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { ProgramEnd } from '../inventory/guest-table.ts';
import { filesystemsToMount } from './filesystems.ts';
import type { Guest } from './guest.ts';
import { endedEarly, inTime } from './in-time.ts';
import { leaveSystem, setUpSystem } from './inside-system.ts';
import { runsProgram } from './runs-program.ts';
import { forkToSetUp, markRenewed, placesOf, setupOf } from './who-it-is.ts';

/** From the first instruction to the init's answer it takes a second or two; each try has longer than the one before. */
const FIRST_BOOT_TIMEOUT_MS = 10_000;
/**
 * From its first instruction a fork takes some tens of milliseconds to it, but seconds where fifty others want the same
 * processors; to boot it instead would take many times more of them, and the next forks would then be late as well.
 */
const FORK_TIMEOUT_MS = 20_000;
/** A guest that goes on as a fork of itself has more to lose than time. */
const ITSELF_TIMEOUT_MS = 30_000;
/** How long its output may take to arrive; who is attached and reads slowly does not count. */
const LEAVE_TIMEOUT_MS = 10_000;
/** How long the init may take to begin with the end. */
const POWER_OFF_TIMEOUT_MS = 10_000;

/**
 * Waits until the init is there and has started the program, or until the fork of a guest with a system of its own has
 * become itself; nothing for other guests. Errors: DeadlineExceeded when it
 * does not come up, FailedPrecondition when the program cannot be run.
 * `tries`: which try this is, from 1.
 */
export const setUpInside = async (guest: Guest, tries: number, signal: AbortSignal): Promise<void> => {
  const own = setupFor(guest);
  if (!own) return await setUpSystem(guest, signal);
  const fork = forkToSetUp(guest);
  const isPrepared = guest.status.applied?.prepared === true;
  const setup = {
    ...own,
    ...(fork === undefined ? {} : { fork }),
    ...(isPrepared ? { isPrepared } : {}),
  };
  // Its init has answered and made it itself: that its program does what it is there for, is not the init's to prove.
  const onItself = (): void => {
    if (fork) markRenewed(guest);
    guest.readiness.prove({ kind: 'agent', at: guest.house.clock.now() });
  };
  await withInit(guest, timeoutOf(fork, tries), signal, (init, limit) => init.setUp(setup, limit, onItself));
};

/** Tells a guest that is to wait for somebody all but its name. Errors: as `setUpInside`. */
export const prepareInside = async (guest: Guest, tries: number, signal: AbortSignal): Promise<void> => {
  const own = setupFor(guest);
  if (!own) return;
  const fork = forkToSetUp(guest);
  const setup = { ...own, ...(fork === undefined ? {} : { fork }) };
  await withInit(guest, timeoutOf(fork, tries), signal, (init, limit) => init.prepare(setup, limit));
  markRenewed(guest);
};

/** Waits until the init is there, and leaves it as its forks are to find it. Errors: as `setUpInside`. */
export const prepareForForks = async (
  guest: Guest,
  token: string,
  { tries, signal }: { readonly tries: number; readonly signal: AbortSignal },
): Promise<void> =>
  await withInit(guest, bootTimeoutMs(tries), signal, async (init, limit) => {
    const setup = setupFor(guest);
    if (setup) await init.prepareForForks({ token, setup }, limit);
  });

/** Leaves the program of a running guest as the forks of its memory are to find it; it runs on. Errors: as `setUpInside`. */
export const leaveProgram = async (guest: Guest, token: string, signal: AbortSignal): Promise<void> => {
  if (!runsProgram(guest.record.spec)) return await leaveSystem(guest, token, signal);
  await withInit(guest, LEAVE_TIMEOUT_MS, signal, (init, limit) => init.leaveProgram(token, limit));
};

/** Undefined for a guest that runs no program of an image. */
const setupFor = (guest: Guest): GuestSetup | undefined => {
  const { program } = guest.record.spec;
  return program && { ...setupOf(guest, program, placesOf(guest)), ...filesystemsToMount(guest.record) };
};

const timeoutOf = (fork: GuestSetup['fork'], tries: number): number => {
  if (!fork) return bootTimeoutMs(tries);
  return fork.isItself ? ITSELF_TIMEOUT_MS : FORK_TIMEOUT_MS;
};

const bootTimeoutMs = (tries: number): number => FIRST_BOOT_TIMEOUT_MS * 3 ** (tries - 1);

const withInit = async (
  guest: Guest,
  timeoutMs: number,
  signal: AbortSignal,
  act: (init: GuestInit, signal: AbortSignal) => Promise<void>,
): Promise<void> => {
  const { handle, name } = guest;
  // Gone since it was resumed: nobody may take that for an answer of its init.
  const init = handle?.init;
  if (!init) throw endedEarly(guest);
  await inTime(
    guest,
    { timeoutMs, signal },
    (limit) => act(init, limit),
    (cause) =>
      new RoostError('DeadlineExceeded', `Guest ${name} has not come up in ${timeoutMs / 1000} s`, {
        cause,
        data: { guest: name },
        hint: 'Look at what it wrote while it booted: roost logs --console.',
      }),
  );
};

/** The program has ended: written down, and the guest is asked to end as well; one that does not is stopped by others. */
export const endWithProgram = (guest: Guest, { exitCode, signal }: ProgramEnd): void => {
  const { process } = guest.status;
  if (!process || process.programEnd) return;
  const programEnd = {
    ...(exitCode === undefined ? {} : { exitCode }),
    ...(signal === undefined ? {} : { signal }),
  };
  guest.setStatus({ process: { ...process, programEnd } });
  const { house } = guest;
  guest.agent
    .use((agent, limit) => agent.shutdown(limit), { signal: house.stopping, timeoutMs: POWER_OFF_TIMEOUT_MS })
    .catch((err: unknown) => {
      if (!house.stopping.aborted)
        house.log.warn({ err, guest: guest.name }, 'the guest outlives its program');
    });
};

/** Errors: Unsupported for a guest that boots no container image, FailedPrecondition when it does not run. */
export const requireInit = ({ handle, name, state, record }: Guest): GuestInit => {
  if (!runsProgram(record.spec))
    throw new RoostError('Unsupported', `Guest ${name} runs no program of a container image`, {
      data: { guest: name },
      hint: 'Use its console, its agent or SSH; `roost stop --force` ends it.',
    });
  if (handle?.init) return handle.init;
  throw new RoostError('FailedPrecondition', `Guest ${name} is ${state}: its program does not run`, {
    data: { guest: name, state },
    hint: 'Start it first. What its program wrote before is in its log.',
  });
};

const ATTACH_TIMEOUT_MS = 10_000;

/**
 * The streams of the main program, for one more. Errors: FailedPrecondition when it does not run, Unsupported for a guest
 * that boots no container image, Unavailable when its init is out of reach.
 */
export const attachProgram = async (
  guest: Guest,
  fromOffset: number | undefined,
  signal: AbortSignal,
): Promise<ProgramLine> => {
  const { name } = guest;
  const init = requireInit(guest);
  using limit = deadline(ATTACH_TIMEOUT_MS, signal);
  try {
    return await init.attachProgram(fromOffset, limit.signal);
  } catch (error) {
    if (!(limit.signal.reason instanceof DeadlineError)) throw error;
    throw new RoostError('Unavailable', `The program of guest ${name} cannot be reached`, {
      cause: error,
      data: { guest: name },
      hint: 'Its init does not answer. What its program writes is in its log as soon as it does.',
    });
  }
};
