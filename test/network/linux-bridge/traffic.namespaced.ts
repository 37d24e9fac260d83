/**
 * What networks do with real frames: honest ones arrive, forged ones are dropped and counted, addresses and names are
 * given, packets go out where they may. That a frame was dropped is seen by a later one that arrived before it.
 */
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { closeSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { deferred, waitOrAbort } from '../../../lib/abort.ts';
import { openPidfd, openTap, setLinkUp, signalPidfd, watchReadable } from '../../../native/index.ts';
import { bridgeMac } from '../../../network/addressing.ts';
import type {
  AttachedPort,
  NetworkBackend,
  NetworkPlace,
  PortEnd,
  PortSpec,
} from '../../../network/backend.ts';
import { linuxBridgeBackend } from '../../../network/linux-bridge/linux-bridge.ts';
import type { NetworkKind } from '../../../protocol/network.ts';
import { type NetworkBench, networkPlace, portSpec } from '../../conformance/network.ts';
import { linuxBridgeBench, prepareNamespace, run } from './bench.ts';
import {
  arp,
  BROADCAST,
  DHCP_OPTION,
  type DhcpReply,
  dhcpAddress,
  dhcpRequest,
  dhcpValue,
  dnsQuestion,
  ETHERTYPE,
  parseArp,
  parseDhcp,
  parseDnsAnswer,
  parseUdp,
  type Udp,
  udp,
} from './frames.ts';
import { GuestNamespace } from './guest-namespace.ts';
import { TapEnd } from './tap-end.ts';

const never = new AbortController().signal;
let bench: NetworkBench;
let backend: NetworkBackend;
let networks: NetworkPlace[] = [];
let ends: TapEnd[] = [];
let ports: (readonly [NetworkPlace, PortSpec])[] = [];
let namespaces: GuestNamespace[] = [];

beforeAll(prepareNamespace);
beforeEach(async () => {
  bench = await linuxBridgeBench();
  backend = bench.backend();
});
afterEach(async () => {
  for (const end of ends) end.close();
  for (const namespace of namespaces) await namespace.kill();
  for (const each of ports) await backend.detach(...each, never);
  for (const network of networks) await backend.remove(network, never);
  [networks, ends, ports, namespaces] = [[], [], [], []];
  await bench.release();
});

async function makeNetwork(number: number, kind: NetworkKind): Promise<NetworkPlace> {
  const network = networkPlace(bench, number, kind);
  networks.push(network);
  await backend.ensure(network, never);
  return network;
}

async function attach(network: NetworkPlace, port: PortSpec): Promise<TapEnd> {
  const attached = await backend.attach(network, port, never);
  ports.push([network, port]);
  await attached.guarded;
  const end = await endOf(attached, port.ipv4 ?? '0.0.0.0');
  ends.push(end);
  return end;
}

async function endOf({ port, descriptor = -1 }: AttachedPort, ip: string): Promise<TapEnd> {
  if (port.kind !== 'veth') return new TapEnd(descriptor, port.mac, ip);
  const namespace = await GuestNamespace.open();
  namespaces.push(namespace);
  return await namespace.takeByHand(port, ip);
}

const bothEnds: readonly PortEnd[] = ['tap', 'veth'];

const gateway = (network: NetworkPlace): string => `10.91.${network.number}.1`;
const gatewayMac = (network: NetworkPlace): string => bridgeMac(network.instance, network.number);

async function counters(family: 'bridge' | 'inet', network: NetworkPlace): Promise<Record<string, number>> {
  const { stdout } = await run('nft', ['-j', 'list', 'table', family, `roost_${network.instance}`]);
  const { nftables } = JSON.parse(stdout) as {
    nftables: { counter?: { name: string; packets: number } }[];
  };
  return Object.fromEntries(
    nftables.flatMap(({ counter }) =>
      counter && counter.packets > 0 ? [[counter.name, counter.packets] as const] : [],
    ),
  );
}

const resolve = async (end: TapEnd, network: NetworkPlace, name: string, signal: AbortSignal) => {
  end.sendUdp({ to: gateway(network), toPort: 53, data: dnsQuestion(name) }, { to: gatewayMac(network) });
  return parseDnsAnswer((await end.receiveUdp((packet) => packet.fromPort === 53, signal)).data);
};

/**
 * A bridge sends nothing of the host's own until the kernel has noticed the carrier of its first port, a little later.
 * Before an answer to DNS the kernel asks for the guest's address, again and again, so one that came says it is so.
 */
const bridgeSends = (end: TapEnd, network: NetworkPlace, signal: AbortSignal) =>
  resolve(end, network, 'nobody.net1', signal);

const said =
  (text: string) =>
  (packet: Udp): boolean =>
    packet.data.toString() === text;

/** Kills a process that is no child of ours, and waits for its end. */
async function kill(pid: number, signal: AbortSignal): Promise<void> {
  const pidfd = openPidfd(pid);
  const ended = deferred<void>();
  const watch = watchReadable(pidfd, () => ended.resolve());
  signalPidfd(pidfd, constants.signals.SIGKILL);
  await waitOrAbort(ended.promise, signal);
  watch.close();
  closeSync(pidfd);
}

describe.each(bothEnds)('the guard of a port, end %s', (kind) => {
  let network: NetworkPlace;
  let guest: TapEnd;
  let neighbour: TapEnd;

  beforeEach(async () => {
    network = await makeNetwork(1, 'isolated');
    guest = await attach(network, { ...portSpec(network, 1), end: kind });
    neighbour = await attach(network, portSpec(network, 2));
  });

  const request = (change: Partial<Parameters<typeof arp>[0]>) => ({
    type: ETHERTYPE.arp,
    payload: arp({
      operation: 'request',
      senderMac: guest.mac,
      senderIp: guest.ip,
      targetMac: '00:00:00:00:00:00',
      targetIp: neighbour.ip,
      ...change,
    }),
  });
  const ipv6 = (nextHeader: number, payload: Buffer): Buffer => {
    const header = Buffer.alloc(40);
    header.set([0x60, 0, 0, 0, 0, payload.length, nextHeader, 255, 0xfe, 0x80]);
    header.set([0xff, 0x02], 24);
    header[39] = 1;
    return Buffer.concat([header, payload]);
  };

  const specOf = (number: number): PortSpec => ({
    ...portSpec(network, number),
    end: number === 1 ? kind : 'tap',
  });
  const droppedOf = async (number: number) =>
    (await backend.report(network, specOf(number), never)).droppedFrames;

  /** What the neighbour gets of `send`, known by what comes after it. */
  const arrivesAfter = async (send: () => void, signal: AbortSignal): Promise<number> => {
    const before = neighbour.seen.length;
    send();
    guest.sendUdp({ to: neighbour.ip, data: Buffer.from('the end') }, { to: neighbour.mac });
    await neighbour.receiveUdp(said('the end'), signal);
    return neighbour.seen.slice(before, -1).filter((frame) => frame.from !== gatewayMac(network)).length;
  };

  it.each([
    ['IPv4 from its own address', () => guest.sendUdp({ to: neighbour.ip })],
    ['ARP for its own address', () => guest.send(request({}))],
    ['a probe for its own address', () => guest.send(request({ senderIp: '0.0.0.0', targetIp: guest.ip }))],
    [
      'a question for DHCP without an address yet',
      () => guest.sendUdp({ from: '0.0.0.0', to: '255.255.255.255', fromPort: 68, toPort: 67 }),
    ],
    ['IPv6', () => guest.send({ type: ETHERTYPE.ipv6, payload: ipv6(59, Buffer.alloc(0)) })],
  ])('lets through %s', async (_what, send) => {
    const signal = AbortSignal.timeout(20_000);
    expect(await arrivesAfter(send, signal)).toBe(1);
    expect(await counters('bridge', network)).toEqual({});
  });

  it.each([
    [
      "IPv4 under another's MAC address",
      'forged_mac',
      () => guest.sendUdp({ to: neighbour.ip }, { from: '52:54:00:66:66:66' }),
    ],
    [
      "ARP under another's MAC address",
      'forged_mac',
      () => guest.send({ from: '52:54:00:66:66:66', ...request({}) }),
    ],
    [
      "IPv4 from another's address",
      'forged_ipv4',
      () => guest.sendUdp({ from: '10.91.1.77', to: neighbour.ip }),
    ],
    [
      "IPv4 from the gateway's address",
      'forged_ipv4',
      () => guest.sendUdp({ from: '10.91.1.1', to: neighbour.ip }),
    ],
    ['IPv4 without an address', 'forged_ipv4', () => guest.sendUdp({ from: '0.0.0.0', to: neighbour.ip })],
    ["ARP for another's address", 'forged_arp', () => guest.send(request({ senderIp: '10.91.1.1' }))],
    [
      "ARP for its address at another's MAC address",
      'forged_arp',
      () => guest.send(request({ senderMac: neighbour.mac })),
    ],
    [
      "an ARP reply for another's address",
      'forged_arp',
      () => guest.send(request({ operation: 'reply', senderIp: '10.91.1.1' })),
    ],
    [
      "a probe for another's address",
      'forged_arp',
      () => guest.send(request({ senderIp: '0.0.0.0', targetIp: neighbour.ip })),
    ],
    [
      'ARP of another form',
      'forged_arp',
      () => {
        const frame = request({});
        frame.payload.writeUInt16BE(6, 0);
        guest.send(frame);
      },
    ],
    [
      'an answer of a DHCP server',
      'guest_dhcp_server',
      () => guest.sendUdp({ to: '255.255.255.255', fromPort: 67, toPort: 68 }),
    ],
    [
      'a router advertisement',
      'guest_router',
      () => guest.send({ type: ETHERTYPE.ipv6, payload: ipv6(58, Buffer.from([134, ...Array(15).fill(0)])) }),
    ],
    [
      'a VLAN tag',
      'other_protocol',
      () =>
        guest.send({
          type: ETHERTYPE.vlan,
          payload: Buffer.concat([
            Buffer.from([0, 7, 8, 0]),
            udp({ from: '10.91.1.77', to: neighbour.ip, fromPort: 1, toPort: 1, data: Buffer.alloc(0) }),
          ]),
        }),
    ],
    [
      'a spanning tree frame',
      'other_protocol',
      () =>
        guest.send({
          to: '01:80:c2:00:00:00',
          type: 38,
          payload: Buffer.from('424203000000', 'hex'),
        }),
    ],
  ])('drops and counts %s', async (_what, counter, send) => {
    const signal = AbortSignal.timeout(20_000);
    expect(await arrivesAfter(send, signal)).toBe(0);
    expect(await counters('bridge', network)).toEqual({ [counter]: 1 });
    expect(await droppedOf(1)).toEqual({ [counter]: 1 });
    expect(await droppedOf(2)).toEqual({});
  });

  it('counts for each port what it sent, until the port is taken away', async () => {
    const signal = AbortSignal.timeout(20_000);
    const forge = (end: TapEnd): void => end.sendUdp({ from: '10.91.1.77', to: neighbour.ip });
    forge(guest);
    forge(guest);
    forge(neighbour);
    expect(await arrivesAfter(() => forge(guest), signal)).toBe(0);
    expect([await droppedOf(1), await droppedOf(2)]).toEqual([{ forged_ipv4: 3 }, { forged_ipv4: 1 }]);
    await bench.backend().ensure(network, never);
    await backend.detach(network, portSpec(network, 2), never);
    expect(await droppedOf(2)).toEqual({});
  });

  it('holds while the rules are renewed, and after them', async () => {
    const signal = AbortSignal.timeout(20_000);
    await bench.backend().ensure(network, never);
    expect(await arrivesAfter(() => guest.sendUdp({ from: '10.91.1.77', to: neighbour.ip }), signal)).toBe(0);
    expect(await arrivesAfter(() => guest.sendUdp({ to: neighbour.ip }), signal)).toBe(1);
  });

  it('fails closed when somebody empties the sets, until the port is restored', async () => {
    const signal = AbortSignal.timeout(20_000);
    await run('nft', ['flush ruleset']);
    await backend.ensure(network, never);
    await backend.restorePort?.(network, portSpec(network, 2), never);
    guest.sendUdp({ to: neighbour.ip, data: Buffer.from('lost') }, { to: neighbour.mac });
    await backend.restorePort?.(network, specOf(1), never);
    expect(await arrivesAfter(() => undefined, signal)).toBe(0);
    expect(await counters('bridge', network)).toEqual({ forged_mac: 1 });
  });
});

describe('DHCP and DNS', () => {
  /** Discover, offer, request, acknowledgement (RFC 2131 section 3.1). */
  const lease = async (end: TapEnd, network: NetworkPlace, signal: AbortSignal): Promise<DhcpReply> => {
    const ask = async (
      type: number,
      more: readonly (readonly [number, Buffer])[] = [],
    ): Promise<DhcpReply> => {
      const wanted = [DHCP_OPTION.mask, DHCP_OPTION.router, DHCP_OPTION.dns, DHCP_OPTION.domain];
      const data = dhcpRequest(end.mac, [
        [DHCP_OPTION.type, Buffer.from([type])],
        [55, Buffer.from(wanted)],
        ...more,
      ]);
      end.sendUdp({ from: '0.0.0.0', to: '255.255.255.255', fromPort: 68, toPort: 67, data });
      const reply = await end.receiveUdp((packet) => packet.fromPort === 67, signal);
      return parseDhcp(reply.data);
    };
    await bridgeSends(end, network, signal);
    const offer = await ask(1);
    return await ask(3, [
      [DHCP_OPTION.requested, dhcpValue(offer.address)],
      [DHCP_OPTION.server, offer.options.get(DHCP_OPTION.server) ?? Buffer.alloc(0)],
    ]);
  };

  it.each([
    ['nat', 'tap', gateway],
    ['isolated', 'tap', () => undefined],
    ['nat', 'veth', gateway],
  ] as const)('give a guest of kind %s its own address, by its %s', async (kind, end, router) => {
    const signal = AbortSignal.timeout(20_000);
    const network = await makeNetwork(1, kind);
    const guest = await attach(network, { ...portSpec(network, 7), end });
    const { address, options } = await lease(guest, network, signal);
    expect(address).toBe('10.91.1.8');
    expect(options.get(DHCP_OPTION.type)).toEqual(Buffer.from([5]));
    expect(dhcpAddress(options.get(DHCP_OPTION.mask))).toBe('255.255.255.0');
    expect(dhcpAddress(options.get(DHCP_OPTION.dns))).toBe(gateway(network));
    expect(dhcpAddress(options.get(DHCP_OPTION.router))).toBe(router(network));
    expect(options.get(DHCP_OPTION.domain)?.toString()).toBe('net1');
  });

  it('give an address to the next guest, whatever the one before has done with it', async () => {
    const signal = AbortSignal.timeout(20_000);
    const network = await makeNetwork(1, 'nat');
    const port = portSpec(network, 1);
    const ipv4 = port.ipv4 ?? '';
    const visit = async (number: number, during: (guest: TapEnd) => Promise<unknown>): Promise<unknown> => {
      const next = { ...portSpec(network, number), ipv4 };
      const guest = await attach(network, next);
      const seen = await during(guest);
      guest.close();
      ends.splice(ends.indexOf(guest), 1);
      await backend.detach(network, next, never);
      return seen;
    };
    const addressOf = async (guest: TapEnd): Promise<string> => (await lease(guest, network, signal)).address;
    // One that has a lease and gives nothing back, one that has none.
    expect(await visit(1, addressOf)).toBe(ipv4);
    await visit(2, async () => undefined);
    expect(await visit(3, addressOf)).toBe(ipv4);
  });

  it('know guests by name while they are attached, before any lease', async () => {
    const signal = AbortSignal.timeout(20_000);
    const network = await makeNetwork(1, 'isolated');
    const guest = await attach(network, portSpec(network, 1));
    await attach(network, portSpec(network, 2));
    expect(await resolve(guest, network, 'guest2', signal)).toEqual({ code: 0, address: '10.91.1.3' });
    expect(await resolve(guest, network, 'guest2.net1', signal)).toEqual({ code: 0, address: '10.91.1.3' });
    expect(await resolve(guest, network, 'guest3.net1', signal)).toEqual({ code: 3 });
    await backend.detach(network, portSpec(network, 2), never);
    expect(await resolve(guest, network, 'guest2.net1', signal)).toEqual({ code: 3 });
  });

  it('go on after the server was killed and the network ensured', async () => {
    const signal = AbortSignal.timeout(20_000);
    const network = await makeNetwork(1, 'nat');
    const guest = await attach(network, portSpec(network, 1));
    const pidFile = `${network.runDirectory}/dnsmasq.pid`;
    const first = Number(readFileSync(pidFile, 'utf8'));
    await backend.ensure(network, never);
    expect(Number(readFileSync(pidFile, 'utf8'))).toBe(first);
    await kill(first, signal);
    const found = await backend.inspect({ instance: network.instance, ...bench }, never);
    expect(found.filter((object) => object.kind === 'process')).toEqual([]);
    await backend.ensure(network, never);
    expect(Number(readFileSync(pidFile, 'utf8'))).not.toBe(first);
    expect((await lease(guest, network, signal)).address).toBe('10.91.1.2');
  });

  it('are the same server when its pid file was lost', async () => {
    const network = await makeNetwork(1, 'nat');
    await run('rm', [`${network.runDirectory}/dnsmasq.pid`]);
    await backend.remove(network, never);
    expect(await backend.inspect({ instance: network.instance, ...bench }, never)).toEqual([]);
  });
});

describe('a question whether a guest is up', () => {
  /** Lets the guest answer ARP until the promise is settled. */
  const whileAnswering = async <T>(guest: TapEnd, promise: Promise<T>, signal: AbortSignal): Promise<T> => {
    const done = new AbortController();
    const answering = guest.receiveUdp(() => false, AbortSignal.any([signal, done.signal]));
    const ended = answering.catch(() => undefined);
    try {
      return await Promise.race([promise, answering.then(() => promise)]);
    } finally {
      done.abort();
      await ended;
    }
  };

  it.each(['nat', 'isolated'] as const)('is answered by ARP at its address, on kind %s', async (kind) => {
    const signal = AbortSignal.timeout(60_000);
    const network = await makeNetwork(1, kind);
    const port = portSpec(network, 1);
    const guest = await attach(network, port);
    const answer = backend.answer(network, port, Date.now(), signal);
    expect(await whileAnswering(guest, answer, signal)).toEqual({ kind: 'neighbour', address: port.ipv4 });
    expect((await backend.report(network, port, never)).addresses).toContainEqual({
      source: 'neighbour',
      address: port.ipv4,
      state: 'reachable',
    });
  });

  it('is put again and again to a guest that is silent, until it is given up', async () => {
    const signal = AbortSignal.timeout(60_000);
    const network = await makeNetwork(1, 'nat');
    const port = portSpec(network, 1);
    const guest = await attach(network, port);
    const neighbour = await attach(network, portSpec(network, 2));
    const enough = new AbortController();
    const answer = backend.answer(network, port, Date.now(), AbortSignal.any([signal, enough.signal]));
    let settled = false;
    const watched = answer.finally(() => {
      settled = true;
    });
    watched.catch(() => undefined);
    const asked = (): Promise<true> =>
      guest.receive((frame) => {
        if (frame.type !== ETHERTYPE.arp) return undefined;
        const { operation, targetIp } = parseArp(frame.payload);
        return operation === 'request' && targetIp === port.ipv4 ? true : undefined;
      }, signal);
    await asked();
    // A neighbour cannot answer in its place.
    neighbour.send({
      to: gatewayMac(network),
      type: ETHERTYPE.arp,
      payload: arp({
        operation: 'reply',
        senderMac: guest.mac,
        senderIp: guest.ip,
        targetMac: gatewayMac(network),
        targetIp: gateway(network),
      }),
    });
    await asked();
    expect(settled).toBe(false);
    const why = new Error('enough');
    enough.abort(why);
    await expect(watched).rejects.toBe(why);
  });
});

describe('the way out', () => {
  let outside: TapEnd;

  beforeEach(async () => {
    const descriptor = openTap('outside0');
    await run('ip', ['address', 'add', '192.0.2.1/24', 'dev', 'outside0']);
    setLinkUp('outside0');
    outside = new TapEnd(descriptor, '02:00:00:00:00:02', '192.0.2.2');
    ends.push(outside);
  });

  it('is open both ways for kind nat, under the host’s address, and closed for the rest', async () => {
    const signal = AbortSignal.timeout(20_000);
    const [nat, isolated] = [await makeNetwork(1, 'nat'), await makeNetwork(2, 'isolated')];
    const guest = await attach(nat, portSpec(nat, 1));
    const locked = await attach(isolated, portSpec(isolated, 2));

    locked.sendUdp({ to: outside.ip, data: Buffer.from('let me out') }, { to: gatewayMac(isolated) });
    guest.sendUdp({ to: locked.ip, data: Buffer.from('let me in') }, { to: gatewayMac(nat) });
    locked.sendUdp({ to: guest.ip, data: Buffer.from('let me in') }, { to: gatewayMac(isolated) });
    guest.sendUdp({ to: outside.ip, data: Buffer.from('hello out there') }, { to: gatewayMac(nat) });

    const packet = await outside.receiveUdp(({ toPort }) => toPort === 4000, signal);
    expect(packet.data.toString()).toBe('hello out there');
    expect(packet.from).toBe('192.0.2.1');
    expect(await counters('inet', nat)).toEqual({ not_forwarded: 3 });

    const { stdout } = await run('ip', ['-json', 'link', 'show', 'outside0']);
    const hostMac = (JSON.parse(stdout) as { address: string }[])[0]?.address ?? '';
    // Nobody outside may begin; an answer may come.
    outside.sendUdp({ to: guest.ip, data: Buffer.from('uninvited') }, { to: hostMac });
    outside.sendUdp(
      { to: '192.0.2.1', toPort: packet.fromPort, data: Buffer.from('an answer') },
      { to: hostMac },
    );
    const answer = await guest.receiveUdp(({ from }) => from === outside.ip, signal);
    expect(answer.data.toString()).toBe('an answer');
    expect(await counters('inet', nat)).toEqual({ not_forwarded: 4 });
  });

  it('leads to the gateway, which answers for itself', async () => {
    const signal = AbortSignal.timeout(20_000);
    const network = await makeNetwork(1, 'nat');
    const guest = await attach(network, portSpec(network, 1));
    await bridgeSends(guest, network, signal);
    guest.send({
      to: BROADCAST,
      type: ETHERTYPE.arp,
      payload: arp({
        operation: 'request',
        senderMac: guest.mac,
        senderIp: guest.ip,
        targetMac: '00:00:00:00:00:00',
        targetIp: gateway(network),
      }),
    });
    const reply = await guest.receive(
      (frame) => (frame.type === ETHERTYPE.arp ? parseArp(frame.payload) : undefined),
      signal,
    );
    expect(reply).toMatchObject({ operation: 'reply', senderMac: gatewayMac(network) });
  });
});

describe('a network', () => {
  it('is refused where its subnet is in use', async () => {
    await run('ip', ['link', 'add', 'taken0', 'type', 'bridge']);
    try {
      await run('ip', ['address', 'add', '10.91.0.1/16', 'dev', 'taken0']);
      expect(await backend.usedSubnets?.(never)).toContain('10.91.0.1/16');
      await expect(makeNetwork(1, 'nat')).rejects.toMatchObject({
        class: 'ResourceExhausted',
        message: 'Subnet 10.91.1.0/24 overlaps 10.91.0.1/16, which is in use on this host',
      });
    } finally {
      await run('ip', ['link', 'del', 'taken0']);
    }
  });

  it('says what its DHCP server had to say, and can be made once that is mended', async () => {
    const network = networkPlace(bench, 1, 'nat');
    networks.push(network);
    await expect(
      linuxBridgeBackend({ dnsmasqPath: '/nonexistent/dnsmasq' }).ensure(network, never),
    ).rejects.toMatchObject({
      class: 'Unsupported',
      hint: expect.stringContaining('dnsmasq-base') as string,
    });
    await expect(
      linuxBridgeBackend({ dnsmasqPath: '/bin/false' }).ensure(network, never),
    ).rejects.toMatchObject({ class: 'HostError' });
    await backend.ensure(network, never);
  });

  it('does not attach a port twice, and leaves the first as it was', async () => {
    const network = await makeNetwork(1, 'nat');
    const port = portSpec(network, 1);
    await attach(network, port);
    const place = { instance: network.instance, ...bench };
    const before = await backend.inspect(place, never);
    await expect(backend.attach(network, port, never)).rejects.toMatchObject({ class: 'FailedPrecondition' });
    expect(await backend.inspect(place, never)).toEqual(before);
  });

  it('loses a tap with the descriptor, and a persistent one by detaching', async () => {
    const network = await makeNetwork(1, 'nat');
    const place = { instance: network.instance, ...bench };
    const tap = backend.planPort(network, portSpec(network, 1)).objects.find(({ kind }) => kind === 'tap');
    await run('ip', ['tuntap', 'add', tap?.name ?? '', 'mode', 'tap']);
    expect(await backend.inspect(place, never)).toContainEqual(tap);
    await backend.detach(network, portSpec(network, 1), never);
    expect(await backend.inspect(place, never)).not.toContainEqual(tap);
  });

  it('names whoever else drops what it forwards, once it does and as long as it does', async () => {
    const place = { instance: networkPlace(bench, 1, 'nat').instance };
    expect(await backend.foreignFirewalls?.(place, never)).toEqual([]);
    await run('nft', [
      'add table ip filter; add chain ip filter DOCKER-USER;' +
        'add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }',
    ]);
    try {
      expect(await backend.foreignFirewalls?.(place, never)).toMatchObject([
        { who: 'Docker', chain: 'ip filter FORWARD' },
      ]);
      // As iptables writes `-i rbabcde+`.
      await run('nft', [`add rule ip filter DOCKER-USER iifname "rb${place.instance}*" counter accept`]);
      expect(await backend.foreignFirewalls?.(place, never)).toEqual([]);
    } finally {
      await run('nft', ['delete table ip filter']);
    }
  });
});

describe('ports of the host that are passed on to a guest', () => {
  const forwards = [
    { protocol: 'udp', hostAddress: '127.0.0.1', hostPort: 5300, guestPort: 53 },
    { protocol: 'udp', hostAddress: '0.0.0.0', hostPort: 5301, guestPort: 54 },
  ] as const;
  let sockets: Socket[] = [];

  afterEach(() => {
    for (const socket of sockets) socket.close();
    sockets = [];
  });

  const hostSocket = async (port = 0, address = '0.0.0.0'): Promise<Socket> => {
    const socket = createSocket('udp4');
    sockets.push(socket);
    socket.bind(port, address);
    await once(socket, 'listening');
    return socket;
  };

  const passing = async (): Promise<{ readonly network: NetworkPlace; readonly guest: TapEnd }> => {
    const network = await makeNetwork(1, 'nat');
    const guest = await attach(network, { ...portSpec(network, 1), forwards });
    await bridgeSends(guest, network, AbortSignal.timeout(20_000));
    return { network, guest };
  };

  it.each([
    ['127.0.0.1', 5300, 53],
    ['127.0.0.1', 5301, 54],
    ['10.91.1.1', 5301, 54],
  ])('reach it from %s, port %i, and what it answers comes back', async (address, port, guestPort) => {
    const signal = AbortSignal.timeout(20_000);
    const { network, guest } = await passing();
    const socket = await hostSocket();
    socket.send('question', port, address);
    const asked = await guest.receiveUdp(said('question'), signal);
    expect([asked.to, asked.toPort, asked.from]).toEqual([guest.ip, guestPort, gateway(network)]);
    const answered = once(socket, 'message', { signal });
    guest.sendUdp(
      { to: asked.from, toPort: asked.fromPort, fromPort: guestPort, data: Buffer.from('answer') },
      { to: gatewayMac(network) },
    );
    const [data, from] = (await answered) as [Buffer, { address: string; port: number }];
    expect([data.toString(), from.address, from.port]).toEqual(['answer', address, port]);
  });

  it('reach it from no network that is kept apart, and open nothing else of the host to it', async () => {
    const signal = AbortSignal.timeout(20_000);
    const { network, guest } = await passing();
    const apart = await makeNetwork(2, 'isolated');
    const stranger = await attach(apart, portSpec(apart, 2));
    await bridgeSends(stranger, apart, signal);
    const inner = await hostSocket(9999, '127.0.0.1');
    const heard: string[] = [];
    inner.on('message', (data) => heard.push(data.toString()));
    for (const [to, toPort] of [
      [gateway(apart), 5301],
      ['10.91.1.1', 5301],
      [guest.ip, 54],
    ] as const)
      stranger.sendUdp({ to, toPort, data: Buffer.from('forbidden') }, { to: gatewayMac(apart) });
    guest.sendUdp(
      { to: '127.0.0.1', toPort: 9999, data: Buffer.from('forbidden') },
      { to: gatewayMac(network) },
    );
    // Both have sent before, so that theirs would be there first.
    await resolve(stranger, apart, 'nobody.net2', signal);
    await resolve(guest, network, 'nobody.net1', signal);
    const socket = await hostSocket();
    socket.send('allowed', 5301, '127.0.0.1');
    await guest.receiveUdp(said('allowed'), signal);
    const texts = guest.seen.flatMap(({ type, payload }) =>
      type === ETHERTYPE.ipv4 ? (parseUdp(payload)?.data.toString() ?? []) : [],
    );
    expect(texts).not.toContain('forbidden');
    socket.send('inner', 9999, '127.0.0.1');
    await once(inner, 'message', { signal });
    expect(heard).toEqual(['inner']);
  });

  it('are refused where somebody listens, and are gone with the guest', async () => {
    const network = await makeNetwork(1, 'nat');
    const port = { ...portSpec(network, 1), forwards };
    const socket = await hostSocket(5301);
    await expect(backend.attach(network, port, never)).rejects.toMatchObject({
      class: 'FailedPrecondition',
      message: expect.stringContaining('5301'),
    });
    expect(socket.address().port).toBe(5301);
    const free = { ...port, forwards: forwards.slice(0, 1) };
    const end = await attach(network, free);
    end.close();
    ends = [];
    await backend.detach(network, free, never);
    const { stdout } = await run('nft', ['list', 'table', 'inet', `roost_${network.instance}`]);
    expect(stdout).not.toContain('5300');
  });
});
