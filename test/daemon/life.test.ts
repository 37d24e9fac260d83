import { describe, expect, test, vi } from 'vitest';
import { deferred } from '../../lib/abort.ts';
import type { NetworkPlace } from '../../network/backend.ts';
import { RoostError } from '../../protocol/errors.ts';
import { aGuest, type FakeDaemon, type FakeHouse, fakeHouse } from './fake-house.ts';

const begin = async (): Promise<{ house: FakeHouse; daemon: FakeDaemon; client: FakeDaemon['client'] }> => {
  const house = await fakeHouse();
  const daemon = await house.start();
  return { house, daemon, client: daemon.client };
};

const expectLedgerIsHost = async (daemon: FakeDaemon): Promise<void> => {
  expect(daemon.ledger).toEqual(await daemon.host());
};

describe('the life of a guest', () => {
  test('created, started, stopped by its power button, deleted: ledger and host agree at every place', async () => {
    const { daemon, client } = await begin();
    await client.done('network-create', { name: 'lan', kind: 'nat', subnet: '10.91.7.0/24' });
    const id = await client.done('guest-create', aGuest('web1', { nics: [{ network: 'lan' }] }));
    expect(await client.call('query-guest', { guest: 'web1' })).toMatchObject({
      id,
      state: 'stopped',
      target: 'stopped',
      stale: false,
      nics: [{ network: 'lan', ipv4: '10.91.7.2' }],
    });
    await expectLedgerIsHost(daemon);
    const before = daemon.ledger;

    await client.done('guest-start', { guest: 'web1' });
    expect(await client.call('query-guest', { guest: id })).toMatchObject({
      state: 'running',
      target: 'running',
      process: { accel: 'fake' },
    });
    await expectLedgerIsHost(daemon);
    expect(daemon.ledger.length).toBeGreaterThan(before.length);

    await client.done('guest-stop', { guest: 'web1' });
    const stopped = await client.call('query-guest', { guest: 'web1' });
    expect(stopped).toMatchObject({
      state: 'stopped',
      target: 'stopped',
      lastExit: { cause: 'guest-shutdown' },
    });
    expect(stopped).not.toHaveProperty('process');
    expect(daemon.ledger).toEqual(before);
    await expectLedgerIsHost(daemon);

    await client.done('guest-delete', { guest: 'web1' });
    await client.done('network-delete', { network: 'lan' });
    expect(daemon.ledger).toEqual([]);
    expect(await daemon.host()).toEqual([]);
    await expect(client.call('query-guest', { guest: 'web1' })).rejects.toMatchObject({ class: 'NotFound' });
    expect(
      client.events.filter(({ event }) => event === 'GUEST_STATE_CHANGED').map(({ data }) => data['to']),
    ).toEqual(['starting', 'running', 'stopping', 'stopped']);
  });

  test('created and started in one request', async () => {
    const { client } = await begin();
    await client.done('guest-create', aGuest('web1', { start: true }));
    expect((await client.call('query-guest', { guest: 'web1' })).state).toBe('running');
  });

  test('started, it has what was planned', async () => {
    const { daemon, client } = await begin();
    await client.done('guest-create', aGuest('web1'));
    const existing = new Set(daemon.ledger);
    const plan = await client.call('guest-plan', { guest: 'web1' });
    expect(plan.argv.slice(0, 2)).toEqual(['fake', 'web1']);
    await client.done('guest-start', { guest: 'web1' });
    expect(daemon.ledger.filter((key) => !existing.has(key))).toEqual(
      plan.objects.map(({ kind, name }) => `${kind} ${name}`).sort(),
    );
  });

  test('paused, resumed and reset', async () => {
    const { client } = await begin();
    await client.done('guest-create', aGuest('web1', { start: true }));
    await client.done('guest-pause', { guest: 'web1' });
    expect(await client.call('query-guest', { guest: 'web1' })).toMatchObject({
      state: 'paused',
      reason: 'user',
    });
    await client.done('guest-resume', { guest: 'web1' });
    const resumed = await client.call('query-guest', { guest: 'web1' });
    expect(resumed.state).toBe('running');
    expect(resumed).not.toHaveProperty('reason');
    await client.done('guest-reset', { guest: 'web1' });
    await client.waitForEvent(
      ({ event, data }) => event === 'GUEST_DRIVER_EVENT' && data['event'] === 'RESET',
    );
  });

  test('started paused, it stands before its first instruction', async () => {
    const { house, client } = await begin();
    await client.done('guest-create', aGuest('web1'));
    await client.done('guest-start', { guest: 'web1', paused: true });
    expect((await client.call('query-guest', { guest: 'web1' })).state).toBe('paused');
    expect(house.host.calls).toEqual(['launch web1']);
  });

  test('what is told late of a time before it was asked changes nothing', async () => {
    const { house, client } = await begin();
    await client.done('guest-create', aGuest('web1', { start: true }));
    await client.done('guest-pause', { guest: 'web1' });
    await client.done('guest-resume', { guest: 'web1' });
    const before = client.events.length;
    house.host.tellLate('web1', { state: 'paused', reason: 'user' });
    // Would be found done already if it counted.
    const paused = await client.finish('guest-pause', { guest: 'web1' });
    expect(paused.steps.map(({ name }) => name)).toEqual(['pause']);
    const changes = client.events.slice(before).filter(({ event }) => event === 'GUEST_STATE_CHANGED');
    expect(changes.map(({ data }) => data['to'])).toEqual(['paused']);
  });

  test('a start of a running guest and a stop of a stopped one succeed without work', async () => {
    const { house, client } = await begin();
    await client.done('guest-create', aGuest('web1'));
    expect((await client.finish('guest-stop', { guest: 'web1' })).steps).toEqual([]);
    await client.done('guest-start', { guest: 'web1' });
    expect((await client.finish('guest-start', { guest: 'web1' })).steps).toEqual([]);
    expect(house.host.calls).toEqual(['launch web1', 'resume web1']);
  });

  test('a paused guest is let go on so that it can hear its power button', async () => {
    const { house, client } = await begin();
    await client.done('guest-create', aGuest('web1', { start: true }));
    await client.done('guest-pause', { guest: 'web1' });
    await client.done('guest-stop', { guest: 'web1' });
    expect(house.host.calls.slice(2, 5)).toEqual(['pause web1', 'resume web1', 'shutdown web1']);
    expect((await client.call('query-guest', { guest: 'web1' })).lastExit?.cause).toBe('guest-shutdown');
  });
});

