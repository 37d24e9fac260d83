import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { EventLog } from '../../../daemon/event-log.ts';
import { type Inventory, openInventory } from '../../../daemon/inventory/inventory.ts';
import type { OperationRecord } from '../../../daemon/inventory/operation-table.ts';
import { type NewOperation, Operations } from '../../../daemon/operations/operations.ts';
import type { Step, StepObserver } from '../../../daemon/operations/steps.ts';
import { deferred } from '../../../lib/abort.ts';
import { enter } from '../../../lib/account.ts';
import { silentLog } from '../../../lib/log.ts';
import { RoostError } from '../../../protocol/errors.ts';
import { operationView } from '../../../protocol/operation.ts';
import { ManualClock } from '../manual-clock.ts';
import { GUEST, nthId } from '../records.ts';

let inventory: Inventory;
const never = new AbortController().signal;
beforeEach(() => {
  inventory = openInventory(':memory:');
});
afterEach(() => {
  inventory.db.close();
});

const engine = (observeStep?: StepObserver, clock = new ManualClock()): Operations => {
  const events = new EventLog(inventory.db, inventory.events, clock);
  return new Operations({ inventory, events, clock, log: silentLog(), observeStep });
};

const fresh = (more: Partial<NewOperation> = {}): NewOperation => ({
  kind: 'guest-start',
  subject: { kind: 'guest', id: GUEST, name: 'web1' },
  actor: 'unix:uid=0,pid=1',
  arguments: {},
  ...more,
});

const accept = (operations: Operations, more?: Partial<NewOperation>): OperationRecord => {
  const record = inventory.db.soon(() => operations.insert(fresh(more)));
  operations.admitted(record);
  return record;
};

/** Steps that note what is done; `fail` names those that throw, as `do a` or `undo b`. */
const noting = (
  names: readonly string[],
  fail: readonly string[] = [],
): { steps: Step[]; seen: string[] } => {
  const seen: string[] = [];
  const note = (what: string): void => {
    seen.push(what);
    if (fail.includes(what)) throw new RoostError('HostError', `${what} failed`);
  };
  return {
    seen,
    steps: names.map((name) => ({ name, do: () => note(`do ${name}`), undo: () => note(`undo ${name}`) })),
  };
};

const eventsSeen = (): unknown[] =>
  inventory.events.since(0, 100).events.map(({ data }) => data['step'] ?? data['state']);

