/**
 * A network backend in memory, for tests of what stands above: it makes nothing, but keeps the same account of host
 * objects as a real one, and fails where it is told to.
 */
import { waitOrAbort } from '../../lib/abort.ts';
import { RoostError } from '../../protocol/errors.ts';
import { type HostObject, hostObjectKey } from '../../protocol/host-object.ts';
import type { NetPort } from '../../protocol/net-port.ts';
import type { NetworkKind } from '../../protocol/network.ts';
import type { InstanceId } from '../../protocol/types.ts';
import { gatewayOf } from '../addressing.ts';
import type { NetworkBackend, NetworkPlace, PortAnswer, PortReport, PortSpec } from '../backend.ts';
import { bridgeName, bridgePrefix, tapName, tapPrefix, vethName, vethPrefix } from '../link-names.ts';
import { vethPort } from '../veth-port.ts';

export type FakeNetworkCall = 'ensure' | 'remove' | 'attach' | 'detach' | 'discard' | 'inspect';

export interface FakeNetworkOptions {
  readonly kinds?: readonly NetworkKind[];
  /** Called before each change is made; what it throws is the failure, and a promise delays. */
  readonly before?: (
    call: FakeNetworkCall,
    about: { readonly network?: NetworkPlace; readonly port?: PortSpec },
  ) => void | Promise<void>;
  /** What an attached port's `guarded` is; none unless given. */
  readonly guard?: () => Promise<void>;
  readonly usedSubnets?: readonly string[];
  /** What a port's guest answers; never anything unless given. */
  readonly answer?: (port: PortSpec, signal: AbortSignal) => Promise<PortAnswer>;
  /** What is known of a port; nothing unless given. */
  readonly report?: (port: PortSpec) => PortReport;
}

export interface FakeNetworkBackend extends NetworkBackend {
  /** What is on the pretended host, of every instance; a test may take from it or add to it. */
  readonly host: Map<string, HostObject>;
}

export function fakeNetworkBackend(options: FakeNetworkOptions = {}): FakeNetworkBackend {
  const host = new Map<string, HostObject>();
  const put = (objects: readonly HostObject[]): void => {
    for (const object of objects) host.set(hostObjectKey(object), object);
  };
  const take = (objects: readonly HostObject[]): void => {
    for (const object of objects) host.delete(hostObjectKey(object));
  };
  const begin = async (
    call: FakeNetworkCall,
    about: Parameters<NonNullable<FakeNetworkOptions['before']>>[1],
    signal: AbortSignal,
  ): Promise<void> => {
    signal.throwIfAborted();
    await options.before?.(call, about);
    signal.throwIfAborted();
  };
  return {
    host,
    kinds: options.kinds ?? ['nat', 'isolated', 'bridge', 'user'],
    plan: objectsOfNetwork,
    ensure: async (network, signal) => {
      await begin('ensure', { network }, signal);
      put(objectsOfNetwork(network));
    },
    remove: async (network, signal) => {
      await begin('remove', { network }, signal);
      take(objectsOfNetwork(network));
    },
    planPort: (network, port) => ({ port: portOf(network, port), objects: objectsOfPort(network, port) }),
    attach: async (network, port, signal) => {
      await begin('attach', { network, port }, signal);
      const made = portOf(network, port);
      put(objectsOfPort(network, port));
      return { port: made, ...(options.guard ? { guarded: options.guard() } : {}) };
    },
    detach: async (network, port, signal) => {
      await begin('detach', { network, port }, signal);
      take(objectsOfPort(network, port));
    },
    discard: async ({ instance }, objects, signal) => {
      await begin('discard', {}, signal);
      take(objects.filter(({ name }) => isOf(instance, name)));
    },
    foreign: async ({ instance }) => [...host.values()].filter(({ name }) => !isOf(instance, name)),
    answer: (_network, port, _since, signal) =>
      waitOrAbort(options.answer?.(port, signal) ?? new Promise<never>(() => undefined), signal),
    report: async (_network, port) => options.report?.(port) ?? { addresses: [], droppedFrames: {} },
    namesOf: ({ kind, name, subnet }) =>
      subnet === undefined || kind === 'bridge'
        ? undefined
        : { domain: name, server: gatewayOf(subnet), onHost: false },
    usedSubnets: async () => options.usedSubnets ?? [],
    inspect: async ({ instance }, signal) => {
      await begin('inspect', {}, signal);
      return [...host.values()].filter(({ name }) => isOf(instance, name));
    },
  };
}

const isOf = (instance: InstanceId, name: string): boolean =>
  [bridgePrefix, tapPrefix, vethPrefix].some((prefix) => name.startsWith(prefix(instance)));

/** In a tap's place: a driver of a test needs no descriptor for a port of kind user. */
function portOf(network: NetworkPlace, port: PortSpec): NetPort {
  const { end, mac, forwards = [] } = port;
  if (end !== 'veth') return { kind: 'user', mac, ...(forwards.length === 0 ? {} : { forwards }) };
  if (network.kind !== 'user') return vethPort(network, port);
  throw new RoostError('Unsupported', 'Networks of kind user have no veth ports', {
    hint: 'Attach the guest to a network of kind nat.',
  });
}

const objectsOfNetwork = (network: NetworkPlace): readonly HostObject[] =>
  network.kind === 'user' || network.kind === 'bridge'
    ? []
    : [{ kind: 'bridge', name: bridgeName(network.instance, network.number) }];

const objectsOfPort = (network: NetworkPlace, port: PortSpec): readonly HostObject[] =>
  network.kind === 'user'
    ? []
    : port.end === 'veth'
      ? [{ kind: 'veth', name: vethName(network.instance, port.guestNumber, port.index) }]
      : [{ kind: 'tap', name: tapName(network.instance, port.guestNumber, port.index) }];
