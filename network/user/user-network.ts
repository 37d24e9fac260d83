/**
 * Networks of kind user: each guest has QEMU's own user-mode stack to itself. Nothing is made on the host, and no
 * privileges are needed.
 */
import type { NetPort } from '../../protocol/net-port.ts';
import type { NetworkBackend, PortSpec } from '../backend.ts';

const portOf = (port: PortSpec): NetPort => ({ kind: 'user', mac: port.mac });

export function userNetworkBackend(): NetworkBackend {
  return {
    kinds: ['user'],
    plan: () => [],
    ensure: async () => undefined,
    remove: async () => undefined,
    planPort: (_network, port) => ({ port: portOf(port), objects: [] }),
    attach: async (_network, port, signal) => {
      signal.throwIfAborted();
      return { port: portOf(port) };
    },
    detach: async () => undefined,
    discard: async () => undefined,
    inspect: async () => [],
  };
}
