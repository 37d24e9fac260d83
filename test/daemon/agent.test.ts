/** The agent in a guest through the whole daemon: seen without being asked, asked within deadlines, never trusted. */
import { beforeEach, describe, expect, test } from 'vitest';
import type { FakeAgent } from '../../drivers/fake/fake-agent.ts';
import type { GuestId } from '../../protocol/types.ts';
import type { TestClient } from '../harness/test-client.ts';
import { aGuest, type FakeDaemon, type FakeHouse, fakeHouse } from './fake-house.ts';

let house: FakeHouse;
let daemon: FakeDaemon;
let client: TestClient;
let id: GuestId;

const web1 = { guest: 'web1' } as const;
const agentOf = async () => (await client.call('query-guest', web1)).agent;

const becomes = async (state: string, more: object = {}): Promise<void> => {
  const matches = (data: object): boolean =>
    Object.entries({ state, ...more }).every(
      ([key, value]) => (data as Record<string, unknown>)[key] === value,
    );
  await client.waitForEvent(({ event, data }) => event === 'GUEST_AGENT_CHANGED' && matches(data));
};

/** The guest runs, and its agent has been asked for its version. */
const withAgent = async (): Promise<FakeAgent> => {
  const agent = house.host.host.openAgent(id);
  await becomes('connected', { version: 'fake' });
  return agent;
};

beforeEach(async () => {
  house = await fakeHouse();
  daemon = await house.start();
  ({ client } = daemon);
  id = (await client.done('guest-create', aGuest('web1', { start: true }))) as GuestId;
});

describe('whether an agent is there', () => {
  test('shows by events', async () => {
    expect(await agentOf()).toMatchObject({ enabled: true, state: 'absent' });
    await withAgent();
    expect(await agentOf()).toMatchObject({ state: 'connected', version: 'fake' });
    house.host.host.openAgent(id, false);
    await becomes('absent');
    expect(await agentOf()).not.toHaveProperty('version');
  });

  test('is known to the next daemon, which nobody told', async () => {
    await withAgent();
    await daemon.stop();
    ({ client } = await house.start());
    expect(await agentOf()).toMatchObject({ state: 'connected' });
  });

  test('is forgotten with the process', async () => {
    await withAgent();
    await client.done('guest-stop', { ...web1, force: true });
    expect(await agentOf()).toMatchObject({ state: 'absent' });
    await expect(client.call('guest-info', web1)).rejects.toMatchObject({ class: 'FailedPrecondition' });
  });

  test('is no question where the guest has no channel', async () => {
    await client.done('guest-create', aGuest('bare', { agent: { enabled: false }, start: true }));
    await expect(client.call('guest-info', { guest: 'bare' })).rejects.toMatchObject({
      class: 'FailedPrecondition',
      message: expect.stringContaining('without a channel'),
    });
  });
});

describe('an agent that is silent', () => {
  test('ends a call by its deadline, shows as silent, and heals by answering', async () => {
    const agent = await withAgent();
    agent.silent = true;
    await expect(client.call('guest-info', { ...web1, timeoutMs: 20 })).rejects.toMatchObject({
      class: 'Unavailable',
      data: { guest: 'web1', timeoutMs: 20 },
    });
    expect(await agentOf()).toMatchObject({ state: 'silent' });
    const { guests } = await client.call('query-guests', {});
    expect(guests[0]?.agent?.state).toBe('silent');
    agent.silent = false;
    await client.call('guest-info', web1);
    expect(await agentOf()).toMatchObject({ state: 'connected' });
  });

  test('holds up neither the stop of its guest nor other commands of the connection', async () => {
    const agent = await withAgent();
    agent.silent = true;
    const waiting = client
      .call('guest-info', { ...web1, timeoutMs: 600_000 })
      .catch((error: unknown) => error);
    await client.done('guest-stop', web1);
    await client[Symbol.asyncDispose]();
    expect(await waiting).toMatchObject({ class: 'Unavailable' });
  });
});

