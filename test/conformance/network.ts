/**
 * What every network backend keeps to, real or fake; see network/backend.ts. A suite calls this with a way to make the
 * backend; the linux-bridge one does so inside a network namespace of its own.
 */
import { closeSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { NetworkBackend, NetworkPlace, PortEnd, PortSpec } from '../../network/backend.ts';
import { type HostObject, hostObjectKey } from '../../protocol/host-object.ts';
import type { PortForward } from '../../protocol/net-port.ts';
import type { NetworkKind } from '../../protocol/network.ts';
import type { GuestId, InstanceId, MacAddress, NetworkId } from '../../protocol/types.ts';

export interface NetworkBench {
  /** A backend on the same host; each call as after a restart of the daemon. */
  readonly backend: () => NetworkBackend;
  readonly stateDirectory: string;
  readonly runDirectory: string;
  /** Takes away what the bench itself made. */
  readonly release: () => Promise<void>;
}

const instance = 'conf1' as InstanceId;
const otherInstance = 'conf2' as InstanceId;

export const networkPlace = (
  bench: Pick<NetworkBench, 'stateDirectory' | 'runDirectory'>,
  number: number,
  kind: NetworkKind,
  owner: InstanceId = instance,
): NetworkPlace => {
  const id = `00000000-0000-4000-8000-${String(number).padStart(12, '0')}` as NetworkId;
  return {
    id,
    number,
    name: `net${number}`,
    kind,
    instance: owner,
    ...(kind === 'nat' || kind === 'isolated' ? { subnet: `10.91.${number}.0/24` } : {}),
    ...(kind === 'bridge' ? { bridge: `lan${number}` } : {}),
    stateDirectory: `${bench.stateDirectory}/networks/${id}`,
    runDirectory: `${bench.runDirectory}/networks/${id}`,
  };
};

const loopbackForward = (hostPort: number): PortForward => ({
  protocol: 'tcp',
  hostAddress: '127.0.0.1',
  hostPort,
  guestPort: 80,
});

export const portSpec = (network: NetworkPlace, guestNumber: number, index = 0): PortSpec => ({
  guest: `00000000-0000-4000-9000-${String(guestNumber).padStart(12, '0')}` as GuestId,
  guestNumber,
  guestName: `guest${guestNumber}`,
  index,
  mac: `52:54:00:00:0${index}:${guestNumber.toString(16).padStart(2, '0')}` as MacAddress,
  ...(network.kind === 'user' ? {} : { ipv4: `10.91.${network.number}.${guestNumber + 1}` }),
  ...(network.kind === 'nat' ? { forwards: [loopbackForward(20_000 + 10 * guestNumber + index)] } : {}),
});

const ends: readonly PortEnd[] = ['tap', 'veth'];

/** Kind user is within QEMU: it has nothing that a container could take. */
const has = (kind: NetworkKind, end: PortEnd): boolean => kind !== 'user' || end !== 'veth';

const keys = (...lists: readonly (readonly HostObject[])[]): readonly string[] =>
  [...new Set(lists.flat().map(hostObjectKey))].toSorted();

export function networkConformance(
  name: string,
  kinds: readonly NetworkKind[],
  makeBench: () => Promise<NetworkBench>,
): void {
  const combined = kinds.flatMap((kind) => ends.map((end) => [kind, end] as const));
  describe.each(combined.filter(([kind, end]) => has(kind, end)))(
    `network backend ${name}, kind %s, end %s`,
    (kind, end) => {
      const signal = new AbortController().signal;
      let bench: NetworkBench;
      let backend: NetworkBackend;
      let network: NetworkPlace;
      let port: PortSpec;
      let descriptors: number[] = [];
      let ports: (readonly [NetworkPlace, PortSpec])[] = [];

      const portOf = (place: NetworkPlace, guestNumber: number, index = 0): PortSpec => ({
        ...portSpec(place, guestNumber, index),
        end,
      });
      const inspect = async (owner = instance): Promise<readonly string[]> =>
        keys(
          await backend.inspect(
            { instance: owner, runDirectory: bench.runDirectory, stateDirectory: bench.stateDirectory },
            signal,
          ),
        );
      const attach = async (place: NetworkPlace, spec: PortSpec) => {
        ports.push([place, spec]);
        const attached = await backend.attach(place, spec, signal);
        if (attached.descriptor !== undefined) descriptors.push(attached.descriptor);
        await attached.guarded;
        return attached;
      };

      beforeEach(async () => {
        bench = await makeBench();
        backend = bench.backend();
        network = networkPlace(bench, 1, kind);
        port = portOf(network, 1);
      });
      afterEach(async () => {
        for (const descriptor of descriptors) closeSync(descriptor);
        descriptors = [];
        // A pair stays where nothing of a guest's has taken its end.
        for (const each of ports) await backend.detach(...each, signal);
        ports = [];
        await backend.remove(networkPlace(bench, 2, kind), signal);
        await backend.remove(networkPlace(bench, 3, kind, otherInstance), signal);
        await backend.remove(network, signal);
        await bench.release();
      });

      it('names its kinds', () => {
        expect(backend.kinds).toContain(kind);
      });

      it('has nothing on the host before, and nothing after planning', async () => {
        backend.plan(network);
        backend.planPort(network, port);
        expect(await inspect()).toEqual([]);
      });

      it('makes exactly what it planned, once and again and after a restart', async () => {
        await backend.ensure(network, signal);
        expect(await inspect()).toEqual(keys(backend.plan(network)));
        await backend.ensure(network, signal);
        backend = bench.backend();
        await backend.ensure(network, signal);
        expect(await inspect()).toEqual(keys(backend.plan(network)));
      });

      it('removes all of it, once and again, and what was never made', async () => {
        await backend.ensure(network, signal);
        await backend.remove(network, signal);
        expect(await inspect()).toEqual([]);
        await backend.remove(network, signal);
        await backend.remove(networkPlace(bench, 2, kind), signal);
        expect(await inspect()).toEqual([]);
      });

      it('attaches exactly the port it planned, and detaches it, once and again', async () => {
        await backend.ensure(network, signal);
        const plan = backend.planPort(network, port);
        const attached = await attach(network, port);
        expect(attached.port).toEqual(plan.port);
        expect(attached.port.mac).toBe(port.mac);
        expect(await inspect()).toEqual(keys(backend.plan(network), plan.objects));
        await backend.detach(network, port, signal);
        expect(await inspect()).toEqual(keys(backend.plan(network)));
        await backend.detach(network, port, signal);
        await backend.detach(network, portOf(network, 9), signal);
        expect(await inspect()).toEqual(keys(backend.plan(network)));
      });

      it('attaches again after a detach', async () => {
        await backend.ensure(network, signal);
        await attach(network, port);
        await backend.detach(network, port, signal);
        const again = await attach(network, port);
        expect(again.port).toEqual(backend.planPort(network, port).port);
      });

      it('attaches again what a daemon that was killed had attached', async () => {
        await backend.ensure(network, signal);
        await attach(network, port);
        // A tap was gone with that daemon; a pair is there still, and nobody has taken its end.
        for (const descriptor of descriptors.splice(0)) closeSync(descriptor);
        backend = bench.backend();
        await attach(network, port);
        expect(await inspect()).toEqual(keys(backend.plan(network), backend.planPort(network, port).objects));
      });

      it('keeps ports while the network is ensured again by another daemon', async () => {
        await backend.ensure(network, signal);
        await attach(network, port);
        backend = bench.backend();
        await backend.ensure(network, signal);
        expect(await inspect()).toEqual(keys(backend.plan(network), backend.planPort(network, port).objects));
      });

      it('leaves nothing of an attach that was given up', async () => {
        await backend.ensure(network, signal);
        const reason = new Error('given up');
        await expect(backend.attach(network, port, AbortSignal.abort(reason))).rejects.toBe(reason);
        const later = new AbortController();
        const attaching = backend.attach(network, port, later.signal);
        later.abort(reason);
        const outcome = await attaching.catch(() => undefined);
        if (outcome?.descriptor !== undefined) descriptors.push(outcome.descriptor);
        await outcome?.guarded?.catch(() => undefined);
        if (outcome !== undefined) await backend.detach(network, port, signal);
        expect(await inspect()).toEqual(keys(backend.plan(network)));
      });

      it('discards what it is given of its own, also what is gone, and nothing of another instance', async () => {
        await backend.ensure(network, signal);
        await attach(network, port);
        for (const descriptor of descriptors.splice(0)) closeSync(descriptor);
        const foreign = networkPlace(
          { stateDirectory: `${bench.stateDirectory}/x`, runDirectory: `${bench.runDirectory}/x` },
          3,
          kind,
          otherInstance,
        );
        await backend.ensure(foreign, signal);
        const place = { instance, runDirectory: bench.runDirectory, stateDirectory: bench.stateDirectory };
        const ours = [...backend.plan(network), ...backend.planPort(network, port).objects];
        const theirs = await backend.inspect(
          {
            instance: otherInstance,
            runDirectory: `${bench.runDirectory}/x`,
            stateDirectory: `${bench.stateDirectory}/x`,
          },
          signal,
        );
        // As after a crash: a backend that remembers nothing.
        backend = bench.backend();
        await backend.discard(place, [...ours, ...theirs], signal);
        await backend.discard(place, ours, signal);
        expect(await inspect()).toEqual([]);
        const seen = (await backend.foreign?.({ instance }, signal)) ?? [];
        const links = theirs.filter(({ kind }) => kind === 'bridge' || kind === 'nft-table');
        expect(keys(seen)).toEqual(expect.arrayContaining([...keys(links)]));
        await backend.remove(foreign, signal);
      });

      it('keeps networks, ports and instances apart', async () => {
        const second = networkPlace(bench, 2, kind);
        const foreign = networkPlace(
          { stateDirectory: `${bench.stateDirectory}/x`, runDirectory: `${bench.runDirectory}/x` },
          3,
          kind,
          otherInstance,
        );
        await Promise.all([network, second, foreign].map((each) => backend.ensure(each, signal)));
        const [nic0, nic1] = [portOf(second, 1, 1), portOf(second, 2)];
        await Promise.all([attach(network, port), attach(second, nic0), attach(second, nic1)]);
        const objects = [
          backend.planPort(network, port).objects,
          backend.planPort(second, nic0).objects,
          backend.planPort(second, nic1).objects,
        ];
        expect(await inspect()).toEqual(keys(backend.plan(network), backend.plan(second), ...objects));
        await backend.detach(network, port, signal);
        await backend.remove(network, signal);
        expect(await inspect()).toEqual(keys(backend.plan(second), ...objects.slice(1)));
        await backend.detach(second, nic0, signal);
        await backend.detach(second, nic1, signal);
        await backend.remove(second, signal);
        expect(await inspect()).toEqual([]);
        await backend.remove(foreign, signal);
      });
    },
  );

  const refused = combined.filter(([kind, end]) => !has(kind, end));
  it.each(refused)(`network backend ${name} refuses for kind %s the end %s`, async (kind, end) => {
    const bench = await makeBench();
    const backend = bench.backend();
    const network = networkPlace(bench, 1, kind);
    const port = { ...portSpec(network, 1), end };
    const refusal = expect.objectContaining({ class: 'Unsupported', hint: expect.stringContaining('nat') });
    expect(() => backend.planPort(network, port)).toThrow(refusal);
    await expect(backend.attach(network, port, new AbortController().signal)).rejects.toEqual(refusal);
    await bench.release();
  });
}