describe('a guest that ignores its power button', () => {
  test('is ended by force at the deadline, not before', async () => {
    const { house, client } = await begin();
    house.host.deaf.add('web1');
    await client.done('guest-create', aGuest('web1', { start: true }));
    const stopping = client.finish('guest-stop', { guest: 'web1', timeoutMs: 5000 });
    await client.waitForState('web1', 'stopping');
    house.clock.advance(4999);
    expect((await client.call('query-guest', { guest: 'web1' })).state).toBe('stopping');
    expect(house.host.isAlive('web1')).toBe(true);
    house.clock.advance(1);
    expect((await stopping).state).toBe('succeeded');
    expect(await client.call('query-guest', { guest: 'web1' })).toMatchObject({
      state: 'stopped',
      lastExit: { cause: 'asked' },
    });
  });

  test('has the deadline of its settings unless another is given', async () => {
    const { house, client } = await begin();
    house.host.deaf.add('web1');
    await client.done('guest-create', aGuest('web1', { start: true, stopTimeoutMs: 7000 }));
    const stopping = client.finish('guest-stop', { guest: 'web1' });
    await client.waitForState('web1', 'stopping');
    expect(house.clock.delays).toContain(7000);
    house.clock.advance(7000);
    expect((await stopping).state).toBe('succeeded');
  });

  test('has its button pressed again, as it may have been booting', async () => {
    const { house, client } = await begin();
    house.host.deaf.add('web1');
    await client.done('guest-create', aGuest('web1', { start: true }));
    const stopping = client.finish('guest-stop', { guest: 'web1' });
    await client.waitForState('web1', 'stopping');
    const waiting = () => house.clock.delays.filter((delay) => delay === 10_000).length;
    await vi.waitUntil(() => waiting() > 0);
    house.host.hearAgain('web1');
    house.clock.advance(10_000);
    expect((await stopping).state).toBe('succeeded');
    expect((await client.call('query-guest', { guest: 'web1' })).lastExit?.cause).toBe('guest-shutdown');
    expect(waiting()).toBe(0);
  });

  test('is ended at once by a second, forced stop', async () => {
    const { house, client } = await begin();
    house.host.deaf.add('web1');
    await client.done('guest-create', aGuest('web1', { start: true }));
    const waiting = client.finish('guest-stop', { guest: 'web1' });
    await client.waitForState('web1', 'stopping');
    await client.done('guest-stop', { guest: 'web1', force: true });
    expect((await waiting).state).toBe('succeeded');
    expect(house.host.isAlive('web1')).toBe(false);
  });

  test.each([
    ['guest-pause', {}],
    ['guest-disk-resize', { disk: 'disk0', sizeBytes: 2 ** 21 }],
  ] as const)('by force is behind no %s that waits for a process which stands still', async (kind, more) => {
    const { house, client } = await begin();
    await client.done('guest-create', aGuest('web1', { start: true }));
    house.host.silence('web1');
    const underWay = await client.call(kind, { guest: 'web1', ...more });
    const queued = await client.call('guest-disk-resize', {
      guest: 'web1',
      disk: 'disk0',
      sizeBytes: 2 ** 22,
    });
    const word = await client.call('guest-pause', { guest: 'web1' });
    await client.done('guest-stop', { guest: 'web1', force: true });
    for (const { operation } of [underWay, queued, word])
      expect((await client.call('operation-wait', { operation })).state).toBe('cancelled');
    expect(house.host.isAlive('web1')).toBe(false);
    expect(await client.call('query-guest', { guest: 'web1' })).toMatchObject({
      state: 'stopped',
      disks: [{ sizeBytes: 2 ** 20 }],
    });
  });

  test('keeps its deadline through a restart of the daemon', async () => {
    const { house, daemon, client } = await begin();
    house.host.deaf.add('web1');
    await client.done('guest-create', aGuest('web1', { start: true }));
    const { operation } = await client.call('guest-stop', { guest: 'web1', timeoutMs: 5000 });
    await client.waitForState('web1', 'stopping');
    house.clock.advance(3000);
    await daemon.stop();
    const next = await house.start();
    await next.client.waitForEvent(
      ({ event, data }) => event === 'OPERATION_CHANGED' && data['step'] === 'ask',
    );
    expect(house.clock.delays).toContain(2000);
    const waiting = next.client.call('operation-wait', { operation });
    house.clock.advance(2000);
    expect((await waiting).state).toBe('succeeded');
    expect(house.host.isAlive('web1')).toBe(false);
  });

  test('runs on when its stop is cancelled', async () => {
    const { house, client } = await begin();
    house.host.deaf.add('web1');
    await client.done('guest-create', aGuest('web1', { start: true }));
    const { operation } = await client.call('guest-stop', { guest: 'web1' });
    await client.waitForState('web1', 'stopping');
    await client.call('operation-cancel', { operation });
    expect((await client.call('operation-wait', { operation })).state).toBe('cancelled');
    expect(await client.call('query-guest', { guest: 'web1' })).toMatchObject({
      state: 'running',
      target: 'running',
    });
  });
});