describe('an operation that goes well', () => {
  test('does its steps in order, is journaled at every place and announced', async () => {
    const operations = engine();
    const { steps, seen } = noting(['a', 'b']);
    const { id } = accept(operations);
    const ended = await operations.run(id, steps, { finish: (state) => ({ state }) });
    expect(seen).toEqual(['do a', 'do b']);
    expect(ended).toMatchObject({ state: 'succeeded', result: { state: 'succeeded' } });
    expect(inventory.operations.byId(id)).toEqual(ended);
    expect(inventory.operations.steps(id).map(({ name, state }) => [name, state])).toEqual([
      ['a', 'done'],
      ['b', 'done'],
    ]);
    expect(eventsSeen()).toEqual(['queued', 'running', 'a', 'b', 'succeeded']);
    const view = operations.view(ended);
    expect(operationView.parse(view)).toEqual(view);
  });

  test('tells whoever waits, also those who come when it has ended', async () => {
    const operations = engine();
    const gate = deferred<void>();
    const { id } = accept(operations);
    const waiting = operations.wait(id, never);
    const running = operations.run(id, [{ name: 'a', do: () => gate.promise }]);
    gate.resolve();
    const ended = await running;
    expect(await waiting).toEqual(ended);
    expect(await operations.wait(id, never)).toEqual(ended);
    await expect(operations.wait(nthId(9) as OperationRecord['id'], never)).rejects.toMatchObject({
      class: 'NotFound',
    });
  });

  test('has what its steps had to say in its result, and one that failed has not', async () => {
    const operations = engine();
    const saying: Step = {
      name: 'a',
      do: ({ warn }) => {
        warn?.('no lists');
        warn?.('no lists');
      },
    };
    const well = await operations.run(accept(operations).id, [saying], { finish: () => ({ image: 'web' }) });
    expect(well.result).toEqual({ image: 'web', warnings: ['no lists'] });
    const failing = noting(['b'], ['do b']).steps;
    const ended = await operations.run(accept(operations).id, [saying, ...failing]);
    expect(ended).toMatchObject({ state: 'failed' });
    expect(ended.result).toBeUndefined();
  });

  test('a wait ends with its own signal; the operation goes on', async () => {
    const operations = engine();
    const { id } = accept(operations);
    const reason = new Error('not interested any more');
    await expect(operations.wait(id, AbortSignal.abort(reason))).rejects.toBe(reason);
    expect((await operations.run(id, noting(['a']).steps)).state).toBe('succeeded');
  });

  test('shows how far it is while it runs', async () => {
    const operations = engine();
    const { id } = accept(operations);
    let view: unknown;
    await operations.run(id, [
      {
        name: 'copy',
        do: (work) => {
          work.progress({ done: 5, total: 10, unit: 'bytes' });
          const record = operations.record(id);
          view = record && operations.view(record);
        },
      },
    ]);
    expect(view).toMatchObject({ state: 'running', progress: { done: 5, total: 10, unit: 'bytes' } });
    expect(operationView.parse(view)).toEqual(view);
  });

  test('what is so already ends with its acceptance', () => {
    const operations = engine();
    const record = accept(operations, { already: true });
    expect(record).toMatchObject({ state: 'succeeded', endedAt: record.createdAt });
    expect(inventory.operations.unfinished()).toEqual([]);
  });
});

describe('an operation that fails', () => {
  const names = ['a', 'b', 'c'] as const;
  test.each([
    ['a', ['do a', 'undo a']],
    ['b', ['do a', 'do b', 'undo b', 'undo a']],
    ['c', ['do a', 'do b', 'do c', 'undo c', 'undo b', 'undo a']],
  ])(
    'at step %s takes back what was done, the last first, the failed step included',
    async (failing, expected) => {
      const operations = engine();
      const { steps, seen } = noting(names, [`do ${failing}`]);
      const { id } = accept(operations);
      const ended = await operations.run(id, steps);
      expect(seen).toEqual(expected);
      expect(ended).toMatchObject({
        state: 'failed',
        error: { class: 'HostError', desc: `do ${failing} failed` },
      });
    },
  );

  test.each(['before', 'after'] as const)('a failure %s a step counts as one of the step', async (moment) => {
    const operations = engine((place) => {
      if (place.step === 'b' && place.moment === moment) throw new RoostError('HostError', 'now');
    });
    const { steps, seen } = noting(names);
    const { id } = accept(operations);
    expect(await operations.run(id, steps)).toMatchObject({ state: 'failed' });
    expect(seen.slice(-2)).toEqual(['undo b', 'undo a']);
  });

  test('an undo that fails is reported with the failure, and the others are still done', async () => {
    const operations = engine();
    const { steps, seen } = noting(names, ['do c', 'undo b']);
    const { id } = accept(operations);
    const ended = await operations.run(id, steps);
    expect(seen).toContain('undo a');
    expect(ended.error).toMatchObject({
      class: 'HostError',
      desc: 'do c failed',
      data: { undoFailures: ['b: undo b failed'] },
    });
  });

  test('what was thrown and is no RoostError is a defect of ours', async () => {
    const operations = engine();
    const { id } = accept(operations);
    const broken: Step = {
      name: 'a',
      do: () => {
        throw new TypeError('x is undefined');
      },
    };
    expect((await operations.run(id, [broken])).error).toMatchObject({ class: 'Internal' });
  });

  test('the end and what goes with it are one transaction', async () => {
    const operations = engine();
    const { id } = accept(operations);
    const failing = operations.run(id, noting(['a']).steps, {
      finish: () => {
        inventory.meta.set('instance', 'abcde');
        throw new Error('the disk is full');
      },
    });
    // Whoever waits is told; the journal still has it as unfinished, for the next daemon.
    expect(await failing).toMatchObject({
      state: 'failed',
      error: { desc: expect.stringContaining('the disk is full') },
    });
    expect(inventory.meta.get('instance')).toBeUndefined();
    expect(inventory.operations.byId(id)?.state).toBe('running');
  });
});

