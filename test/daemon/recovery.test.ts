/** A guest can always be deleted, or put into a stated state, whatever broke; and what happened is told. */
import { describe, expect, test, vi } from 'vitest';
import { LedgerTable } from '../../daemon/inventory/ledger-table.ts';
import { deferred } from '../../lib/abort.ts';
import { RoostError } from '../../protocol/errors.ts';
import { aGuest, type FakeDaemon, type FakeHouse, fakeHouse, freezeAt } from './fake-house.ts';

const CLEAN_UP_MS = 30_000;

const running = async (): Promise<{ house: FakeHouse; daemon: FakeDaemon; id: string }> => {
  const house = await fakeHouse();
  const daemon = await house.start();
  await daemon.client.done('network-create', { name: 'lan' });
  const id = await daemon.client.done('guest-create', aGuest('web1', { nics: [{ network: 'lan' }] }));
  await daemon.client.done('guest-start', { guest: 'web1' });
  return { house, daemon, id };
};

/** From now on the kernel does not let the process end. What it gives resolves when that was tried so many times. */
const immortal = (house: FakeHouse): ((times: number) => Promise<void>) => {
  const tries = [deferred<void>(), deferred<void>()];
  let tried = 0;
  house.host.before = (call) => {
    if (call !== 'kill') return undefined;
    tries[tried]?.resolve();
    tried += 1;
    return new Promise(() => undefined);
  };
  return async (times) => await tries[times - 1]?.promise;
};

const stuckPool = (house: FakeHouse): void => {
  house.beforePool = (effect) => {
    if (effect === 'removeGuest' || effect === 'deleteVolume')
      throw new RoostError('HostError', 'Operation not permitted');
  };
};

const stuckNetwork = (house: FakeHouse): void => {
  house.beforeNetwork = (call) => {
    if (call === 'detach') throw new RoostError('HostError', 'nft is gone');
  };
};

const expectAgreement = async (daemon: FakeDaemon): Promise<void> => {
  expect((await daemon.client.call('query-fsck', {})).differences).toEqual([]);
  expect(daemon.ledger).toEqual(await daemon.host());
};

describe('a forced deletion', () => {
  test('goes on past disks and ports that cannot be removed, names them, and leaves their rows to fsck', async () => {
    const { house, daemon } = await running();
    stuckPool(house);
    stuckNetwork(house);
    const ended = await daemon.client.finish('guest-delete', { guest: 'web1', force: true });
    expect(ended).toMatchObject({
      state: 'succeeded',
      result: {
        gaveUpOn: [
          expect.stringContaining('port 0 of guest web1: nft is gone'),
          expect.stringContaining('disk disk0: Operation not permitted'),
          expect.stringContaining('pool default: Operation not permitted'),
        ],
      },
    });
    expect((await daemon.client.call('query-guests', {})).total).toBe(0);
    const { differences } = await daemon.client.call('query-fsck', {});
    expect(differences).not.toEqual([]);
    for (const each of differences) expect(each).toMatchObject({ kind: 'abandoned', operation: ended.id });
    house.beforePool = () => undefined;
    house.beforeNetwork = () => undefined;
    await daemon.client.done('fsck-repair', {});
    await expectAgreement(daemon);
  });

  test('gives up on nothing that is gone, though the ledger cannot be told so in between', async () => {
    const { daemon } = await running();
    const forget = vi.spyOn(LedgerTable.prototype, 'forget').mockImplementation(() => {
      throw new RoostError('ResourceExhausted', 'The inventory could not be written');
    });
    const ended = await daemon.client.finish('guest-delete', { guest: 'web1', force: true });
    expect(forget).toHaveBeenCalled();
    expect(ended.state).toBe('succeeded');
    expect(ended.result).not.toHaveProperty('gaveUpOn');
    await expectAgreement(daemon);
  });

  test('without force is refused by what it cannot remove, and the guest stays', async () => {
    const { house, daemon } = await running();
    await daemon.client.done('guest-stop', { guest: 'web1', force: true });
    stuckPool(house);
    expect(await daemon.client.finish('guest-delete', { guest: 'web1' })).toMatchObject({
      state: 'failed',
      error: { class: 'HostError', desc: expect.stringContaining('disk disk0: Operation not permitted') },
    });
    expect((await daemon.client.call('query-guests', {})).total).toBe(1);
    house.beforePool = () => undefined;
    await daemon.client.done('guest-delete', { guest: 'web1' });
    expect(daemon.ledger.filter((key) => key.startsWith('directory'))).toEqual([]);
  });

  test('gives up on a process that does not end, and keeps it in the ledger until it is gone', async () => {
    const { house, daemon } = await running();
    const tried = immortal(house);
    const { operation } = await daemon.client.call('guest-delete', { guest: 'web1', force: true });
    await tried(1);
    house.clock.advance(CLEAN_UP_MS);
    expect(await daemon.client.call('operation-wait', { operation })).toMatchObject({
      state: 'succeeded',
      result: {
        gaveUpOn: expect.arrayContaining([expect.stringMatching(/its process, pid \d+: .*given up/)]),
      },
    });
    const { differences } = await daemon.client.call('query-fsck', {});
    expect(differences).toContainEqual(
      expect.objectContaining({ kind: 'abandoned', mend: { by: 'person', how: expect.any(String) } }),
    );
    house.host.kill('web1');
    await daemon.client.done('fsck-repair', {});
    await expectAgreement(daemon);
  });
});