describe('programs', () => {
  const exec = async (path: string, more: object = {}) => {
    const { pid } = await client.call('guest-exec', { ...web1, path, ...more });
    return await client.call('guest-exec-status', { ...web1, pid, waitMs: 60_000 });
  };

  test('give their output and their exit code', async () => {
    await withAgent();
    const said = await exec('echo', { arg: ['a', 'b c'] });
    expect(said).toMatchObject({ exited: true, exitcode: 0 });
    expect(Buffer.from(said.outData ?? '', 'base64').toString()).toBe('a b c\n');
    expect(await exec('false')).toEqual({ exited: true, exitcode: 1 });
    expect((await exec('cat', { inputData: 'aW4=' })).outData).toBe('aW4=');
  });

  test('are asked about until they have exited', async () => {
    const agent = await withAgent();
    const { pid } = await client.call('guest-exec', { ...web1, path: 'echo' });
    agent.lingering = 3;
    const ended = client.call('guest-exec-status', { ...web1, pid, waitMs: 60_000 });
    const asked = (): number => {
      house.clock.advance(500);
      return agent.lingering;
    };
    await expect.poll(asked).toBe(0);
    house.clock.advance(500);
    expect(await ended).toMatchObject({ exited: true });
  });

  test('that are not there are refused in the words of the agent', async () => {
    await withAgent();
    await expect(exec('/no/such')).rejects.toMatchObject({ class: 'FailedPrecondition' });
  });
});

describe('files', () => {
  test('are written and read', async () => {
    const agent = await withAgent();
    const { handle } = await client.call('guest-file-open', { ...web1, path: '/f', mode: 'w' });
    const file = { ...web1, handle };
    expect(await client.call('guest-file-write', { ...file, buf: 'YWJj' })).toEqual({ count: 3 });
    expect(await client.call('guest-file-seek', { ...file, whence: 'end' })).toEqual({ position: 3 });
    await client.call('guest-file-seek', file);
    expect(await client.call('guest-file-read', file)).toEqual({ buf: 'YWJj', eof: true });
    await client.call('guest-file-close', file);
    expect(agent.openFiles).toBe(0);
    await expect(client.call('guest-file-read', file)).rejects.toMatchObject({ class: 'NotFound' });
  });

  test('belong to their connection, and are closed with it', async () => {
    const agent = await withAgent();
    const other = await daemon.connect();
    const { handle } = await other.call('guest-file-open', { ...web1, path: '/f', mode: 'w' });
    await expect(client.call('guest-file-read', { ...web1, handle })).rejects.toMatchObject({
      class: 'NotFound',
    });
    await other[Symbol.asyncDispose]();
    await expect.poll(() => agent.openFiles).toBe(0);
  });

  test('are gone with the agent that opened them', async () => {
    await withAgent();
    const { handle } = await client.call('guest-file-open', { ...web1, path: '/f', mode: 'w' });
    house.host.host.openAgent(id, false);
    house.host.host.openAgent(id, true);
    await expect(client.call('guest-file-read', { ...web1, handle })).rejects.toMatchObject({
      class: 'NotFound',
    });
  });

  test('are at most 16 for a connection', async () => {
    await withAgent();
    const open = () => client.call('guest-file-open', { ...web1, path: '/f', mode: 'w' });
    for (let count = 0; count < 16; count += 1) await open();
    await expect(open()).rejects.toMatchObject({ class: 'ResourceExhausted' });
  });
});

test('a guest that is deaf to its power button stops by its agent', async () => {
  await withAgent();
  house.host.deaf.add('web1');
  const stopped = client.finish('guest-stop', { ...web1, timeoutMs: 86_400_000 });
  await client.waitForState('web1', 'stopping');
  const isAlive = (): boolean => {
    house.clock.advance(1_000);
    return house.host.isAlive('web1');
  };
  await expect.poll(isAlive, { timeout: 10_000 }).toBe(false);
  expect(await stopped).toMatchObject({ state: 'succeeded' });
  expect((await client.call('query-guest', web1)).lastExit?.cause).toBe('guest-shutdown');
});

test('addresses are what the guest says', async () => {
  const agent = await withAgent();
  expect(await client.call('guest-network-get-interfaces', web1)).toEqual({ interfaces: agent.reported });
});