describe('a journal that takes no writes for now', () => {
  const refuseWrites = (refuse: boolean): void =>
    void inventory.db.sqlite.pragma(`query_only = ${refuse ? 'ON' : 'OFF'}`);

  test('has the steps undone, everybody told, and the end written as soon as it takes them', async () => {
    const clock = new ManualClock();
    const operations = engine(undefined, clock);
    const { id } = accept(operations);
    const behind = accept(operations);
    const elsewhere = accept(operations, { subject: { kind: 'guest', id: nthId(7), name: 'web7' } });
    const { steps, seen } = noting(['a', 'b']);
    const full: Step = { name: 'full', do: () => refuseWrites(true) };
    const ending = operations.run(id, [...steps, full], { finish: (state) => ({ state }) });
    const error = { class: 'HostError', desc: expect.stringContaining('cannot be written') as string };
    expect(await operations.wait(id, never)).toMatchObject({ state: 'failed', error });
    expect(await operations.wait(behind.id, never)).toMatchObject({ state: 'failed', error });
    // What its waiters were told has failed is not done when its turn comes.
    expect(operations.toldBefore(behind.id)).toMatchObject({ class: 'HostError' });
    expect(operations.toldBefore(elsewhere.id)).toBeUndefined();
    expect(seen).toEqual(['do a', 'do b', 'undo b', 'undo a']);
    clock.advance(1_000);
    expect(inventory.operations.byId(id)?.state).toBe('running');
    refuseWrites(false);
    await Promise.resolve();
    clock.advance(1_000);
    const ended = await ending;
    expect(ended).toMatchObject({ state: 'failed', error, result: { state: 'failed' } });
    expect(inventory.operations.byId(id)).toEqual(ended);
    expect(inventory.operations.steps(id).map(({ state }) => state)).toEqual(['undone', 'undone', 'done']);
  });

  test('does not keep what was accepted from being done', async () => {
    const operations = engine();
    const record = inventory.db.soon(() => operations.insert(fresh()));
    refuseWrites(true);
    expect(operations.admitted(record)).toBe(true);
    refuseWrites(false);
    expect(await operations.run(record.id, noting(['a']).steps)).toMatchObject({ state: 'succeeded' });
  });

  test('leaves an operation to the next daemon when this one stops before', async () => {
    const operations = engine();
    const { id } = accept(operations);
    const full: Step = { name: 'full', do: () => refuseWrites(true) };
    const ending = operations.run(id, [full]);
    await operations.wait(id, never);
    operations.suspend();
    await expect(ending).rejects.toMatchObject({ class: 'Unavailable' });
    expect(inventory.operations.byId(id)?.state).toBe('running');
    refuseWrites(false);
  });
});

