/** guest-stop: ask the guest, wait until its deadline, then end it; free what its run had. */

import { constants } from 'node:os';
import type { GuestEnd, GuestHandle, GuestInit } from '../../drivers/driver.ts';
import { deferred, waitOrAbort } from '../../lib/abort.ts';
import { enter } from '../../lib/account.ts';
import { isRoostError, RoostError, toRoostError } from '../../protocol/errors.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import type { Step } from '../operations/steps.ts';
import type { Guest } from './guest.ts';
import type { Procedure } from './perform.ts';

/** The deadline as first set; a restart of the daemon does not move it. */
const deadlineOf = (guest: Guest, operation: OperationRecord): number => {
  if (operation.deadlineAt !== undefined) return operation.deadlineAt;
  const asked = operation.arguments['timeoutMs'];
  const deadlineAt =
    guest.house.clock.now() + (typeof asked === 'number' ? asked : guest.record.spec.stopTimeoutMs);
  guest.house.inventory.db.soon(() => guest.house.operations.setDeadline(operation.id, deadlineAt));
  return deadlineAt;
};

/** Whether somebody who will not wait stands behind this operation. */
export const forceWaits = (guest: Guest, operation: OperationRecord): boolean =>
  guest.unfinished.some(
    (other) =>
      other.id !== operation.id &&
      ['guest-stop', 'guest-delete'].includes(other.kind) &&
      other.arguments['force'] === true,
  );

/** Time between two tries to reach a monitor that refuses at once. */
const REACH_AGAIN_MS = 1_000;

/** The line to the process, made anew if need be, until the signal: a silent monitor may speak again in time. */
const reach = async (guest: Guest, signal: AbortSignal): Promise<GuestHandle | undefined> => {
  const { clock } = guest.house;
  while (!guest.handle && !signal.aborted) {
    try {
      const { cursor } = guest.status;
      guest.take(await guest.driver.attach(guest.place, { signal, cursor, observe: guest.observe }));
    } catch (error) {
      if (!isRoostError(error, 'Unavailable')) return undefined;
      const again = deferred<void>();
      const cancelTimer = clock.after(REACH_AGAIN_MS, again.resolve);
      await waitOrAbort(again.promise, signal).catch(() => undefined);
      cancelTimer();
    }
  }
  return guest.handle;
};

/** A guest that was still booting has not heard the button; to one that shuts down another press is nothing. */
const PRESS_AGAIN_MS = 10_000;

/** How the guest is asked; by both unless somebody chose. */
type Mode = 'acpi' | 'agent' | undefined;

const modeOf = ({ arguments: { mode } }: OperationRecord): Mode =>
  mode === 'acpi' || mode === 'agent' ? mode : undefined;

/** Asks the guest, again and again until the signal. */
const keepAsking = async (
  guest: Guest,
  handle: GuestHandle,
  { mode, wasPaused }: { readonly mode: Mode; readonly wasPaused: boolean },
  signal: AbortSignal,
): Promise<void> => {
  const { clock } = guest.house;
  await makeReady(guest, handle, wasPaused, signal);
  if (mode === 'agent') void askAgent(guest, handle, signal);
  else await press(guest, handle, signal);
  while (!signal.aborted) {
    const again = deferred<void>();
    const cancelTimer = clock.after(PRESS_AGAIN_MS, again.resolve);
    await waitOrAbort(again.promise, signal).catch(() => undefined);
    cancelTimer();
    if (signal.aborted) return;
    if (mode !== 'agent') await press(guest, handle, signal);
    if (mode !== 'acpi') void askAgent(guest, handle, signal);
  }
};

/** A guest that is paused could not hear it; one whose file systems are frozen could not shut down. */
const makeReady = async (
  guest: Guest,
  handle: GuestHandle,
  wasPaused: boolean,
  signal: AbortSignal,
): Promise<void> => {
  try {
    if (wasPaused) await handle.resume(signal);
    await guest.freezing.letGo('stop', signal);
  } catch (error) {
    if (!signal.aborted)
      guest.house.log.warn({ err: error, guest: guest.name }, 'the guest could not be made to listen');
  }
};

/** A guest that did not heed the button may heed its agent, which asks the guest's own init. */
const askAgent = async (guest: Guest, handle: GuestHandle, signal: AbortSignal): Promise<void> => {
  if (handle.agent?.isOpen !== true) return;
  try {
    await guest.agent.use((agent, limit) => agent.shutdown(limit), { signal });
    enter({ kind: 'note', text: 'the agent took the request to shut down' });
  } catch (error) {
    if (signal.aborted) return;
    enter({ kind: 'note', text: `the agent did not take it: ${toRoostError(error).message}` });
    guest.house.log.debug({ err: error, guest: guest.name }, "the guest's agent did not take the shutdown");
  }
};

