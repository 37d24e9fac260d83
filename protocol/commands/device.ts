/** Commands on the disks and NICs of a guest: plugged and unplugged while it runs, or put down for its next start. */
import { z } from 'zod';
import { defineCommand } from '../command.ts';
import { diskName, diskSpec, nicSpec } from '../guest.ts';
import { accepted, changing } from '../operation.ts';
import { byteCount, deviceName, durationMs, guestReference } from '../types.ts';

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
