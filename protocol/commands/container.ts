/** Commands on what a container has written: kept as an image, or copied to another container. */
import { z } from 'zod';
import { warnings } from '../cloud-init.ts';
import { defineCommand } from '../command.ts';
import { accepted, changing } from '../operation.ts';
import { guestName, guestReference, imageName, imageVersion } from '../types.ts';

const since = '0.1.0';
const guest = { guest: guestReference };

export const guestSave = defineCommand({
  name: 'guest-save',
  summary: 'Save a stopped container as an image: a new version of its name',
  description:
    'The image is of kind root, and has all that the container sees of its root file system: what it wrote, and of the image under it what it left. Owners, modes, links, file capabilities and the host name and machine id in its files stay as they are; access control lists are left out, and `warnings` in what the operation resulted in tell of those that were there. The container stays stopped until it is read; a start waits for that.',
  role: 'operate',
  nature: 'change',
  since,
  arguments: z.strictObject({
    ...guest,
    name: imageName.optional().describe('Name of the image, that of the container unless given'),
    version: imageVersion.optional().describe('The date of today unless given, as for image-import'),
    ...changing,
  }),
  returns: accepted,
});

export const guestClone = defineCommand({
  name: 'guest-clone',
  summary: 'Make a container like a stopped one, with a copy of all that it wrote',
  description:
    'It has the same image and the same settings, autostart and delete protection too, and MAC addresses, addresses and ids of the host of its own. Ports of the host are passed on to one guest alone: it has none. The other stays stopped until it is copied; a start waits for that.',
  role: 'operate',
  nature: 'change',
  since,
  arguments: z.strictObject({
    ...guest,
    name: guestName.describe('Of the new container'),
    start: z.boolean().default(false).describe('Start it once it is made'),
    ...changing,
  }),
  returns: accepted.extend({
    warnings: warnings.optional().describe('What it has not of the other; for people'),
  }),
});
