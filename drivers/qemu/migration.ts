/** QEMU's migration as both ends of it use it: what goes along, and how it ends. */
import { deferred, waitOrAbort } from '../../lib/abort.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { GuestPlace } from '../driver.ts';
import type { EventLog } from '../processes/event-log.ts';
import type { Monitor } from '../processes/monitor.ts';
import type { QmpEvent } from '../processes/qmp/qmp-types.ts';

/** The line to one end. */
export interface MigrationLine {
  readonly place: GuestPlace;
  readonly monitor: Monitor;
  readonly events: EventLog;
}

/** Both ends have to have the same; events tell how it goes. Shared memory stays where it is unless it goes along. */
export const setCapabilities = async (
  monitor: Monitor,
  { withMemory }: { readonly withMemory: boolean },
  signal: AbortSignal,
): Promise<void> => {
  const capabilities = [
    { capability: 'x-ignore-shared', state: !withMemory },
    { capability: 'events', state: true },
  ];
  await monitor.execute('migrate-set-capabilities', { capabilities }, signal);
};

/** Begins it and waits for its end at this end, which QEMU tells by an event. Errors: HostError when it fails. */
export const migration = async (
  { place, events }: MigrationLine,
  signal: AbortSignal,
  begin: () => Promise<void>,
): Promise<void> => {
  const ended = deferred<string>();
  const onEvent = ({ event, data }: QmpEvent): void => {
    const status = event === 'MIGRATION' ? data['status'] : undefined;
    if (status === 'completed' || status === 'failed' || status === 'cancelled') ended.resolve(status);
  };
  const stopListening = events.onEvent(onEvent);
  try {
    await begin();
    const status = await waitOrAbort(ended.promise, signal);
    if (status === 'completed') return;
    throw new RoostError('HostError', `QEMU could not pass on the state of guest ${place.id}: ${status}`, {
      data: { guest: place.id, status },
      hint: 'Look at `roost logs --process` and `roost qmp-log`.',
    });
  } finally {
    stopListening();
  }
};