describe('cancelling', () => {
  test('a running operation aborts its step and is undone', async () => {
    const operations = engine();
    const { id } = accept(operations);
    const seen: string[] = [];
    const begun = deferred<void>();
    const step: Step = {
      name: 'a',
      do: ({ signal }) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener('abort', () => reject(new Error('aborted')));
          begun.resolve();
        }),
      undo: () => void seen.push('undo a'),
    };
    const running = operations.run(id, [step]);
    await begun.promise;
    expect(operations.cancel(id)).toMatchObject({ cancelRequested: true, state: 'running' });
    expect(await running).toMatchObject({
      state: 'cancelled',
      error: { class: 'Cancelled' },
      cancelRequested: true,
    });
    expect(seen).toEqual(['undo a']);
  });

  test('a queued operation ends at once, by its owner, and nothing of it is done', async () => {
    const operations = engine();
    const record = inventory.db.soon(() => operations.insert(fresh()));
    operations.admitted(record, () => void operations.withdrawn(record.id, (state) => ({ state })));
    const waiting = operations.wait(record.id, never);
    expect(operations.cancel(record.id)).toMatchObject({ state: 'cancelled', cancelRequested: true });
    expect(await waiting).toMatchObject({ state: 'cancelled', result: { state: 'cancelled' } });
    expect(inventory.operations.unfinished()).toEqual([]);
  });

  test('one that cannot be taken back goes on to its end', async () => {
    const operations = engine();
    const { id } = accept(operations);
    const { steps } = noting(['a', 'b']);
    const cancelling: Step = { name: 'c', do: () => void operations.cancel(id) };
    const ended = await operations.run(id, [cancelling, ...steps], { cancellable: false });
    expect(ended).toMatchObject({ state: 'succeeded', cancelRequested: true });
  });

  test('an ended or unknown operation is refused', async () => {
    const operations = engine();
    const { id } = accept(operations);
    await operations.run(id, []);
    expect(() => operations.cancel(id)).toThrow(expect.objectContaining({ class: 'FailedPrecondition' }));
    const unknown = nthId(9) as OperationRecord['id'];
    expect(() => operations.cancel(unknown)).toThrow(expect.objectContaining({ class: 'NotFound' }));
  });
});

describe('a daemon that stops', () => {
  test('leaves what runs where it is, and begins nothing more', async () => {
    const operations = engine();
    const { id } = accept(operations);
    const second = accept(operations);
    const { steps, seen } = noting(['a', 'b']);
    const begun = deferred<void>();
    const hanging: Step = {
      name: 'hanging',
      do: ({ signal }) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener('abort', () => reject(new Error('aborted')));
          begun.resolve();
        }),
      undo: () => void seen.push('undo hanging'),
    };
    const running = operations.run(id, [hanging, ...steps]);
    await begun.promise;
    operations.suspend();
    await expect(running).rejects.toMatchObject({ class: 'Unavailable' });
    await expect(operations.run(second.id, steps, { cancellable: false })).rejects.toMatchObject({
      class: 'Unavailable',
    });
    expect(seen).toEqual([]);
    expect(inventory.operations.byId(id)).toMatchObject({ state: 'running' });
    expect(inventory.operations.byId(second.id)).toMatchObject({ state: 'queued' });
  });
});

describe('after a crash', () => {
  test('a new daemon finds what is unfinished and does all its steps again', async () => {
    const before = engine();
    const { id } = accept(before);
    const stuck = deferred<void>();
    const reached = deferred<void>();
    const first = noting(['a', 'b']);
    void before.run(id, [
      ...first.steps,
      {
        name: 'c',
        do: () => {
          reached.resolve();
          return stuck.promise;
        },
      },
    ]);
    await reached.promise;

    const after = engine();
    const [left] = inventory.operations.unfinished();
    if (!left) throw new Error('nothing was left');
    expect(left).toMatchObject({ id, state: 'running' });
    after.admitted(left);
    expect(after.view(left).steps.map(({ name, state }) => [name, state])).toEqual([
      ['a', 'done'],
      ['b', 'done'],
      ['c', 'running'],
    ]);
    const second = noting(['a', 'b', 'c']);
    const ended = await after.run(id, second.steps);
    expect(second.seen).toEqual(['do a', 'do b', 'do c']);
    expect(ended).toMatchObject({ state: 'succeeded', startedAt: left.startedAt });
  });

  test('an undo that was cut short is done again', async () => {
    const before = engine();
    const { id } = accept(before);
    const hold = deferred<void>();
    const reached = deferred<void>();
    const { steps } = noting(['a', 'b'], ['do b']);
    const [first, second] = steps;
    if (!first || !second) throw new Error('no steps');
    void before.run(id, [
      {
        ...first,
        undo: () => {
          reached.resolve();
          return hold.promise;
        },
      },
      second,
    ]);
    await reached.promise;

    const after = engine();
    const [left] = inventory.operations.unfinished();
    if (!left) throw new Error('nothing was left');
    expect(left.state).toBe('undoing');
    after.admitted(left);
    const again = noting(['a', 'b']);
    const ended = await after.undo(id, again.steps, new RoostError('Cancelled', 'it was being undone'));
    expect(again.seen).toEqual(['undo b', 'undo a']);
    expect(ended.state).toBe('cancelled');
  });

  test('sequences go on', () => {
    accept(engine());
    expect(accept(engine()).sequence).toBe(2);
  });
});