describe('settings', () => {
  test('of the machine wait for the next start and show as pending, others apply at once', async () => {
    const { house, client } = await begin();
    await client.done('guest-create', aGuest('web1', { start: true }));
    const MIB = 1024 * 1024;
    await client.done('guest-update', {
      guest: 'web1',
      memoryBytes: 2 * MIB,
      description: 'a web server',
      labels: { tier: 'front' },
    });
    expect(await client.call('query-guest', { guest: 'web1' })).toMatchObject({
      memoryBytes: 2 * MIB,
      description: 'a web server',
      labels: { tier: 'front' },
      pendingChanges: ['memoryBytes'],
    });
    expect(house.host.launchOf('web1')?.memoryBytes).toBe(MIB);
    await client.done('guest-stop', { guest: 'web1' });
    await client.done('guest-start', { guest: 'web1' });
    expect((await client.call('query-guest', { guest: 'web1' })).pendingChanges).toEqual([]);
    expect(house.host.launchOf('web1')?.memoryBytes).toBe(2 * MIB);
  });

  test('changed back are no longer pending', async () => {
    const { client } = await begin();
    await client.done('guest-create', aGuest('web1', { start: true }));
    await client.done('guest-update', { guest: 'web1', cpu: { count: 2 } });
    expect((await client.call('query-guest', { guest: 'web1' })).pendingChanges).toEqual(['cpu']);
    await client.done('guest-update', { guest: 'web1', cpu: { count: 1 } });
    expect((await client.call('query-guest', { guest: 'web1' })).pendingChanges).toEqual([]);
  });

  test('changed by many at the same moment are all kept', async () => {
    const { daemon, client } = await begin();
    await client.done('guest-create', aGuest('web1'));
    const others = await Promise.all([
      daemon.connect(),
      daemon.connect(),
      daemon.connect(),
      daemon.connect(),
    ]);
    await Promise.all([
      others[0]?.done('guest-update', { guest: 'web1', description: 'a' }),
      others[1]?.done('guest-update', { guest: 'web1', labels: { b: 'b' } }),
      others[2]?.done('guest-update', { guest: 'web1', stopTimeoutMs: 1234 }),
      others[3]?.done('guest-start', { guest: 'web1' }),
    ]);
    const expected = { description: 'a', labels: { b: 'b' }, stopTimeoutMs: 1234, target: 'running' };
    expect(await client.call('query-guest', { guest: 'web1' })).toMatchObject(expected);
    const [kept] = daemon.daemon.inventory.guests.all();
    expect(kept?.record).toMatchObject({
      target: 'running',
      spec: { description: 'a', labels: { b: 'b' }, stopTimeoutMs: 1234 },
    });
  });

  test('a guest is renamed while it is stopped, and found by its new name alone', async () => {
    const { house, daemon, client } = await begin();
    const id = await client.done('guest-create', aGuest('web1'));
    await client.done('guest-rename', { guest: 'web1', newName: 'web2' });
    expect((await client.call('query-guest', { guest: 'web2' })).id).toBe(id);
    await expect(client.call('query-guest', { guest: 'web1' })).rejects.toMatchObject({ class: 'NotFound' });
    await client.done('guest-create', aGuest('web1'));
    await expect(client.call('guest-rename', { guest: 'web1', newName: 'web2' })).rejects.toMatchObject({
      class: 'AlreadyExists',
    });
    await daemon.stop();
    const next = await house.start();
    expect((await next.client.call('query-guest', { guest: 'web2' })).id).toBe(id);
  });

  test('the record beside the disks follows', async () => {
    const { house, client } = await begin();
    await client.done('guest-create', aGuest('web1'));
    await client.done('guest-update', { guest: 'web1', description: 'new' });
    // The record is written by the guest's own loop; what is asked of it next comes behind.
    await client.done('guest-start', { guest: 'web1' });
    const { records } = await house.pool.readRecords();
    expect(records).toEqual([
      expect.objectContaining({ name: 'web1', spec: expect.objectContaining({ description: 'new' }) }),
    ]);
  });
});

