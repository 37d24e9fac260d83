/** A frozen guest thaws, whatever becomes of who froze it, of its agent and of the daemon. */
import { beforeEach, describe, expect, test } from 'vitest';
import type { FakeAgent } from '../../drivers/fake/fake-agent.ts';
import type { GuestId } from '../../protocol/types.ts';
import type { TestClient } from '../harness/test-client.ts';
import { aGuest, type FakeDaemon, type FakeHouse, fakeHouse } from './fake-house.ts';

const web1 = { guest: 'web1' } as const;
let house: FakeHouse;
let daemon: FakeDaemon;
let client: TestClient;
let id: GuestId;
let agent: FakeAgent;

const frozenInView = async () => (await client.call('query-guest', web1)).frozen;
const freeze = (forMs = 60_000) => client.done('guest-fsfreeze-freeze', { ...web1, forMs });

const becomes = async (status: string, more: object = {}): Promise<void> => {
  const wanted = Object.entries({ status, ...more });
  await client.waitForEvent(
    ({ event, data }) =>
      event === 'GUEST_FSFREEZE_CHANGED' && wanted.every(([member, value]) => data[member] === value),
  );
};

/** Waits until the thaw has failed for the first time. */
const failsToThaw = () =>
  client.waitForEvent(({ event, data }) => event === 'GUEST_FSFREEZE_CHANGED' && data['error'] !== undefined);

beforeEach(async () => {
  house = await fakeHouse();
  daemon = await house.start();
  ({ client } = daemon);
  id = (await client.done('guest-create', aGuest('web1', { start: true }))) as GuestId;
  agent = house.host.host.openAgent(id);
  await client.waitForEvent(
    ({ event, data }) => event === 'GUEST_AGENT_CHANGED' && data['version'] !== undefined,
  );
});

describe('a freeze', () => {
  test('shows with its deadline, and ends with a thaw', async () => {
    const now = house.clock.now();
    await freeze(30_000);
    expect(agent.frozen).toBe(true);
    expect(await frozenInView()).toEqual({ since: now, thawAt: now + 30_000 });
    expect(await client.call('guest-fsfreeze-status', web1)).toEqual({ status: 'frozen' });
    await client.done('guest-fsfreeze-thaw', web1);
    expect(agent.frozen).toBe(false);
    expect(await frozenInView()).toBeUndefined();
    await becomes('thawed', { why: 'asked' });
  });

  test('tells how many file systems it froze', async () => {
    const ended = await client.finish('guest-fsfreeze-freeze', web1);
    expect(ended).toMatchObject({ state: 'succeeded', result: { fileSystems: 1 } });
  });

  test('ends by itself at its deadline, once', async () => {
    await freeze(30_000);
    house.clock.advance(29_999);
    expect(agent.frozen).toBe(true);
    house.clock.advance(1);
    await becomes('thawed', { why: 'deadline' });
    expect(agent.freezes).toEqual({ frozen: 1, thawed: 1 });
    expect(await frozenInView()).toBeUndefined();
  });

  test('has a longest and a shortest time', async () => {
    for (const forMs of [0, 600_001])
      await expect(client.call('guest-fsfreeze-freeze', { ...web1, forMs })).rejects.toMatchObject({
        class: 'InvalidArgument',
      });
  });

  test('is refused a second time, and for a guest that does not run', async () => {
    await freeze();
    await expect(client.call('guest-fsfreeze-freeze', web1)).rejects.toMatchObject({
      class: 'FailedPrecondition',
      message: expect.stringContaining('frozen already'),
    });
    await client.done('guest-fsfreeze-thaw', web1);
    await client.done('guest-pause', web1);
    expect(await client.finish('guest-fsfreeze-freeze', web1)).toMatchObject({
      state: 'failed',
      error: { class: 'FailedPrecondition' },
    });
    expect(await frozenInView()).toBeUndefined();
  });

  test('of an agent that does not answer is taken back as soon as it does', async () => {
    agent.silent = true;
    const ended = await client.finish('guest-fsfreeze-freeze', { ...web1, timeoutMs: 20 });
    expect(ended).toMatchObject({ state: 'failed', error: { class: 'Unavailable' } });
    expect(await frozenInView()).toMatchObject({ error: expect.stringContaining('did not answer') });
    agent.silent = false;
    // It may have done it all the same.
    agent.frozen = true;
    await client.call('guest-info', web1);
    await becomes('thawed');
    expect(agent.frozen).toBe(false);
    expect(await frozenInView()).toBeUndefined();
  });

  test('that an agent refuses leaves nothing behind', async () => {
    agent.frozen = true;
    expect(await client.finish('guest-fsfreeze-freeze', web1)).toMatchObject({
      state: 'failed',
      error: { class: 'FailedPrecondition' },
    });
    expect(agent.frozen).toBe(false);
    expect(await frozenInView()).toBeUndefined();
  });
});

