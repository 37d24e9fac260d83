/** Commands on the host and the daemon. */
import { z } from 'zod';
import { defineCommand } from '../command.ts';
import { daemonView, hostView, poolView } from '../host.ts';
import { accepted, changing } from '../operation.ts';
import { durationMs } from '../types.ts';

const since = '0.1.0';

export const queryHost = defineCommand({
  name: 'query-host',
  summary: 'Show what this host can do, and why',
  role: 'read',
  nature: 'query',
  since,
  arguments: z.strictObject({}),
  returns: hostView,
});

export const queryDaemon = defineCommand({
  name: 'query-daemon',
  summary: 'Show how the daemon fares',
  role: 'read',
  nature: 'query',
  since,
  arguments: z.strictObject({}),
  returns: daemonView,
});

export const queryPools = defineCommand({
  name: 'query-pools',
  summary: 'List storage pools',
  role: 'read',
  nature: 'query',
  since,
  arguments: z.strictObject({}),
  returns: z.strictObject({ pools: z.array(poolView) }),
});

export const hostShutdownGuests = defineCommand({
  name: 'host-shutdown-guests',
  summary: 'Shut all guests down, as when the host stops',
  description:
    'Guests without autostart are asked first, then the others in the reverse of their order, each stage when the one before has ended or half of the time that is left has passed. Who has not ended by the deadline, or by its own stopTimeoutMs, is ended by force. What is asked of a guest stays as it is, so that autostart brings it back. No guest is started meanwhile. The result names the guests, and what went wrong.',
  role: 'admin',
  nature: 'change',
  since: '0.2.0',
  arguments: z.strictObject({
    timeoutMs: durationMs
      .max(600_000)
      .optional()
      .describe('Deadline for all guests together; hostShutdown.timeoutMs of the configuration unless given'),
    ...changing,
  }),
  returns: accepted,
});