describe('deleting', () => {
  test('a protected guest is refused until the protection is taken off', async () => {
    const { client } = await begin();
    await client.done('guest-create', aGuest('web1', { deleteProtection: true }));
    await expect(client.call('guest-delete', { guest: 'web1', force: true })).rejects.toMatchObject({
      class: 'FailedPrecondition',
    });
    await client.done('guest-update', { guest: 'web1', deleteProtection: false });
    await client.done('guest-delete', { guest: 'web1' });
  });

  test('a running guest is refused unless by force', async () => {
    const { house, daemon, client } = await begin();
    await client.done('guest-create', aGuest('web1', { start: true }));
    await expect(client.call('guest-delete', { guest: 'web1' })).rejects.toMatchObject({
      class: 'FailedPrecondition',
      hint: 'Stop it first, or delete it with force.',
    });
    await client.done('guest-delete', { guest: 'web1', force: true });
    expect(house.host.isAlive('web1')).toBe(false);
    expect(await daemon.host()).toEqual([]);
    expect(daemon.ledger).toEqual([]);
  });

  test('what waits behind a deletion is told that the guest is gone', async () => {
    const { house, client } = await begin();
    house.host.deaf.add('web1');
    await client.done('guest-create', aGuest('web1', { start: true }));
    const stopping = client.finish('guest-stop', { guest: 'web1' });
    await client.waitForState('web1', 'stopping');
    const first = client.finish('guest-delete', { guest: 'web1', force: true });
    await expect(client.call('guest-start', { guest: 'web1' })).rejects.toMatchObject({
      class: 'FailedPrecondition',
    });
    expect((await stopping).state).toBe('succeeded');
    expect((await first).state).toBe('succeeded');
  });

  test('an image or a network that a guest needs is refused with its name', async () => {
    const { house, client } = await begin();
    house.images.offer('/images/debian.qcow2', 4096);
    await client.done('image-import', { name: 'debian', path: '/images/debian.qcow2' });
    await client.done('network-create', { name: 'lan' });
    await client.done(
      'guest-create',
      aGuest('web1', { disks: [{ image: 'debian' }], nics: [{ network: 'lan' }] }),
    );
    const refusal = { class: 'FailedPrecondition', data: expect.objectContaining({ usedBy: ['web1'] }) };
    await expect(client.call('image-delete', { image: 'debian' })).rejects.toMatchObject(refusal);
    await expect(client.call('network-delete', { network: 'lan' })).rejects.toMatchObject(refusal);
    await client.done('guest-delete', { guest: 'web1' });
    await client.done('image-delete', { image: 'debian' });
    await client.done('network-delete', { network: 'lan' });
  });
});

