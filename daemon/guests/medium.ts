/**
 * guest-cdrom-insert and guest-cdrom-eject: the record says what is to be in the drive and what was in it, the drive is
 * changed if the guest runs, and the record forgets what was.
 */

import { isRoostError } from '../../protocol/errors.ts';
import type { ImageId } from '../../protocol/types.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import { requireCdrom, withCdrom } from './device-record.ts';
import { changeRecord, liveHandle, tellChanged } from './device-work.ts';
import type { Guest } from './guest.ts';
import type { Procedure } from './perform.ts';

const drive = (name: string, image: ImageId | undefined): { name: string; image?: ImageId } => ({
  name,
  ...(image === undefined ? {} : { image }),
});

/** Changes the drive of a guest that runs. */
const setMedium = async (
  guest: Guest,
  name: string,
  image: ImageId | undefined,
  { force, signal }: { readonly force: boolean; readonly signal: AbortSignal },
): Promise<void> => {
  const handle = liveHandle(guest);
  await handle?.disks?.setMedium(name, image && guest.house.images.source(image), { force, signal });
};

export const mediumChange = (guest: Guest, operation: OperationRecord): Procedure => {
  const { cdrom: name, force } = operation.arguments as { readonly cdrom: string; readonly force: boolean };
  const wanted = operation.arguments['image'] as ImageId | undefined;
  const { inventory, images, stopping } = guest.house;
  const tell = tellChanged(guest, operation, 'cdroms', { device: name });
  let refused = false;
  return {
    steps: [
      {
        name: 'record',
        do: async () => {
          const before = requireCdrom(guest.record.spec, name);
          if (before.change) return;
          const from = before.image === undefined ? {} : { from: before.image };
          await changeRecord(guest, (record) => {
            if (wanted !== undefined) images.require(wanted);
            return withCdrom(record, { ...drive(name, wanted), change: from });
          });
        },
        undo: async () => {
          const { change } = requireCdrom(guest.record.spec, name);
          if (change) await changeRecord(guest, (record) => withCdrom(record, drive(name, change.from)));
        },
      },
      {
        name: 'medium',
        do: async ({ signal }) => {
          try {
            await setMedium(guest, name, wanted, { force, signal });
          } catch (error) {
            refused = isRoostError(error, 'FailedPrecondition');
            throw error;
          }
        },
        undo: async () => {
          const { change } = requireCdrom(guest.record.spec, name);
          // A drive that was locked holds what it held.
          if (refused || !change || (await guest.driver.probe(guest.place)) === 'gone') return;
          await setMedium(guest, name, change.from, { force, signal: stopping });
        },
      },
    ],
    finish: (state, clean) => {
      if (state !== 'succeeded') return undefined;
      inventory.guests.update(withCdrom(guest.recorded(), drive(name, wanted)));
      return tell(state, clean);
    },
    after: async (ended) => {
      if (ended.state !== 'succeeded') return;
      guest.setRecord(guest.recorded());
      await guest.saveRecord();
    },
  };
};