describe('an idempotency key', () => {
  test('gives the same operation again, also after a crash', () => {
    const record = accept(engine(), { idempotencyKey: 'k' });
    const after = engine();
    expect(after.repeated('k', 'guest-start', 'web1')?.id).toBe(record.id);
    expect(after.repeated('k', 'guest-start', GUEST)?.id).toBe(record.id);
    expect(after.repeated('other', 'guest-start', 'web1')).toBeUndefined();
    expect(after.repeated(undefined, 'guest-start', 'web1')).toBeUndefined();
  });

  test.each([
    ['another command', 'guest-stop', 'web1'],
    ['another subject', 'guest-start', 'web2'],
  ])('used for %s is refused', (_what, kind, subject) => {
    const operations = engine();
    accept(operations, { idempotencyKey: 'k' });
    expect(() => operations.repeated('k', kind, subject)).toThrow(
      expect.objectContaining({ class: 'InvalidArgument' }),
    );
  });
});

describe('the account of a step', () => {
  test('has what an earlier step had left running and what ended in this one', async () => {
    const operations = engine();
    const { id } = accept(operations);
    const goOn = deferred<void>();
    let leftRunning = Promise.resolve();
    await operations.run(id, [
      {
        name: 'ports',
        do: () => {
          enter({ kind: 'note', text: 'in time' });
          leftRunning = goOn.promise.then(() => enter({ kind: 'tool', argv: ['nft'], ms: 1 }));
        },
      },
      { name: 'launch', do: () => undefined },
      {
        name: 'resume',
        do: async () => {
          goOn.resolve();
          await leftRunning;
        },
      },
    ]);
    expect(inventory.operations.steps(id).map(({ name, account }) => [name, account])).toEqual([
      ['ports', [{ kind: 'note', text: 'in time' }]],
      ['launch', undefined],
      ['resume', [{ kind: 'tool', argv: ['nft'], ms: 1 }]],
    ]);
  });
});

describe('a step with no way back', () => {
  const removal = (isDone: () => boolean): Step => ({
    name: 'remove',
    do: () => {
      throw new RoostError('HostError', 'the last breath failed');
    },
    isDone,
  });

  test('that fails when it is done has not failed, and says what came after', async () => {
    const operations = engine();
    const { steps, seen } = noting(['a', 'b']);
    const { id } = accept(operations);
    const ended = await operations.run(id, [...steps.slice(0, 1), removal(() => true), ...steps.slice(1)]);
    expect(ended).toMatchObject({ state: 'succeeded' });
    expect(seen).toEqual(['do a', 'do b']);
    expect(inventory.operations.steps(id)[1]).toMatchObject({
      state: 'done',
      account: [{ kind: 'note', text: expect.stringContaining('the last breath failed') }],
    });
  });

  test('that fails before is undone as any other', async () => {
    const operations = engine();
    const { steps, seen } = noting(['a']);
    const { id } = accept(operations);
    const ended = await operations.run(id, [...steps, removal(() => false)]);
    expect(ended).toMatchObject({ state: 'failed', error: { desc: 'the last breath failed' } });
    expect(seen).toEqual(['do a', 'undo a']);
  });
});