describe('operations of one guest', () => {
  test('wait in line, and each shows its place and what it waits for', async () => {
    const { house, client } = await begin();
    const gate = deferred<void>();
    await client.done('guest-create', aGuest('web1'));
    house.host.before = (call) => (call === 'launch' ? gate.promise : undefined);
    const start = await client.call('guest-start', { guest: 'web1' });
    const pause = await client.call('guest-pause', { guest: 'web1' });
    const resume = await client.call('guest-resume', { guest: 'web1' });
    await client.waitForEvent(({ data }) => data['step'] === 'launch');
    const { operations } = await client.call('query-operations', { states: ['queued', 'running'] });
    expect(
      operations.map(({ kind, state, position, waitsFor }) => ({ kind, state, position, waitsFor })),
    ).toEqual([
      { kind: 'guest-resume', state: 'queued', position: 2, waitsFor: pause.operation },
      { kind: 'guest-pause', state: 'queued', position: 1, waitsFor: start.operation },
      { kind: 'guest-start', state: 'running', position: undefined, waitsFor: undefined },
    ]);
    expect((await client.call('query-guest', { guest: 'web1' })).operation).toEqual({
      id: start.operation,
      kind: 'guest-start',
      queued: 2,
    });
    gate.resolve();
    expect((await client.call('operation-wait', { operation: resume.operation })).state).toBe('succeeded');
    expect((await client.call('query-guest', { guest: 'web1' })).state).toBe('running');
  });

  test('a queued one that is cancelled ends at once, and the guest is not touched', async () => {
    const { house, client } = await begin();
    house.host.deaf.add('web1');
    await client.done('guest-create', aGuest('web1', { start: true }));
    const stop = await client.call('guest-stop', { guest: 'web1' });
    await client.waitForState('web1', 'stopping');
    const start = await client.call('guest-start', { guest: 'web1' });
    expect(await client.call('operation-cancel', { operation: start.operation })).toMatchObject({
      state: 'cancelled',
    });
    expect((await client.call('query-guest', { guest: 'web1' })).operation).toMatchObject({ queued: 0 });
    await client.call('operation-cancel', { operation: stop.operation });
    await client.call('operation-wait', { operation: stop.operation });
    expect(house.host.isAlive('web1')).toBe(true);
    expect((await client.call('query-guest', { guest: 'web1' })).state).toBe('running');
  });

  test('a second start that fails takes nothing of the running guest away', async () => {
    const { house, daemon, client } = await begin();
    await client.done('guest-create', aGuest('web1'));
    const gate = deferred<void>();
    house.host.before = (call) => (call === 'launch' ? gate.promise : undefined);
    const first = await client.call('guest-start', { guest: 'web1' });
    const second = await client.call('guest-start', { guest: 'web1' });
    await client.waitForEvent(({ data }) => data['step'] === 'launch');
    house.host.before = (call) => {
      if (call === 'resume' && house.host.calls.filter((each) => each === 'resume web1').length > 1)
        throw new Error('it does not want to');
    };
    gate.resolve();
    expect((await client.call('operation-wait', { operation: first.operation })).state).toBe('succeeded');
    expect((await client.call('operation-wait', { operation: second.operation })).state).toBe('failed');
    expect(await client.call('query-guest', { guest: 'web1' })).toMatchObject({ state: 'running' });
    expect(house.host.isAlive('web1')).toBe(true);
    await expectLedgerIsHost(daemon);
  });

  test('a running start that is cancelled is undone', async () => {
    const { house, daemon, client } = await begin();
    await client.done('guest-create', aGuest('web1'));
    const before = daemon.ledger;
    const gate = deferred<void>();
    house.host.before = (call) => (call === 'resume' ? gate.promise : undefined);
    const { operation } = await client.call('guest-start', { guest: 'web1' });
    await client.waitForEvent(({ data }) => data['step'] === 'resume');
    await client.call('operation-cancel', { operation });
    gate.resolve();
    expect((await client.call('operation-wait', { operation })).state).toBe('cancelled');
    await client.waitForState('web1', 'stopped');
    expect(house.host.isAlive('web1')).toBe(false);
    expect(daemon.ledger).toEqual(before);
  });

  test('a guest is launched beside the guarding of its ports, and runs only after it', async () => {
    const { house, client } = await begin();
    await client.done('network-create', { name: 'lan', kind: 'nat' });
    await client.done('guest-create', aGuest('web1', { nics: [{ network: 'lan' }] }));
    const guarding = deferred<void>();
    const seen: string[] = [];
    house.guardPort = () => guarding.promise.then(() => void seen.push('guarded'));
    house.host.before = (call) => void seen.push(call);
    const { operation } = await client.call('guest-start', { guest: 'web1' });
    await client.waitForEvent(({ data }) => data['step'] === 'resume');
    // An answer to a later question: whatever the step did without waiting is done.
    expect((await client.call('query-guest', { guest: 'web1' })).state).toBe('starting');
    guarding.resolve();
    expect((await client.call('operation-wait', { operation })).state).toBe('succeeded');
    expect(seen.filter((each) => ['launch', 'guarded', 'resume'].includes(each))).toEqual([
      'launch',
      'guarded',
      'resume',
    ]);
  });

  test.each(['launch', 'guard'])('a %s that fails is undone after the guarding has ended', async (what) => {
    const { house, daemon, client } = await begin();
    await client.done('network-create', { name: 'lan', kind: 'nat' });
    await client.done('guest-create', aGuest('web1', { nics: [{ network: 'lan' }] }));
    const before = daemon.ledger;
    const guarding = deferred<void>();
    const failing = deferred<void>();
    const seen: string[] = [];
    house.guardPort = () => guarding.promise.finally(() => seen.push('guarding ended'));
    house.beforeNetwork = (call) => void seen.push(call);
    house.host.before = (call) => {
      if (call !== 'launch' || what === 'guard') return;
      failing.resolve();
      throw new Error('no launch');
    };
    const { operation } = await client.call('guest-start', { guest: 'web1' });
    if (what === 'launch') await failing.promise;
    else await client.waitForEvent(({ data }) => data['step'] === 'resume');
    await client.call('query-guest', { guest: 'web1' });
    guarding.reject(new Error('no guard'));
    const ended = await client.call('operation-wait', { operation });
    expect(ended).toMatchObject({ state: 'failed', error: { desc: expect.stringContaining(`no ${what}`) } });
    expect(seen).toEqual(['attach', 'guarding ended', 'detach']);
    expect(house.host.isAlive('web1')).toBe(false);
    expect(daemon.ledger).toEqual(before);
    await expectLedgerIsHost(daemon);
  });

  test('a stop cancels a start that is under way', async () => {
    const { house, client } = await begin();
    await client.done('guest-create', aGuest('web1'));
    const gate = deferred<void>();
    house.host.before = (call) => (call === 'resume' ? gate.promise : undefined);
    const start = await client.call('guest-start', { guest: 'web1' });
    await client.waitForEvent(({ data }) => data['step'] === 'resume');
    const stop = await client.call('guest-stop', { guest: 'web1' });
    gate.resolve();
    expect((await client.call('operation-wait', { operation: start.operation })).state).toBe('cancelled');
    expect((await client.call('operation-wait', { operation: stop.operation })).state).toBe('succeeded');
    expect(await client.call('query-guest', { guest: 'web1' })).toMatchObject({
      state: 'stopped',
      target: 'stopped',
    });
  });

  test('a creation that is cancelled leaves nothing, and a start behind it is told', async () => {
    const { house, daemon, client } = await begin();
    const gate = deferred<void>();
    house.beforePool = (effect) => (effect === 'createVolume' ? gate.promise : undefined);
    const { operation: start } = await client.call('guest-create', aGuest('web1', { start: true }));
    const created = await client.waitForEvent(({ data }) => data['step'] === 'volumes');
    const operation = created.data['operation'] as typeof start;
    await client.call('operation-cancel', { operation });
    gate.resolve();
    expect((await client.call('operation-wait', { operation })).state).toBe('cancelled');
    expect((await client.call('operation-wait', { operation: start })).error).toMatchObject({
      class: 'NotFound',
    });
    expect(await daemon.host()).toEqual([]);
    expect(daemon.ledger).toEqual([]);
    await client.done('guest-create', aGuest('web1'));
  });

  test('a start behind a creation that failed ends with what the creation failed of', async () => {
    const { house, client } = await begin();
    house.beforePool = (effect) => {
      if (effect === 'createVolume') throw new RoostError('ResourceExhausted', 'The disk is full');
    };
    const { operation } = await client.call('guest-create', aGuest('web1', { start: true }));
    expect((await client.call('operation-wait', { operation })).error).toMatchObject({
      class: 'ResourceExhausted',
      desc: 'Guest web1 is gone: its creation ended as failed: The disk is full',
    });
  });

  test('a wait with a deadline of its own gives up; the operation goes on', async () => {
    const { house, client } = await begin();
    house.host.deaf.add('web1');
    await client.done('guest-create', aGuest('web1', { start: true }));
    const { operation } = await client.call('guest-stop', { guest: 'web1' });
    await expect(client.call('operation-wait', { operation, timeoutMs: 1 })).rejects.toMatchObject({
      class: 'DeadlineExceeded',
    });
    await client.waitForState('web1', 'stopping');
    house.clock.advance(60_000);
    expect((await client.call('operation-wait', { operation })).state).toBe('succeeded');
  });
});

