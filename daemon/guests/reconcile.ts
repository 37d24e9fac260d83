/**
 * Finds out what became of a guest's process while no daemon watched, and takes it back. It repairs the record and
 * starts nothing. A probe that cannot tell changes nothing.
 */
import type { Observer } from '../../drivers/driver.ts';
import { deadline, deferred, waitOrAbort } from '../../lib/abort.ts';
import { isTurnOver, nextTurn } from '../../lib/turn.ts';
import { isRoostError } from '../../protocol/errors.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import type { Guest } from './guest.ts';
import { isStart } from './guest-status.ts';
import { portSpecs } from './launch-of.ts';
import { holdToLimits } from './live-limits.ts';

/** How long a monitor may take to greet before its guest counts as unresponsive. */
const ATTACH_TIMEOUT_MS = 5_000;
const FIRST_RETRY_MS = 1_000;
const LONGEST_RETRY_MS = 30_000;

/** A guest without its rules sends nothing; that is no reason to call it lost. */
export const restorePorts = async (guest: Guest): Promise<void> => {
  const { networks, stopping, log } = guest.house;
  for (const { network, port } of portSpecs(guest)) {
    try {
      await networks.restore(network, port, stopping);
    } catch (error) {
      log.warn(
        { err: error, guest: guest.name, nic: port.index },
        'the rules of a port could not be looked at',
      );
    }
  }
};

/** Takes a live process back; for a silent one is waited until it speaks or is gone. */
const attach = async (guest: Guest, startLeft: boolean, pauseMs = 0): Promise<void> => {
  const { house, driver } = guest;
  using limit = deadline(ATTACH_TIMEOUT_MS, house.stopping);
  try {
    const handle = await driver.attach(guest.place, {
      signal: limit.signal,
      cursor: guest.status.cursor,
      observe: guest.observe,
    });
    guest.take(handle);
    await guest.lookAgain();
    await holdToLimits(guest);
    // What an interrupted start had not come to; for all others it is done later, without haste.
    if (startLeft) await restorePorts(guest);
  } catch (error) {
    if (house.stopping.aborted) return;
    if (isRoostError(error, 'NotFound')) {
      await gone(guest, false, startLeft);
      return;
    }
    house.log.warn({ err: error, guest: guest.name }, 'the guest lives but its monitor is silent');
    if (guest.status.state !== 'unresponsive')
      house.operations.recordNews('that a guest is silent', () =>
        guest.setStatus({ state: 'unresponsive', reason: 'silent' }),
      );
    void attachWhenHeard(guest, pauseMs);
  }
};

/** Guests whose monitor somebody waits for. */
const awaited = new WeakSet<Guest>();

const isOutOfReach = (guest: Guest): boolean =>
  !guest.removed && !guest.handle && guest.status.state === 'unresponsive';

/**
 * Waits for a silent monitor outside of the mailbox, where nobody is held up by it, then takes the process back. `pauseMs`
 * goes ahead where trying again at once was in vain.
 */
const attachWhenHeard = async (guest: Guest, pauseMs: number): Promise<void> => {
  if (awaited.has(guest)) return;
  awaited.add(guest);
  try {
    await awaitAnswer(guest, pauseMs);
  } catch {
    // The daemon stops.
    return;
  } finally {
    awaited.delete(guest);
  }
  const nextMs = Math.min(Math.max(pauseMs * 2, FIRST_RETRY_MS), LONGEST_RETRY_MS);
  const retry = async (): Promise<void> => {
    if (isOutOfReach(guest)) await attach(guest, false, nextMs);
  };
  await guest.mailbox.post(retry, { front: true }).catch((error: unknown) => {
    if (!guest.house.stopping.aborted)
      guest.house.log.error({ err: error, guest: guest.name }, 'the guest could not be taken back');
  });
};

/** Resolves when there is a reason to try again: an answer, the end of the process, or a time. Rejects as waiting does. */
const awaitAnswer = async (guest: Guest, pauseMs: number): Promise<void> => {
  const { stopping, clock } = guest.house;
  const observe: Observer = (observation, cursor) => {
    if (isOutOfReach(guest)) guest.observe(observation, cursor);
  };
  const pause = async (ms: number): Promise<void> => {
    const over = deferred<void>();
    const cancel = clock.after(ms, over.resolve);
    await waitOrAbort(over.promise, stopping).finally(cancel);
  };
  if (pauseMs > 0) await pause(pauseMs);
  try {
    const { cursor } = guest.status;
    await guest.driver.awaitAnswer(guest.place, { signal: stopping, cursor, observe });
  } catch (error) {
    stopping.throwIfAborted();
    if (!isRoostError(error, 'NotFound')) await pause(FIRST_RETRY_MS);
  }
};

/** The process is gone: learns how, and frees what it had. `startLeft`: an unfinished start will make it anew. */
const gone = async (guest: Guest, hostBooted: boolean, startLeft: boolean): Promise<void> => {
  const { house, driver } = guest;
  const context = { signal: house.stopping, cursor: guest.status.cursor, observe: guest.observe };
  const end = hostBooted
    ? ({ cause: 'unknown', detail: 'the host was booted', at: house.clock.now() } as const)
    : await driver.autopsy(guest.place, context);
  guest.found = end.cause === 'guest-shutdown' ? 'shut-down-by-guest' : 'gone';
  if (startLeft && guest.found === 'gone') {
    await guest.freeRun();
    return;
  }
  if (hostBooted) {
    await guest.freeRun();
    guest.setStatus({ state: 'stopped', reason: undefined, lastExit: end, restartAt: undefined });
    return;
  }
  await guest.wrapUp(end);
};

const look = async (guest: Guest, startLeft: boolean, hostBooted: boolean): Promise<void> => {
  const probe = await guest.driver.probe(guest.place);
  guest.found = probe;
  switch (probe) {
    case 'alive':
      await attach(guest, startLeft);
      return;
    case 'unknown':
      guest.setStatus({ state: 'unknown', reason: 'the probe could not tell' });
      return;
    case 'gone':
      if (guest.isLive()) await gone(guest, hostBooted, startLeft);
      return;
  }
};

export const reconcile = async (
  guest: Guest,
  leftovers: readonly OperationRecord[],
  hostBooted: boolean,
): Promise<void> => {
  if (guest.missingDriver !== undefined) {
    guest.markReconciled();
    return;
  }
  const startLeft = leftovers.some((operation) => isStart(operation.kind));
  // Hundreds of guests are looked at beside clients who ask.
  while (isTurnOver()) await nextTurn();
  try {
    // After a boot of the host only autostart starts guests.
    if (hostBooted) guest.restarts.silence();
    await look(guest, startLeft, hostBooted);
    guest.restarts.arm();
    guest.deletion.arm();
  } catch (error) {
    if (guest.house.stopping.aborted) return;
    guest.house.log.error({ err: error, guest: guest.name }, 'the guest could not be looked at');
    guest.setStatus({ state: 'unknown', reason: 'it could not be looked at' });
  } finally {
    guest.markReconciled();
  }
};
