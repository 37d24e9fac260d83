/** Proof that a guest is up, waited for through the whole daemon; and where it is found. */
import { beforeEach, describe, expect, test } from 'vitest';
import { type Deferred, deferred } from '../../lib/abort.ts';
import type { PortAnswer, PortSpec } from '../../network/backend.ts';
import type { CommandInput } from '../../protocol/commands.ts';
import type { TestClient } from '../harness/test-client.ts';
import { aGuest, type FakeDaemon, type FakeHouse, fakeHouse } from './fake-house.ts';

const web1 = { guest: 'web1' } as const;
const lease: PortAnswer = { kind: 'lease', address: '10.91.7.2' };

let house: FakeHouse;
let daemon: FakeDaemon;
let client: TestClient;
/** Ports that are asked, oldest first. */
let asked: { readonly port: PortSpec; readonly answer: Deferred<PortAnswer> }[];
let askedMore: (() => void)[];

const question = async (number: number): Promise<(typeof asked)[number]> => {
  for (;;) {
    const found = asked[number];
    if (found) return found;
    await new Promise<void>((resolve) => askedMore.push(resolve));
  }
};

const guest = (more: Partial<CommandInput<'guest-create'>> = {}) =>
  aGuest('web1', { nics: [{ network: 'lan' }], start: true, ...more });
const ready = async () => (await client.call('query-guest', web1)).ready;
const proofs = () => client.events.filter(({ event }) => event === 'GUEST_READY').map(({ data }) => data);
const proven = (kind: string) =>
  client.waitForEvent(({ event, data }) => event === 'GUEST_READY' && data['kind'] === kind);

beforeEach(async () => {
  [asked, askedMore] = [[], []];
  house = await fakeHouse();
  house.answer = (port) => {
    const answer = deferred<PortAnswer>();
    asked.push({ port, answer });
    for (const tell of askedMore.splice(0)) tell();
    return answer.promise;
  };
  daemon = await house.start();
  ({ client } = daemon);
  await client.done('network-create', { name: 'lan', kind: 'nat', subnet: '10.91.7.0/24' });
});

describe('a guest is ready', () => {
  test('by its first proof, once in a run, and not while it stands still', async () => {
    await client.done('guest-create', guest());
    expect(await ready()).toBeUndefined();
    const waiting = client.call('guest-wait', web1);
    (await question(0)).answer.resolve(lease);
    expect(await waiting).toMatchObject({ state: 'running', ready: lease });
    house.host.host.openAgent((await client.call('query-guest', web1)).id);
    await client.waitForEvent(
      ({ event, data }) => event === 'GUEST_AGENT_CHANGED' && data['version'] === 'fake',
    );
    expect(proofs()).toMatchObject([{ name: 'web1', ...lease }]);
    await client.done('guest-pause', web1);
    expect(await ready()).toBeUndefined();
    await client.done('guest-resume', web1);
    expect(await ready()).toMatchObject(lease);
  });

  test('by its agent, where that is the first to answer', async () => {
    await client.done('guest-create', guest({ nics: [] }));
    const waiting = client.call('guest-wait', web1);
    house.host.host.openAgent((await client.call('query-guest', web1)).id);
    expect((await waiting).ready).toMatchObject({ kind: 'agent' });
  });

  test('by that agent only when it speaks: an open channel proves nothing', async () => {
    await client.done('guest-create', guest({ nics: [] }));
    const { id } = await client.call('query-guest', web1);
    house.host.host.openAgent(id, false).silent = true;
    const agent = house.host.host.openAgent(id);
    await expect(client.call('guest-info', { ...web1, timeoutMs: 20 })).rejects.toMatchObject({
      class: 'Unavailable',
    });
    expect((await client.call('query-guest', web1)).agent.state).toBe('silent');
    expect(proofs()).toEqual([]);
    agent.silent = false;
    await client.call('guest-info', web1);
    await client.done('guest-stop', { ...web1, force: true });
  });

  test('to the next daemon too, which asks nobody again', async () => {
    await client.done('guest-create', guest());
    (await question(0)).answer.resolve(lease);
    await proven('lease');
    await daemon.stop();
    ({ client } = await house.start());
    expect(await client.call('guest-wait', web1)).toMatchObject({ ready: lease });
    expect(asked.length).toBe(1);
  });

  test('in each run anew', async () => {
    await client.done('guest-create', guest());
    (await question(0)).answer.resolve(lease);
    await proven('lease');
    await client.done('guest-stop', { ...web1, force: true });
    expect(await ready()).toBeUndefined();
    await client.done('guest-start', web1);
    expect(await ready()).toBeUndefined();
    (await question(1)).answer.resolve({ kind: 'neighbour', address: '10.91.7.2' });
    await proven('neighbour');
  });

  test('after a reset anew', async () => {
    await client.done('guest-create', guest());
    (await question(0)).answer.resolve(lease);
    await proven('lease');
    await client.done('guest-reset', web1);
    const again = await question(1);
    expect(await ready()).toBeUndefined();
    again.answer.resolve({ kind: 'neighbour', address: '10.91.7.2' });
    await proven('neighbour');
  });

  test('by a NIC that was attached while it ran', async () => {
    await client.done('guest-create', guest({ nics: [] }));
    await client.done('guest-nic-attach', { ...web1, network: 'lan' });
    const { port, answer } = await question(0);
    expect(port.ipv4).toBe('10.91.7.2');
    answer.resolve(lease);
    expect(await client.call('guest-wait', web1)).toMatchObject({ ready: lease });
  });
});