describe('a start that the host cannot hold', () => {
  test('is refused with the numbers, and nothing is recorded', async () => {
    const { daemon, client } = await begin();
    await client.done('guest-create', aGuest('web1', { memoryBytes: 2 ** 50 }));
    const before = daemon.ledger;
    await expect(client.call('guest-start', { guest: 'web1' })).rejects.toMatchObject({
      class: 'ResourceExhausted',
      data: {
        neededBytes: 2 ** 50 + 1024 * 1024,
        committedBytes: 0,
        freeBytes: expect.any(Number),
        totalBytes: expect.any(Number),
      },
    });
    expect(await client.call('query-guest', { guest: 'web1' })).toMatchObject({
      state: 'stopped',
      target: 'stopped',
    });
    expect(daemon.ledger).toEqual(before);
    await expect(
      client.call('guest-create', aGuest('web2', { memoryBytes: 2 ** 50, start: true })),
    ).rejects.toMatchObject({ class: 'ResourceExhausted' });
    await expect(client.call('query-guest', { guest: 'web2' })).rejects.toMatchObject({ class: 'NotFound' });
  });

  test('memory of guests that run is promised already', async () => {
    const { client } = await begin();
    await client.done('guest-create', aGuest('web1', { start: true }));
    expect((await client.call('query-host', {})).memory.committedBytes).toBe(2 * 1024 * 1024);
    await client.done('guest-stop', { guest: 'web1' });
    expect((await client.call('query-host', {})).memory.committedBytes).toBe(0);
  });
});