/** The guest of a program ends with it, so that it is the program that is asked. */
const askProgram = async (guest: Guest, init: GuestInit, signal: AbortSignal): Promise<void> => {
  const { stopSignal = 'SIGTERM' } = guest.record.spec.program ?? {};
  await init.signalProgram(constants.signals[stopSignal as NodeJS.Signals], signal);
  enter({ kind: 'note', text: `sent the main program ${stopSignal}` });
};

/** Presses the power button. A silent monitor cannot pass it on. */
const press = async (guest: Guest, handle: GuestHandle, signal: AbortSignal): Promise<void> => {
  try {
    if (handle.init) return await askProgram(guest, handle.init, signal);
    await handle.requestShutdown(signal);
    enter({ kind: 'note', text: 'pressed the power button' });
  } catch (error) {
    if (!signal.aborted)
      guest.house.log.warn({ err: error, guest: guest.name }, 'the guest could not be asked to shut down');
  }
};

const refuseWithoutAgent = (guest: Guest, handle: GuestHandle): void => {
  if (handle.agent?.isOpen === true) return;
  throw new RoostError('Unavailable', `No agent in guest ${guest.name} can be asked to shut it down`, {
    data: { guest: guest.name },
    hint: 'Stop it by its power button: leave out the mode, or give acpi.',
  });
};

const ask = (guest: Guest, operation: OperationRecord): Step => ({
  name: 'ask',
  do: async ({ signal }) => {
    if (!guest.isLive()) return;
    const { template, waiting } = guest.record.spec;
    // Its memory is theirs as well.
    if (template) await guest.house.waiting.endOf(guest.id, signal);
    // Nothing runs in it that could be asked.
    if (template ?? waiting) return;
    const wasPaused = guest.status.state === 'paused';
    guest.setStatus({ state: 'stopping', reason: undefined });
    if (operation.arguments['force'] === true || forceWaits(guest, operation)) return;
    if (!guest.driver.verbs.has('shutdown')) return;
    const { clock } = guest.house;
    const waited = new AbortController();
    const cancelTimer = clock.after(deadlineOf(guest, operation) - clock.now(), () => waited.abort());
    void guest.forced().then(() => waited.abort());
    const ended = new AbortController();
    const patience = AbortSignal.any([signal, waited.signal]);
    try {
      const handle = await reach(guest, patience);
      if (!handle) return;
      const mode = modeOf(operation);
      if (mode === 'agent') refuseWithoutAgent(guest, handle);
      void keepAsking(guest, handle, { mode, wasPaused }, AbortSignal.any([patience, ended.signal]));
      await waitOrAbort(handle.ended, patience).catch(() => undefined);
      signal.throwIfAborted();
    } finally {
      ended.abort();
      cancelTimer();
    }
  },
  undo: async () => {
    if (!guest.isLive()) return;
    guest.setTarget('running', operation.actor);
    guest.setStatus({ state: 'unknown', reason: undefined });
    if (guest.handle) await guest.lookAgain();
    else await guest.lookForProcess();
  },
});

/** Ends the process, if it still lives, and learns how it ended. */
export const endProcess = async (guest: Guest, signal: AbortSignal): Promise<GuestEnd> => {
  const { handle } = guest;
  if (handle) {
    await handle.kill(signal);
    return await waitOrAbort(handle.ended, signal);
  }
  await guest.driver.destroy(guest.place, signal);
  return await guest.driver.autopsy(guest.place, {
    signal,
    cursor: guest.status.cursor,
    observe: guest.observe,
  });
};

/** `end` and `release` are one step: how the process ended is known only between them. */
const end = (guest: Guest): Step => ({
  name: 'end',
  do: async ({ signal }) => {
    if (!guest.isLive()) return;
    try {
      await guest.wrapUp(await endProcess(guest, signal));
    } catch (error) {
      if (!isRoostError(error, 'NotFound')) throw error;
      await guest.wrapUp({ cause: 'unknown', at: guest.house.clock.now() });
    }
  },
});

const settleDown = (guest: Guest): Step => ({
  name: 'settle',
  do: () => {
    if (guest.status.state !== 'stopped') guest.setStatus({ state: 'stopped', reason: undefined });
  },
});

/** When what was to end the guest is cancelled before its turn, and nothing else is to: it is to run on. */
export const keepRunning = (guest: Guest, operation: OperationRecord): void => {
  const others = guest.unfinished.some(
    (other) => other.id !== operation.id && ['guest-stop', 'guest-delete'].includes(other.kind),
  );
  if (guest.handle && !others) guest.setTarget('running', operation.actor);
};

export const stop = (guest: Guest, operation: OperationRecord): Procedure => ({
  steps: [ask(guest, operation), end(guest), settleDown(guest)],
  finish: () => ({ guest: guest.id }),
  withdraw: () => keepRunning(guest, operation),
});
