/** Handlers of guests' disks, NICs and CD-ROM drives. */
import { diskUses, placeOfDisk } from '../../guests/disk-map.ts';
import type { Handlers } from '../call.ts';
import { pageOf } from '../page.ts';
import type { Services } from './services.ts';

export type DeviceCommands = Extract<
  keyof Handlers,
  `guest-disk-${string}` | `guest-nic-${string}` | `guest-cdrom-${string}` | 'query-disks'
>;

/** Disks looked up at once when a client named no page size. */
const READ_DISKS = 500;

export const deviceHandlers = ({ guests, devices, images }: Services): Pick<Handlers, DeviceCommands> => ({
  'guest-disk-attach': (args, call) => devices.attachDisk(args, call),
  'guest-disk-detach': (args, call) => devices.detachDisk(args, call),
  'guest-disk-resize': (args, call) => devices.resizeDisk(args, call),
  'guest-disk-delete': (args, call) => devices.deleteDisk(args, call),
  'guest-nic-attach': (args, call) => devices.attachNic(args, call),
  'guest-nic-detach': (args, call) => devices.detachNic(args, call),
  'guest-cdrom-insert': (args, call) => devices.insertMedium(args, call),
  'guest-cdrom-eject': (args, call) => devices.ejectMedium(args, call),
  'query-disks': async ({ guests: wanted, image, limit, after }) => {
    const chosen = wanted?.map((reference) => guests.registry.find(reference)) ?? guests.registry.all();
    const base = image === undefined ? undefined : images.require(image, 'disk').id;
    const disks = await diskUses([...new Set(chosen)], {
      after,
      image: base,
      limit: limit ?? READ_DISKS,
    });
    const page = pageOf(disks.items, limit);
    const last = page.items.at(-1);
    return { disks: page.items, ...((page.more || disks.more) && last ? { next: placeOfDisk(last) } : {}) };
  },
});