describe('a network', () => {
  const holdUp = (
    house: FakeHouse,
    call: 'ensure' | 'remove',
  ): { readonly begun: Promise<void>; readonly letGo: () => void } => {
    const begun = deferred<void>();
    const held = deferred<void>();
    const original = house.network[call];
    Object.assign(house.network, {
      [call]: async (network: NetworkPlace, signal: AbortSignal) => {
        begun.resolve();
        await held.promise;
        await original(network, signal);
      },
    });
    return { begun: begun.promise, letGo: held.resolve };
  };

  test('that is being made or removed cannot be deleted', async () => {
    const { house, client } = await begin();
    const making = holdUp(house, 'ensure');
    const made = await client.call('network-create', { name: 'lan', kind: 'nat' });
    await making.begun;
    await expect(client.call('network-delete', { network: 'lan' })).rejects.toMatchObject({
      class: 'FailedPrecondition',
      data: { state: 'creating' },
    });
    making.letGo();
    await client.call('operation-wait', { operation: made.operation });
    const removing = holdUp(house, 'remove');
    const removed = await client.call('network-delete', { network: 'lan' });
    await expect(client.call('network-delete', { network: 'lan' })).rejects.toMatchObject({
      class: 'FailedPrecondition',
      data: { state: 'deleting' },
    });
    removing.letGo();
    expect((await client.call('operation-wait', { operation: removed.operation })).state).toBe('succeeded');
  });

  test('is as it was when its deletion is cancelled before its turn', async () => {
    const { house, daemon, client } = await begin();
    await client.done('network-create', { name: 'lan', kind: 'nat' });
    await daemon.stop();
    const mending = holdUp(house, 'ensure');
    const next = await house.start();
    await mending.begun;
    const removal = await next.client.call('network-delete', { network: 'lan' });
    await next.client.call('operation-cancel', { operation: removal.operation });
    expect((await next.client.call('query-networks', {})).networks).toMatchObject([
      { name: 'lan', state: 'ready' },
    ]);
    mending.letGo();
    await next.client.done('guest-create', aGuest('web1', { start: true, nics: [{ network: 'lan' }] }));
  });
});