describe('guest-reset-state', () => {
  test('is refused while the process lives, and says what can be done', async () => {
    const { house, daemon } = await running();
    expect(await daemon.client.finish('guest-reset-state', { guest: 'web1' })).toMatchObject({
      state: 'failed',
      error: { class: 'FailedPrecondition', data: { probe: 'alive' } },
    });
    expect(house.host.isAlive('web1')).toBe(true);
  });

  test.each(['stopped', 'failed'] as const)('with force ends the process and records %s', async (to) => {
    const { house, daemon } = await running();
    expect(await daemon.client.finish('guest-reset-state', { guest: 'web1', to, force: true })).toMatchObject(
      {
        state: 'succeeded',
        result: { state: to },
      },
    );
    expect(await daemon.client.call('query-guest', { guest: 'web1' })).toMatchObject({
      state: to,
      target: 'stopped',
    });
    expect(house.host.isAlive('web1')).toBe(false);
    await expectAgreement(daemon);
    await daemon.client.done('guest-start', { guest: 'web1' });
  });

  test('frees a guest whose stop hangs on a process that does not end; a new start is refused while it lives', async () => {
    const { house, daemon } = await running();
    const tried = immortal(house);
    const stop = await daemon.client.call('guest-stop', { guest: 'web1', force: true });
    await tried(1);
    const reset = await daemon.client.call('guest-reset-state', { guest: 'web1', force: true });
    expect(await daemon.client.call('operation-wait', { operation: stop.operation })).toMatchObject({
      state: 'cancelled',
    });
    await tried(2);
    house.clock.advance(CLEAN_UP_MS);
    const ended = await daemon.client.call('operation-wait', { operation: reset.operation });
    expect(ended.result?.['gaveUpOn']).toEqual(expect.arrayContaining([expect.stringMatching(/pid \d+/)]));
    expect(await daemon.client.call('query-guest', { guest: 'web1' })).toMatchObject({
      state: 'stopped',
      target: 'stopped',
    });
    house.host.silence('web1');
    expect(await daemon.client.finish('guest-start', { guest: 'web1' })).toMatchObject({
      state: 'failed',
      error: { class: 'FailedPrecondition' },
    });
  });

  test.each(
    ['facts', 'state'].flatMap((step) => (['before', 'after'] as const).map((moment) => ({ step, moment }))),
  )('cut short by a crash $moment $step is finished by the next daemon', async ({ step, moment }) => {
    const { house, daemon } = await running();
    await daemon.stop();
    const freeze = freezeAt(
      (place) => place.kind === 'guest-reset-state' && place.step === step && place.moment === moment,
    );
    const doomed = await house.start({ observeStep: freeze.observeStep });
    const { operation } = await doomed.client.call('guest-reset-state', { guest: 'web1', force: true });
    await freeze.reached;
    await doomed.crash(freeze.thaw);
    const next = await house.start();
    expect(await next.client.call('operation-wait', { operation })).toMatchObject({ state: 'succeeded' });
    expect(await next.client.call('query-guest', { guest: 'web1' })).toMatchObject({ state: 'stopped' });
    await expectAgreement(next);
  });

  test.each(['facts', 'state'])('whose step %s fails can be asked for again', async (step) => {
    const house = await fakeHouse();
    let failing = true;
    const daemon = await house.start({
      observeStep: (place) => {
        if (failing && place.kind === 'guest-reset-state' && place.step === step && place.moment === 'after')
          throw new RoostError('HostError', 'the test says no');
      },
    });
    await daemon.client.done('guest-create', aGuest('web1'));
    expect(await daemon.client.finish('guest-reset-state', { guest: 'web1' })).toMatchObject({
      state: 'failed',
    });
    failing = false;
    await daemon.client.done('guest-reset-state', { guest: 'web1' });
    await expectAgreement(daemon);
  });
});

