/** guest-disk-resize: the file grows, through the guest's process if it runs; then the record knows. There is no way back. */
import type { CommandArguments } from '../../protocol/commands.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import { requireDisk, withDiskSize } from './device-record.ts';
import { changeRecord, liveHandle, tellChanged } from './device-work.ts';
import type { Guest } from './guest.ts';
import { volumeSpecOf } from './launch-of.ts';
import type { Procedure } from './perform.ts';

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
          if (handle) await handle.disks?.resizeDisk(name, sizeBytes, work.signal);
          else await pool.growVolume({ ...volumeSpecOf(guest, disk), sizeBytes }, work);
        },
      },
      { name: 'record', do: () => changeRecord(guest, (record) => withDiskSize(record, name, sizeBytes)) },
    ],
    cancellable: false,
    finish: tellChanged(guest, operation, 'disks', { device: name, sizeBytes }),
  };
};
