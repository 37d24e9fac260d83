/** Commands on the host and the daemon. */
import { z } from 'zod';
import { defineCommand } from '../command.ts';
import { daemonView, hostView, poolView } from '../host.ts';

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
