/** guest-disk-resize: the file grows, through the guest's process if it runs; then the record knows. There is no way back. */
import { firstOf } from '../../lib/abort.ts';
import type { CommandArguments } from '../../protocol/commands.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import { requireDisk, withDiskSize } from './device-record.ts';
import { changeRecord, liveHandle, tellChanged } from './device-work.ts';
import type { Guest } from './guest.ts';
import { volumeSpecOf } from './launch-of.ts';
import type { Procedure } from './perform.ts';
import { forceWaits } from './stop.ts';

/** A process that does not answer must not be in the way of whoever ends it; what it has grown by then stays grown. */
const untilForced = async (
  guest: Guest,
  operation: OperationRecord,
  signal: AbortSignal,
  act: (signal: AbortSignal) => Promise<void> | undefined,
): Promise<void> => {
  const forced = new AbortController();
  const giveUp = (): void => forced.abort(endedByForce(guest));
  void guest.forced().then(giveUp);
  if (forceWaits(guest, operation)) giveUp();
  using waiting = firstOf(signal, forced.signal);
  await act(waiting.signal);
};

const endedByForce = ({ name }: Guest): RoostError =>
  new RoostError('Cancelled', `Guest ${name} is ended by force, and did not answer before`, {
    data: { guest: name },
    hint: 'Resize the disk again.',
  });

export const diskResizing = (guest: Guest, operation: OperationRecord): Procedure => {
  const { disk: name, sizeBytes } = operation.arguments as CommandArguments<'guest-disk-resize'>;
  const { pool } = guest.house;
  return {
    steps: [
      {
        name: 'grow',
        do: async (work) => {
          const disk = requireDisk(guest.record.spec, name);
          const handle = liveHandle(guest);
          if (handle)
            await untilForced(guest, operation, work.signal, (signal) =>
              handle.disks?.resizeDisk(name, sizeBytes, signal),
            );
          else await pool.growVolume({ ...volumeSpecOf(guest, disk), sizeBytes }, work);
        },
      },
      { name: 'record', do: () => changeRecord(guest, (record) => withDiskSize(record, name, sizeBytes)) },
    ],
    cancellable: false,
    finish: tellChanged(guest, operation, 'disks', { device: name, sizeBytes }),
  };
};
