/** query-host: what this host can do, and why. */
import { availableParallelism, hostname, release } from 'node:os';
import type { HostView } from '../protocol/host.ts';
import type { InstanceId } from '../protocol/types.ts';
import type { Parts } from './daemon.ts';
import type { Guests } from './guests/guests.ts';
import { readHostMemory } from './host-memory.ts';

export interface DescribedHost {
  readonly parts: Parts;
  readonly guests: Guests;
  readonly instance: InstanceId;
  readonly privileged: boolean;
}

const findFirewalls = async (
  { parts, instance }: DescribedHost,
  signal: AbortSignal,
): Promise<HostView['foreignFirewalls']> => {
  const found = await Promise.all(
    parts.backends.map(async (backend) => backend.foreignFirewalls?.({ instance }, signal)),
  );
  return found.flatMap((firewalls) => firewalls ?? []);
};

const describeContainers = async (
  { parts }: DescribedHost,
  signal: AbortSignal,
): Promise<Pick<HostView, 'containers'>> => {
  const containers = await parts.describeContainers?.(signal);
  return containers === undefined ? {} : { containers };
};

export const describeHost = async (core: DescribedHost, signal: AbortSignal): Promise<HostView> => ({
  hostname: hostname(),
  kernel: release(),
  cpus: availableParallelism(),
  memory: { ...(await readHostMemory()), committedBytes: core.guests.registry.committedBytes() },
  ...(await core.parts.describeQemu(signal)),
  ...(await describeContainers(core, signal)),
  controlGroups: core.parts.describeGroups,
  foreignFirewalls: await findFirewalls(core, signal),
  privileged: core.privileged,
  privilegedWhy: core.privileged
    ? 'the daemon runs as root: each guest has a uid of its own, bridges and taps can be made'
    : 'the daemon does not run as root: guests run under its own uid, with user-mode networking',
  drivers: core.parts.drivers.map((driver) => ({ name: driver.name, verbs: [...driver.verbs] })),
});