describe('a wait', () => {
  test('ends by its own deadline, and leaves the guest alone', async () => {
    await client.done('guest-create', guest());
    await expect(client.call('guest-wait', { ...web1, timeoutMs: 1 })).rejects.toMatchObject({
      class: 'DeadlineExceeded',
      message: expect.stringContaining('has not proven to be up'),
      data: { guest: 'web1', state: 'running', until: 'ready', timeoutMs: 1 },
    });
    expect((await client.call('query-guest', web1)).state).toBe('running');
  });

  test('is refused for what is not started, and ends when the guest does or is deleted', async () => {
    await client.done('guest-create', guest({ start: false }));
    const refused = { class: 'FailedPrecondition', data: { guest: 'web1', state: 'stopped' } };
    await expect(client.call('guest-wait', web1)).rejects.toMatchObject(refused);
    expect(await client.call('guest-wait', { ...web1, until: 'stopped' })).toMatchObject({ name: 'web1' });
    await client.done('guest-start', web1);
    const failed = (error: unknown): unknown => error;
    const stopped = client.call('guest-wait', web1).catch(failed);
    await client.done('guest-stop', { ...web1, force: true });
    expect(await stopped).toMatchObject(refused);
    await client.done('guest-start', web1);
    const deleted = client.call('guest-wait', { ...web1, until: 'paused' }).catch(failed);
    await client.done('guest-delete', { ...web1, force: true });
    expect(await deleted).toMatchObject({ class: expect.stringMatching(/NotFound|FailedPrecondition/) });
  });
});

describe('addresses', () => {
  const addresses = async () => (await client.call('query-guest-addresses', web1)).nics[0]?.addresses;
  const leased = { address: '10.91.7.2', source: 'lease', expiresAt: 5 } as const;

  test('come with what vouches for them, the agent’s for its own NICs alone', async () => {
    const id = await client.done('guest-create', guest());
    house.report = () => ({ addresses: [leased], droppedFrames: { forged_arp: 3 } });
    const agent = house.host.host.openAgent(id as never);
    const mac = (await client.call('query-guest', web1)).nics[0]?.mac ?? '';
    const ip = (ipAddress: string) => ({ ipAddress, ipAddressType: 'ipv4', prefix: 24 }) as const;
    const many = Array.from({ length: 200 }, (_, last) => ip(`192.0.2.${last}`));
    agent.reported = [
      { name: 'lo', ipAddresses: [ip('127.0.0.1')] },
      { name: 'docker0', hardwareAddress: '02:42:00:00:00:01', ipAddresses: [ip('172.17.0.1')] },
      { name: 'eth0', hardwareAddress: mac, ipAddresses: [ip('10.91.7.2'), ip('10.91.7.2'), ...many] },
    ];
    const reply = await client.call('query-guest-addresses', web1);
    const found = reply.nics[0];
    expect(found?.droppedFrames).toEqual({ forged_arp: 3 });
    const told = found?.addresses.filter(({ source }) => source === 'agent').map(({ address }) => address);
    expect(told?.length).toBe(64);
    expect(told?.slice(0, 2)).toEqual(['10.91.7.2', '192.0.2.0']);
    expect(found?.addresses.slice(64)).toEqual([leased, { address: '10.91.7.2', source: 'reserved' }]);
  });

  test('of the host are told although the agent is silent or the guest stands still', async () => {
    const id = await client.done('guest-create', guest());
    house.report = () => ({ addresses: [leased], droppedFrames: {} });
    const agent = house.host.host.openAgent(id as never);
    await client.waitForEvent(
      ({ event, data }) => event === 'GUEST_AGENT_CHANGED' && data['version'] === 'fake',
    );
    agent.silent = true;
    const known = [leased, { address: '10.91.7.2', source: 'reserved' }];
    expect(await addresses()).toEqual(known);
    expect((await client.call('query-guest', web1)).agent.state).toBe('silent');
    await client.done('guest-pause', web1);
    expect(await addresses()).toEqual(known);
  });
});
