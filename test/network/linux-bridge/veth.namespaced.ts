/**
 * What a veth port is over a guest's life: on the host, in its guest's namespace, given back, gone. The guest speaks by
 * the kernel's own stack here, as a container does; frames by hand are in traffic.namespaced.ts.
 */
import { closeSync } from 'node:fs';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { NetworkBackend, NetworkPlace, PortSpec } from '../../../network/backend.ts';
import { hostObjectKey } from '../../../protocol/host-object.ts';
import type { VethPort } from '../../../protocol/net-port.ts';
import type { NetworkKind } from '../../../protocol/network.ts';
import type { InstanceId } from '../../../protocol/types.ts';
import { type NetworkBench, networkPlace, portSpec } from '../../conformance/network.ts';
import { linuxBridgeBench, prepareNamespace, run } from './bench.ts';
import { checksumHolds, ETHERTYPE } from './frames.ts';
import { GuestNamespace, linkNamed, links } from './guest-namespace.ts';
import { TapEnd } from './tap-end.ts';

const never = new AbortController().signal;
let bench: NetworkBench;
let backend: NetworkBackend;
let networks: NetworkPlace[] = [];
let ports: (readonly [NetworkPlace, PortSpec])[] = [];
let guests: GuestNamespace[] = [];

beforeAll(prepareNamespace);
beforeEach(async () => {
  bench = await linuxBridgeBench();
  backend = bench.backend();
});
afterEach(async () => {
  for (const guest of guests) await guest.kill();
  for (const each of ports) await backend.detach(...each, never);
  for (const network of networks) await backend.remove(network, never);
  [networks, ports, guests] = [[], [], []];
  await bench.release();
});

async function makeNetwork(number: number, kind: NetworkKind, owner?: InstanceId): Promise<NetworkPlace> {
  const network = networkPlace(bench, number, kind, owner);
  networks.push(network);
  await backend.ensure(network, never);
  return network;
}

const specOf = (network: NetworkPlace, number: number): PortSpec => ({
  ...portSpec(network, number),
  end: 'veth',
});

async function attach(network: NetworkPlace, spec: PortSpec): Promise<VethPort> {
  const { port, guarded } = await backend.attach(network, spec, never);
  ports.push([network, spec]);
  await guarded;
  if (port.kind !== 'veth') throw new Error(`A port of kind ${port.kind} where a veth was asked for`);
  return port;
}

async function openGuest(): Promise<GuestNamespace> {
  const guest = await GuestNamespace.open();
  guests.push(guest);
  return guest;
}

const inspect = async (): Promise<readonly string[]> =>
  (await backend.inspect({ instance: networkPlace(bench, 1, 'nat').instance, ...bench }, never))
    .map(hostObjectKey)
    .toSorted();

/** Sends a UDP packet from port 4000 of the guest to port 4000 of another. */
const SEND = `
  const [text, to] = process.argv.slice(1);
  const socket = require('node:dgram').createSocket('udp4');
  socket.bind(4000, () => socket.send(text, 4000, to, () => socket.close()));`;
const send = (guest: GuestNamespace, text: string, to: string): Promise<string> =>
  guest.run(process.execPath, '-e', SEND, text, to);

const RESOLVE = `
  const [server, name] = process.argv.slice(1);
  const resolver = new (require('node:dns').promises.Resolver)();
  resolver.setServers([server]);
  resolver.resolve4(name).then((addresses) => console.log(addresses.join()));`;

const CONNECT = `require('node:net').connect(80, process.argv[1]);`;