test('a start that cannot be taken back keeps the guest in sight instead of calling it failed', async () => {
  const house = await fakeHouse();
  const daemon = await house.start();
  await daemon.client.done('guest-create', aGuest('web1'));
  const tried = deferred<void>();
  house.host.before = (call) => {
    if (call === 'resume') throw new RoostError('HostError', 'no');
    if (call !== 'kill') return undefined;
    tried.resolve();
    return new Promise(() => undefined);
  };
  const { operation } = await daemon.client.call('guest-start', { guest: 'web1' });
  await tried.promise;
  house.clock.advance(CLEAN_UP_MS);
  expect(await daemon.client.call('operation-wait', { operation })).toMatchObject({
    state: 'failed',
    error: { data: { undoFailures: [expect.stringContaining('launch')] } },
  });
  const guest = await daemon.client.call('query-guest', { guest: 'web1' });
  expect(guest.process).toBeDefined();
  expect(guest.state).not.toBe('stopped');
  house.host.before = () => undefined;
  await daemon.client.done('guest-reset-state', { guest: 'web1', force: true });
  await expectAgreement(daemon);
});

test('query-operation tells what each step did and what failed', async () => {
  const { house, daemon } = await running();
  const { operations } = await daemon.client.call('query-operations', { subject: 'web1' });
  const start = operations.find(({ kind }) => kind === 'guest-start');
  if (!start) throw new Error('no start');
  const journal = await daemon.client.call('query-operation', { operation: start.id });
  const ports = journal.steps.find(({ name }) => name === 'ports');
  expect(ports?.account).toEqual([{ kind: 'made', object: expect.stringMatching(/^tap rt/) }]);
  stuckNetwork(house);
  const ended = await daemon.client.finish('guest-delete', { guest: 'web1', force: true });
  const { steps } = await daemon.client.call('query-operation', { operation: ended.id });
  expect(steps.flatMap(({ account }) => account ?? [])).toContainEqual({
    kind: 'note',
    text: expect.stringContaining('gave up on port 0'),
  });
  await expect(
    daemon.client.call('query-operation', { operation: '00000000-0000-4000-8000-000000000000' }),
  ).rejects.toMatchObject({ class: 'NotFound' });
});

test('query-guest-history tells a life with its actors, also after the guest is gone, by name and by id', async () => {
  const { house, daemon, id } = await running();
  house.clock.advance(1);
  await daemon.client.done('guest-update', { guest: 'web1', description: 'new' });
  await daemon.client.done('guest-update', {
    guest: 'web1',
    restartPolicy: { when: 'on-failure', delayMs: 60_000 },
  });
  house.host.kill('web1');
  await daemon.client.waitForEvent(({ event }) => event === 'GUEST_RESTART_SCHEDULED');
  house.clock.advance(1);
  await daemon.client.done('guest-delete', { guest: 'web1', force: true });
  const story = await daemon.client.call('query-guest-history', { guest: 'web1' });
  expect(story).toMatchObject({ id, name: 'web1', deleted: true });
  expect(story.entries.map(({ what }) => what)).toEqual([
    'guest-create',
    'guest-start',
    'GUEST_UPDATED',
    'GUEST_UPDATED',
    'GUEST_STATE_CHANGED',
    'GUEST_EXITED',
    'GUEST_RESTART_SCHEDULED',
    'guest-delete',
  ]);
  expect(story.entries[2]).toMatchObject({ detail: 'description', actor: expect.stringMatching(/^unix:/) });
  expect(story.entries.find(({ what }) => what === 'GUEST_EXITED')?.detail).toContain('killed');
  expect((await daemon.client.call('query-guest-history', { guest: id })).entries).toEqual(story.entries);
  const first = await daemon.client.call('query-guest-history', { guest: id, limit: 3 });
  expect(first).toMatchObject({ next: '3' });
  const rest = await daemon.client.call('query-guest-history', { guest: id, after: '3' });
  expect([...first.entries, ...rest.entries]).toEqual(story.entries);
  await expect(daemon.client.call('query-guest-history', { guest: 'nobody' })).rejects.toMatchObject({
    class: 'NotFound',
  });
});

test('a cancelled step that does not let go is left to itself after a time, and the next operation has its turn', async () => {
  const house = await fakeHouse();
  const daemon = await house.start();
  const begun = deferred<void>();
  house.beforePool = (effect) => {
    if (effect !== 'createVolume') return undefined;
    begun.resolve();
    return new Promise(() => undefined);
  };
  const { operation } = await daemon.client.call('guest-create', aGuest('web1'));
  await begun.promise;
  await daemon.client.call('operation-cancel', { operation });
  house.clock.advance(CLEAN_UP_MS);
  expect((await daemon.client.call('operation-wait', { operation })).state).toBe('cancelled');
  const { steps } = await daemon.client.call('query-operation', { operation });
  expect(steps.flatMap(({ account }) => account ?? [])).toContainEqual({
    kind: 'note',
    text: expect.stringContaining('did not let go'),
  });
  house.beforePool = () => undefined;
  await daemon.client.done('guest-create', aGuest('web1'));
});
