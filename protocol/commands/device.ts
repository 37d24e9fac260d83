/** Commands on the disks and NICs of a guest: plugged and unplugged while it runs, or put down for its next start. */
import { z } from 'zod';
import { defineCommand } from '../command.ts';
import { diskUse } from '../disk.ts';
import { diskName, diskSpec, nicSpec } from '../guest.ts';
import { accepted, changing } from '../operation.ts';
import { byteCount, deviceName, durationMs, guestReference, imageReference, page } from '../types.ts';

const since = '0.1.0';
const guest = { guest: guestReference };

/** A guest that runs has to let go of a device; for how long that is waited for. */
const letGoTimeout = {
  timeoutMs: durationMs
    .max(86_400_000)
    .default(60_000)
    .describe('How long to wait for a running guest to let go'),
};

export const guestDiskAttach = defineCommand({
  name: 'guest-disk-attach',
  summary: 'Give a guest a further disk, also while it runs',
  description:
    'With an image or a size a new disk is made; without either, the kept disk of that name is attached again, with the serial number it had. The disk stays at the address it gets, over stops and starts, and renames no other. Unsupported while a microvm runs.',
  role: 'operate',
  nature: 'change',
  since,
  arguments: z.strictObject({
    ...guest,
    ...diskSpec.shape,
    name: diskName.optional().describe('The first of disk0, disk1 … that is free unless given'),
    ...changing,
  }),
  returns: accepted,
});

export const guestDiskDetach = defineCommand({
  name: 'guest-disk-detach',
  summary: 'Take a disk from a guest, also while it runs',
  description:
    'A running guest is asked to let go of the disk, again every ten seconds as a guest that boots does not hear it. The operation fails when the guest refuses or the time is over, and the disk stays attached; there is no force, because a guest whose disk is torn out loses data: stop it instead. The disk itself is kept for this guest, unless it is to be deleted.',
  role: 'operate',
  nature: 'change',
  since,
  arguments: z.strictObject({
    ...guest,
    disk: deviceName.describe('Name of the disk'),
    delete: z.boolean().default(false).describe('Delete the disk with all that is on it'),
    ...letGoTimeout,
    ...changing,
  }),
  returns: accepted,
});

export const guestDiskResize = defineCommand({
  name: 'guest-disk-resize',
  summary: 'Let a disk grow, also while its guest runs',
  description:
    'A running guest sees the new size at once; its partitions and file systems are its own to extend. A disk never shrinks.',
  role: 'operate',
  nature: 'change',
  since,
  arguments: z.strictObject({
    ...guest,
    disk: deviceName.describe('Name of the disk'),
    sizeBytes: byteCount.min(512).multipleOf(512).describe('New size; at least the one it has'),
    ...changing,
  }),
  returns: accepted,
});

export const guestDiskDelete = defineCommand({
  name: 'guest-disk-delete',
  summary: 'Delete a kept disk of a guest with all that is on it',
  description: 'Refused while the disk is attached.',
  role: 'operate',
  nature: 'change',
  since,
  arguments: z.strictObject({ ...guest, disk: deviceName.describe('Name of the disk'), ...changing }),
  returns: accepted,
});

export const guestNicAttach = defineCommand({
  name: 'guest-nic-attach',
  summary: 'Give a guest a further NIC, also while it runs',
  description:
    'The NIC keeps its MAC and its place in the machine over stops and starts, and renames no other. Unsupported while a microvm runs.',
  role: 'operate',
  nature: 'change',
  since,
  arguments: z.strictObject({
    ...guest,
    ...nicSpec.shape,
    name: deviceName.optional().describe('The first of nic0, nic1 … that is free unless given'),
    ...changing,
  }),
  returns: accepted,
});

export const guestNicDetach = defineCommand({
  name: 'guest-nic-detach',
  summary: 'Take a NIC from a guest, also while it runs',
  description:
    'A running guest is asked to let go of it, as with a disk. Its addresses are free for others afterwards.',
  role: 'operate',
  nature: 'change',
  since,
  arguments: z.strictObject({
    ...guest,
    nic: deviceName.describe('Name of the NIC'),
    ...letGoTimeout,
    ...changing,
  }),
  returns: accepted,
});

const drive = deviceName.default('cdrom0').describe('Name of the drive');

export const guestCdromInsert = defineCommand({
  name: 'guest-cdrom-insert',
  summary: "Put an image into a guest's CD-ROM drive, also while it runs",
  description: 'What was in the drive is taken out first, as by guest-cdrom-eject.',
  role: 'operate',
  nature: 'change',
  since,
  arguments: z.strictObject({
    ...guest,
    cdrom: drive,
    image: imageReference.describe('An image of kind iso'),
    force: z.boolean().default(false).describe('Also when the guest has locked the drive'),
    ...changing,
  }),
  returns: accepted,
});

export const guestCdromEject = defineCommand({
  name: 'guest-cdrom-eject',
  summary: "Empty a guest's CD-ROM drive, also while it runs",
  description:
    'Refused while the guest has locked the drive, as it does with one that is mounted; it is told that somebody pressed the button.',
  role: 'operate',
  nature: 'change',
  since,
  arguments: z.strictObject({
    ...guest,
    cdrom: drive,
    force: z.boolean().default(false).describe('Also when the guest has locked the drive'),
    ...changing,
  }),
  returns: accepted,
});

export const queryDisks = defineCommand({
  name: 'query-disks',
  summary: 'List disks of guests with the files they consist of',
  description:
    'Also those that were detached and kept. Sizes are those of the records and of the file system; no image is opened for it. Sorted by guest and name.',
  role: 'read',
  nature: 'query',
  since,
  arguments: z.strictObject({
    guests: z.array(guestReference).max(10_000).optional().describe('Only disks of these'),
    image: imageReference.optional().describe('Only disks that lie on this image'),
    ...page,
  }),
  returns: z.strictObject({ disks: z.array(diskUse), next: z.string().optional() }),
});