describe('a veth port on the host', () => {
  it('has its guest’s end there and down, under the guest’s MAC address, and no IPv6 address of the host', async () => {
    const network = await makeNetwork(1, 'nat');
    const port = await attach(network, specOf(network, 1));
    const peer = await linkNamed(port.peer);
    expect(peer).toMatchObject({ address: port.mac, mtu: 1500 });
    expect(peer?.flags).not.toContain('UP');
    const guest = await openGuest();
    await guest.take(port);
    expect((await linkNamed('eth0', guest.within))?.address).toBe(port.mac);
    const { stdout } = await run('ip', ['-6', 'address', 'show', 'dev', port.link]);
    expect(stdout).toBe('');
  });

  it('passes nothing while no rule knows it', async () => {
    const network = await makeNetwork(1, 'nat');
    const { instance } = network;
    const port = { kind: 'veth', link: `rv${instance}zz0`, peer: `rp${instance}zz0` } as const;
    const mac = '52:54:00:00:00:02';
    await run('ip', ['link', 'add', port.link, 'type', 'veth', 'peer', 'name', port.peer, 'address', mac]);
    try {
      await run('ip', ['link', 'set', 'dev', port.link, 'master', `rb${instance}1`]);
      await run('ip', ['link', 'set', 'dev', port.link, 'up']);
      const guest = await openGuest();
      const ipv4 = { address: '10.91.1.3', prefixLength: 24 };
      await guest.take({ ...port, mac: portSpec(network, 2).mac, ipv4 });
      await guest.ip('neighbour add 10.91.1.1 lladdr 52:54:00:00:00:09 dev eth0');
      await send(guest, 'unguarded', '10.91.1.1');
      const { stdout } = await run('nft', [
        '-j',
        'list',
        'counter',
        'bridge',
        `roost_${instance}`,
        'forged_mac',
      ]);
      const { nftables } = JSON.parse(stdout) as { nftables: { counter?: { packets: number } }[] };
      expect(nftables.flatMap(({ counter }) => counter?.packets ?? [])[0]).toBeGreaterThan(0);
      expect(await inspect()).toContain(`veth ${port.link}`);
    } finally {
      await run('ip', ['link', 'delete', 'dev', port.link]);
    }
  });

  it('leaves the address and the MTU of a bridge that it joins as they were, at both its ends', async () => {
    await run('ip', ['link', 'add', 'lan1', 'mtu', '1400', 'type', 'bridge']);
    try {
      const network = await makeNetwork(1, 'bridge');
      await run('ip', ['tuntap', 'add', 'other0', 'mode', 'tap']);
      await run('ip', ['link', 'set', 'dev', 'other0', 'address', 'fa:00:00:00:00:01', 'mtu', '1400']);
      await run('ip', ['link', 'set', 'dev', 'other0', 'master', 'lan1']);
      const before = await linkNamed('lan1');
      const port = await attach(network, specOf(network, 1));
      expect(await linkNamed(port.peer)).toMatchObject({ mtu: 1400, address: port.mac });
      expect(await linkNamed('lan1')).toMatchObject({ mtu: 1400, address: before?.address });
    } finally {
      for (const link of ['lan1', 'other0']) await run('ip', ['link', 'delete', 'dev', link]);
    }
  });

  it('is named where another instance has made it', async () => {
    const theirs = await makeNetwork(3, 'nat', 'conf2' as InstanceId);
    const port = await attach(theirs, specOf(theirs, 1));
    const foreign = await backend.foreign?.({ instance: 'conf1' as InstanceId }, never);
    expect(foreign?.map(hostObjectKey).toSorted()).toEqual([
      'bridge rbconf23',
      'nft-table bridge/roost_conf2',
      'nft-table inet/roost_conf2',
      `veth ${port.link}`,
    ]);
    expect(await inspect()).not.toContain(`veth ${port.link}`);
  });
});

describe('the guest of a veth port', () => {
  it('takes the address that DHCP gives it, and finds others by name', async () => {
    const network = await makeNetwork(1, 'nat');
    const { ipv4: _static, ...port } = await attach(network, specOf(network, 1));
    await attach(network, specOf(network, 2));
    const guest = await openGuest();
    await guest.take(port);
    const client = ['-i', 'eth0', '-f', '-q', '-n', '-t', '10', '-T', '1', '-s', '/bin/true'];
    const { stderr } = await run(guest.within[0] ?? '', [
      ...guest.within.slice(1),
      'busybox',
      'udhcpc',
      ...client,
    ]);
    expect(stderr).toContain('lease of 10.91.1.2 obtained from 10.91.1.1');
    await guest.ip('address add 10.91.1.2/24 dev eth0');
    expect(await guest.run(process.execPath, '-e', RESOLVE, '10.91.1.1', 'guest2.net1')).toBe('10.91.1.3\n');
    const { addresses } = await backend.report(network, specOf(network, 1), never);
    expect(addresses).toContainEqual(expect.objectContaining({ source: 'lease', address: '10.91.1.2' }));
    expect(await backend.answer(network, specOf(network, 1), 0, AbortSignal.timeout(20_000))).toEqual({
      kind: 'lease',
      address: '10.91.1.2',
    });
  });

  it('sends UDP and TCP whose checksums hold where a tap takes them', async () => {
    const signal = AbortSignal.timeout(20_000);
    const network = await makeNetwork(1, 'isolated');
    const port = await attach(network, specOf(network, 1));
    const guest = await openGuest();
    await guest.take(port);
    const spec = portSpec(network, 2);
    const { descriptor = -1, guarded } = await backend.attach(network, spec, never);
    ports.push([network, spec]);
    await guarded;
    const neighbour = new TapEnd(descriptor, spec.mac, spec.ipv4 ?? '');
    try {
      await guest.ip(`neighbour add ${neighbour.ip} lladdr ${neighbour.mac} dev eth0`);
      const checksumOf = (protocol: 6 | 17): Promise<boolean> =>
        neighbour.receive(
          ({ type, from, payload }) =>
            type === ETHERTYPE.ipv4 && from === port.mac && payload[9] === protocol
              ? checksumHolds(payload)
              : undefined,
          signal,
        );
      await send(guest, 'hello', neighbour.ip);
      expect(await checksumOf(17)).toBe(true);
      // Nobody answers: it goes on until its first packet was seen.
      const seen = new AbortController();
      const connecting = guest.runUntil(seen.signal, process.execPath, '-e', CONNECT, neighbour.ip);
      expect(await checksumOf(6)).toBe(true);
      seen.abort();
      await connecting;
    } finally {
      closeSync(descriptor);
    }
  });

  it('is held to its addresses, whatever its root makes of the link', async () => {
    const network = await makeNetwork(1, 'nat');
    const spec = specOf(network, 1);
    const port = await attach(network, spec);
    const guest = await openGuest();
    await guest.take(port);
    await guest.ip('neighbour add 10.91.1.1 lladdr 02:00:00:00:00:09 dev eth0');
    const dropped = async (): Promise<readonly string[]> =>
      Object.keys((await backend.report(network, spec, never)).droppedFrames).toSorted();
    await send(guest, 'honest', '10.91.1.1');
    expect(await dropped()).toEqual([]);
    await guest.ip('address flush dev eth0', 'address add 10.91.1.77/24 dev eth0');
    await guest.ip('neighbour replace 10.91.1.1 lladdr 02:00:00:00:00:09 dev eth0');
    await send(guest, 'from another address', '10.91.1.1');
    expect(await dropped()).toEqual(['forged_ipv4']);
    await guest.ip('neighbour flush dev eth0', 'link set dev eth0 address 52:54:00:00:00:66');
    await guest.ip('neighbour replace 10.91.1.1 lladdr 02:00:00:00:00:09 dev eth0');
    await send(guest, 'from another MAC address', '10.91.1.1');
    expect(await dropped()).toEqual(['forged_ipv4', 'forged_mac']);
  });
});