describe('a guest that was started paused', () => {
  test('is paused also for the daemon that comes after, until it is resumed', async () => {
    const { house, daemon, client } = await begin();
    await client.done('guest-create', aGuest('web1'));
    await client.done('guest-start', { guest: 'web1', paused: true });
    expect(await client.call('query-guest', { guest: 'web1' })).toMatchObject({ state: 'paused' });
    await daemon.stop();
    const next = await house.start();
    expect(await next.client.call('query-guest', { guest: 'web1' })).toMatchObject({
      state: 'paused',
      reason: 'user',
    });
    await next.client.done('guest-resume', { guest: 'web1' });
    expect(await next.client.call('query-guest', { guest: 'web1' })).toMatchObject({ state: 'running' });
  });
});

describe('a deletion by force that is cancelled before its turn', () => {
  test('leaves the guest running, as was asked for', async () => {
    const { house, daemon, client } = await begin();
    await client.done('guest-create', aGuest('web1', { start: true }));
    const held = deferred<void>();
    const begun = deferred<void>();
    house.beforePool = async (effect) => {
      if (effect !== 'writeRecord') return;
      begun.resolve();
      await held.promise;
    };
    const other = await daemon.connect();
    const labelling = other.call('guest-update', { guest: 'web1', labels: { tier: 'front' } });
    await begun.promise;
    const removal = await client.call('guest-delete', { guest: 'web1', force: true });
    await client.call('operation-cancel', { operation: removal.operation });
    held.resolve();
    await labelling;
    expect(await client.call('query-guest', { guest: 'web1' })).toMatchObject({ target: 'running' });
    expect(house.host.isAlive('web1')).toBe(true);
  });
});
