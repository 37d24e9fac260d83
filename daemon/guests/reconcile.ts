/**
 * Finds out what became of a guest's process while no daemon watched, and takes it back. It repairs the record and
 * starts nothing. A probe that cannot tell changes nothing.
 */
import { deadline } from '../../lib/abort.ts';
import { isRoostError } from '../../protocol/errors.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import type { Guest } from './guest.ts';
import { portSpecs } from './launch-of.ts';

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

/** Takes a live process back; a silent one is tried again until it speaks or is gone. */
const attach = async (guest: Guest, retryMs: number, startLeft: boolean): Promise<void> => {
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
    // What an interrupted start had not come to; for all others it is done later, without haste.
    if (startLeft) await restorePorts(guest);
  } catch (error) {
    if (house.stopping.aborted) return;
    if (isRoostError(error, 'NotFound')) {
      await gone(guest, false, startLeft);
      return;
    }
    house.log.warn({ err: error, guest: guest.name }, 'the guest lives but its monitor is silent');
    if (guest.status.state !== 'unresponsive') guest.setStatus({ state: 'unresponsive', reason: 'silent' });
    house.clock.after(retryMs, () => {
      if (guest.removed || guest.handle || house.stopping.aborted) return;
      void guest.mailbox.post(() => retry(guest, Math.min(retryMs * 2, LONGEST_RETRY_MS)), { front: true });
    });
  }
};

const retry = async (guest: Guest, retryMs: number): Promise<void> => {
  if (guest.removed || guest.handle || guest.status.state !== 'unresponsive') return;
  await attach(guest, retryMs, false);
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
      await attach(guest, FIRST_RETRY_MS, startLeft);
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
  const startLeft = leftovers.some((operation) => operation.kind === 'guest-start');
  try {
    // After a boot of the host only autostart starts guests.
    if (hostBooted) guest.restarts.silence();
    await look(guest, startLeft, hostBooted);
    guest.restarts.arm();
  } catch (error) {
    if (guest.house.stopping.aborted) return;
    guest.house.log.error({ err: error, guest: guest.name }, 'the guest could not be looked at');
    guest.setStatus({ state: 'unknown', reason: 'it could not be looked at' });
  } finally {
    guest.markReconciled();
  }
};