describe('the next daemon', () => {
  test('thaws at the deadline of the last one', async () => {
    await freeze(30_000);
    const before = await frozenInView();
    await daemon.crash();
    daemon = await house.start();
    ({ client } = daemon);
    expect(await frozenInView()).toEqual(before);
    expect(agent.frozen).toBe(true);
    house.clock.advance(30_000);
    await becomes('thawed', { why: 'deadline' });
    expect(agent.frozen).toBe(false);
  });

  test('thaws at once when the deadline passed while there was none', async () => {
    await freeze(30_000);
    await daemon.crash();
    house.clock.advance(30_000);
    daemon = await house.start();
    ({ client } = daemon);
    await becomes('thawed', { why: 'deadline' });
    expect(agent.frozen).toBe(false);
  });
});

describe('an agent that does not take the thaw', () => {
  test('shows, and is told again when it is back', async () => {
    await freeze(30_000);
    house.host.host.openAgent(id, false);
    house.clock.advance(30_000);
    await failsToThaw();
    expect(await frozenInView()).toMatchObject({ error: expect.stringContaining('open') });
    expect(agent.frozen).toBe(true);
    house.host.host.openAgent(id);
    await becomes('thawed', { why: 'deadline' });
    expect(agent.frozen).toBe(false);
  });

  test('is told again at intervals', async () => {
    await freeze(30_000);
    // Closed without a word: no event will tell that it is open again.
    agent.isOpen = false;
    house.clock.advance(30_000);
    await failsToThaw();
    agent.isOpen = true;
    house.clock.advance(5_000);
    await becomes('thawed', { why: 'deadline' });
    expect(agent.frozen).toBe(false);
  });

  test('is told again by whoever asks for it', async () => {
    await freeze(30_000);
    agent.isOpen = false;
    expect(await client.finish('guest-fsfreeze-thaw', web1)).toMatchObject({
      state: 'failed',
      error: { class: 'Unavailable' },
    });
    expect(await frozenInView()).toMatchObject({ error: expect.any(String) });
    agent.isOpen = true;
    await client.done('guest-fsfreeze-thaw', web1);
    expect(await frozenInView()).toBeUndefined();
  });
});

describe('a frozen guest', () => {
  test('is thawed before its stop, which works', async () => {
    await freeze();
    await client.done('guest-stop', web1);
    await becomes('thawed', { why: 'stop' });
    expect(agent.freezes.thawed).toBe(1);
    expect(await client.call('query-guest', web1)).toMatchObject({
      state: 'stopped',
      lastExit: { cause: 'guest-shutdown' },
    });
  });

  test('is thawed before it is paused', async () => {
    await freeze();
    await client.done('guest-pause', web1);
    await becomes('thawed', { why: 'pause' });
    expect(agent.frozen).toBe(false);
  });

  test('is none any more after a stop by force', async () => {
    await freeze();
    await client.done('guest-stop', { ...web1, force: true });
    expect(await frozenInView()).toBeUndefined();
    await client.done('guest-start', web1);
    house.clock.advance(60_000);
    expect(await frozenInView()).toBeUndefined();
  });

  test('is none any more after a reset', async () => {
    await freeze();
    await client.done('guest-reset', web1);
    await becomes('thawed', { why: 'reset' });
    expect(await frozenInView()).toBeUndefined();
  });

  test('that has begun anew by itself is seen to be thawed when its agent is back', async () => {
    await freeze();
    house.host.host.openAgent(id, false);
    agent.frozen = false;
    house.host.host.openAgent(id);
    await becomes('thawed', { why: 'guest' });
    expect(await frozenInView()).toBeUndefined();
  });
});

describe('a stop with a mode', () => {
  const stop = (mode: 'acpi' | 'agent') => client.finish('guest-stop', { ...web1, mode });
  const notes = async (operation: { id: string }): Promise<string> =>
    JSON.stringify(await client.call('query-operation', { operation: operation.id }));

  test('asks the agent alone', async () => {
    const ended = await stop('agent');
    expect(ended).toMatchObject({ state: 'succeeded' });
    const said = await notes(ended);
    expect(said).not.toContain('pressed the power button');
    expect((await client.call('query-guest', web1)).lastExit).toMatchObject({ cause: 'guest-shutdown' });
  });

  test('presses the button alone', async () => {
    const ended = await stop('acpi');
    expect(ended).toMatchObject({ state: 'succeeded' });
    expect(await notes(ended)).toContain('pressed the power button');
  });

  test('is refused where there is no agent, and the guest runs on', async () => {
    house.host.host.openAgent(id, false);
    expect(await stop('agent')).toMatchObject({ state: 'failed', error: { class: 'Unavailable' } });
    expect(await client.call('query-guest', web1)).toMatchObject({ state: 'running', target: 'running' });
  });
});
