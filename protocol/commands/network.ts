/** Commands on networks. */
import { z } from 'zod';
import { defineCommand } from '../command.ts';
import { networkSpec, networkView } from '../network.ts';
import { accepted, changing } from '../operation.ts';
import { networkReference, page } from '../types.ts';

const since = '0.1.0';

export const networkCreate = defineCommand({
  name: 'network-create',
  summary: 'Create a network',
  description:
    'A nat or isolated network is a bridge of its own with DHCP and DNS; both need a daemon that runs as root.',
  role: 'admin',
  nature: 'change',
  since,
  arguments: z.strictObject({ ...networkSpec.shape, ...changing }),
  returns: accepted,
});

export const networkDelete = defineCommand({
  name: 'network-delete',
  summary: 'Delete a network that no guest is attached to',
  role: 'admin',
  nature: 'change',
  since,
  arguments: z.strictObject({ network: networkReference, ...changing }),
  returns: accepted,
});

export const queryNetworks = defineCommand({
  name: 'query-networks',
  summary: 'List networks',
  role: 'read',
  nature: 'query',
  since,
  arguments: z.strictObject({ names: z.array(networkReference).optional(), ...page }),
  returns: z.strictObject({ networks: z.array(networkView), next: z.string().optional() }),
});