describe('the end of a veth port', () => {
  it('is a detach, which takes it out of its guest', async () => {
    const network = await makeNetwork(1, 'nat');
    const spec = specOf(network, 1);
    const guest = await openGuest();
    const port = await attach(network, spec);
    await guest.take(port);
    await backend.detach(network, spec, never);
    expect((await links(guest.within)).map(({ ifname }) => ifname)).toEqual(['lo']);
    expect(await linkNamed(port.link)).toBeUndefined();
    expect(await inspect()).toEqual(backend.plan(network).map(hostObjectKey).toSorted());
  });

  it.each([
    ['killed', (guest: GuestNamespace) => guest.kill()],
    // As liblxc does at an orderly end.
    [
      'ended',
      (guest: GuestNamespace, { peer }: VethPort) =>
        guest.ip(`link set dev eth0 netns ${process.pid} name ${peer}`),
    ],
  ])('does not keep the port of a guest that was %s from being attached again', async (_how, end) => {
    const network = await makeNetwork(1, 'nat');
    const spec = specOf(network, 1);
    const [first, second] = [await openGuest(), await openGuest()];
    const port = await attach(network, spec);
    await first.take(port);
    await end(first, port);
    // As a daemon that knows nothing of the run but what its ledger says.
    backend = bench.backend();
    await backend.detach(network, spec, never);
    expect(await attach(network, spec)).toEqual(port);
    await second.take(port);
    await send(second, 'here again', '10.91.1.1');
    expect((await backend.report(network, spec, never)).droppedFrames).toEqual({});
  });

  it('is not an attach while a guest runs with it', async () => {
    const network = await makeNetwork(1, 'nat');
    const spec = specOf(network, 1);
    const port = await attach(network, spec);
    const guest = await openGuest();
    await guest.take(port);
    const before = await inspect();
    await expect(backend.attach(network, spec, never)).rejects.toMatchObject({ class: 'FailedPrecondition' });
    expect(await inspect()).toEqual(before);
    expect(await linkNamed('eth0', guest.within)).toMatchObject({ address: port.mac });
  });

  it('comes by discarding what no inventory knows', async () => {
    const network = await makeNetwork(1, 'nat');
    const port = await attach(network, specOf(network, 1));
    const guest = await openGuest();
    await guest.take(port);
    const place = { instance: network.instance, ...bench };
    await backend.discard(
      place,
      [
        { kind: 'veth', name: 'rvother10' },
        { kind: 'veth', name: port.link },
      ],
      never,
    );
    expect(await inspect()).not.toContain(`veth ${port.link}`);
    expect((await links(guest.within)).map(({ ifname }) => ifname)).toEqual(['lo']);
  });
});
