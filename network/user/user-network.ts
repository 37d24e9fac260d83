/**
 * Networks of kind user: each guest has QEMU's own user-mode stack to itself. Nothing is made on the host, and no
 * privileges are needed; ports of the host that are passed on to a guest are listened on by its own process.
 */
import { waitOrAbort } from '../../lib/abort.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { NetPort } from '../../protocol/net-port.ts';
import type { NetworkBackend, PortAnswer, PortSpec } from '../backend.ts';
import { bannerThrough, reachableAt, SSH_PORT } from './banner.ts';
import { requireFree } from './port-check.ts';
import { portsInUse } from './ports-in-use.ts';

const portOf = ({ mac, forwards = [] }: PortSpec): NetPort => ({
  kind: 'user',
  mac,
  ...(forwards.length === 0 ? {} : { forwards }),
});

/** Errors: Unsupported for a guest that is no machine of QEMU's. */
function requireOfQemu({ end }: PortSpec): void {
  if (end !== 'veth') return;
  throw new RoostError(
    'Unsupported',
    'Networks of kind user are within QEMU, and no container can join them',
    {
      hint: 'Attach the guest to a network of kind nat, isolated or bridge.',
    },
  );
}

/** Only SSH speaks before it is spoken to; a guest without a forward to it cannot be asked. */
async function answer({ forwards = [] }: PortSpec, signal: AbortSignal): Promise<PortAnswer> {
  const ssh = forwards.find(({ protocol, guestPort }) => protocol === 'tcp' && guestPort === SSH_PORT);
  if (ssh === undefined) return await waitOrAbort(new Promise<never>(() => undefined), signal);
  await bannerThrough(ssh, signal);
  return { kind: 'banner', address: `${reachableAt(ssh)}:${ssh.hostPort}` };
}

export function userNetworkBackend(): NetworkBackend {
  return {
    kinds: ['user'],
    plan: () => [],
    ensure: async () => undefined,
    remove: async () => undefined,
    planPort: (_network, port) => {
      requireOfQemu(port);
      return { port: portOf(port), objects: [] };
    },
    attach: async (_network, port, signal) => {
      signal.throwIfAborted();
      requireOfQemu(port);
      for (const forward of port.forwards ?? []) await requireFree(forward, 'process', signal);
      return { port: portOf(port) };
    },
    detach: async () => undefined,
    discard: async () => undefined,
    answer: (_network, port, _since, signal) => answer(port, signal),
    report: async () => ({ addresses: [], droppedFrames: {} }),
    usedPorts: portsInUse,
    inspect: async () => [],
  };
}
