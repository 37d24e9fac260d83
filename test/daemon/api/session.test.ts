import { PassThrough } from 'node:stream';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Call } from '../../../daemon/api/call.ts';
import type { Dispatch } from '../../../daemon/api/dispatch.ts';
import { Session } from '../../../daemon/api/session.ts';
import { EventLog } from '../../../daemon/event-log.ts';
import { type Inventory, openInventory } from '../../../daemon/inventory/inventory.ts';
import { deferred } from '../../../lib/abort.ts';
import { silentLog } from '../../../lib/log.ts';
import { RoostError } from '../../../protocol/errors.ts';
import { type EventName, eventNames } from '../../../protocol/events.ts';
import type { Request } from '../../../protocol/wire.ts';
import { ManualClock } from '../manual-clock.ts';
import { GUEST } from '../records.ts';
import { FakeCarrier } from './fake-carrier.ts';

const MIB = 1024 * 1024;
let inventory: Inventory;
let events: EventLog;
let carrier: FakeCarrier;
let stop: AbortController;
let open: Session[];

beforeEach(() => {
  inventory = openInventory(':memory:');
  events = new EventLog(inventory.db, inventory.events, new ManualClock());
  carrier = new FakeCarrier();
  stop = new AbortController();
  open = [];
});
afterEach(() => {
  for (const session of open) session.closed();
  inventory.db.close();
});

type Commands = Readonly<Record<string, (args: Request['arguments'], call: Call) => unknown>>;

/** A session over commands of a few lines. */
const connect = (commands: Commands = {}, isTurnOver = (): boolean => false): Session => {
  const known: Commands = {
    qmp_capabilities: (_args, { session }) => {
      session.negotiate();
      return {};
    },
    subscribe: (args, { session }) => {
      session.subscribe(
        { names: new Set((args['events'] as EventName[] | undefined) ?? eventNames) },
        args['since'] as number | undefined,
      );
      return { lastSequence: events.lastSequence };
    },
    echo: (args) => args,
    refuse: () => {
      throw new RoostError('NotFound', 'no such thing', { hint: 'look elsewhere' });
    },
    ...commands,
  };
  const dispatch: Dispatch = {
    mayWait: (name) => name.startsWith('wait'),
    call: (request, call) => {
      const command = known[request.execute];
      if (!command) throw new RoostError('CommandNotFound', `no ${request.execute}`);
      return command(request.arguments, call);
    },
  };
  const session: Session = new Session({
    carrier,
    asker: { actor: 'unix:uid=0,pid=1', role: 'admin' },
    dispatch,
    events,
    log: silentLog(),
    signal: stop.signal,
    isTurnOver,
  });
  open.push(session);
  return session;
};

const negotiated = (commands?: Commands): Session => {
  const session = connect(commands);
  session.receive({ execute: 'qmp_capabilities' });
  carrier.sent.splice(0);
  return session;
};

const emit = (name: string): void =>
  events.emit({ event: 'GUEST_CREATED', data: { guest: GUEST, name, actor: 'daemon' } });
const emitOther = (): void =>
  events.emit({
    event: 'OPERATION_CHANGED',
    data: {
      operation: GUEST as never,
      kind: 'guest-start',
      subject: 'web1',
      state: 'queued',
    },
  });
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const sequences = (): (number | undefined)[] => carrier.events.map(({ sequence }) => sequence);

describe('a new connection', () => {
  test('is greeted before anything else', () => {
    connect();
    expect(carrier.sent).toEqual([{ QMP: expect.any(Object) }]);
  });

  test('must negotiate first; nothing else is done before', () => {
    let called = 0;
    const session = connect({ count: () => (called += 1) });
    session.receive({ execute: 'count', id: 1 });
    expect(carrier.replies).toEqual([
      { error: expect.objectContaining({ class: 'CommandNotFound' }), id: 1 },
    ]);
    expect(called).toBe(0);
    session.receive({ execute: 'qmp_capabilities' });
    session.receive({ execute: 'count' });
    expect(carrier.replies.slice(1)).toEqual([{ return: {} }, { return: 1 }]);
  });

  test('negotiates once', () => {
    const session = negotiated();
    session.receive({ execute: 'qmp_capabilities', id: 2 });
    expect(carrier.replies).toEqual([
      { error: expect.objectContaining({ class: 'CommandNotFound' }), id: 2 },
    ]);
  });

  test('gets no event before it has negotiated, and none of the time before', () => {
    const session = connect();
    emit('early');
    session.receive({ execute: 'qmp_capabilities' });
    emit('late');
    expect(carrier.events.map(({ data }) => data?.['name'])).toEqual(['late']);
  });
});

describe('requests', () => {
  const ids = [0, '', null, false, 'x', [1, [2]], { a: { b: null } }, 1.5].map((id) => ({ id }));
  test.each(ids)('echo any id: $id', ({ id }) => {
    const session = negotiated();
    session.receive({ execute: 'echo', arguments: { a: 1 }, id });
    session.receive({ execute: 'refuse', id });
    expect(carrier.replies).toEqual([
      { return: { a: 1 }, id },
      { error: { class: 'NotFound', desc: 'no such thing', hint: 'look elsewhere' }, id },
    ]);
  });

  test('that are wrong get an error, in their place among the others', async () => {
    const gate = deferred<unknown>();
    const session = negotiated({ slow: () => gate.promise });
    session.receive({ execute: 'slow' });
    session.receive({ nonsense: true, id: 7 });
    session.receiveGarbage('unexpected byte');
    session.receive({ execute: 'echo' });
    expect(carrier.replies).toEqual([]);
    gate.resolve('done');
    await carrier.find((message) => JSON.stringify(message) === '{"return":{}}');
    expect(carrier.replies).toEqual([
      { return: 'done' },
      { error: expect.objectContaining({ class: 'InvalidArgument' }), id: 7 },
      {
        error: expect.objectContaining({
          class: 'InvalidArgument',
          desc: 'Not a JSON value: unexpected byte',
        }),
      },
      { return: {} },
    ]);
  });

  test('are answered in the order they came, however long each takes', async () => {
    const gates = [0, 1, 2].map(() => deferred<unknown>());
    const session = negotiated({ slow: ({ n }) => gates[Number(n)]?.promise });
    for (const n of [0, 1, 2]) session.receive({ execute: 'slow', arguments: { n }, id: n });
    session.receive({ execute: 'echo', id: 3 });
    for (const n of [2, 1, 0]) gates[n]?.resolve(n);
    await carrier.find(({ id }) => id === 3);
    expect(carrier.replies.map(({ id }) => id)).toEqual([0, 1, 2, 3]);
  });

  test('a wait with an id holds up nobody; one without is waited for', async () => {
    const gate = deferred<unknown>();
    const session = negotiated({ wait: () => gate.promise });
    session.receive({ execute: 'wait', id: 'w' });
    session.receive({ execute: 'echo', id: 1 });
    expect(carrier.replies.map(({ id }) => id)).toEqual([1]);
    session.receive({ execute: 'wait' });
    session.receive({ execute: 'echo', id: 2 });
    expect(carrier.replies.map(({ id }) => id)).toEqual([1]);
    gate.resolve('over');
    await carrier.find(({ id }) => id === 2);
    expect(carrier.replies.map(({ id }) => id)).toEqual([1, 'w', undefined, 2]);
  });

  test('one that fails unexpectedly is Internal, and the next is served', async () => {
    const session = negotiated({
      broken: () => {
        throw new TypeError('x is undefined');
      },
      brokenLater: () => Promise.reject(new TypeError('y is undefined')),
    });
    session.receive({ execute: 'broken' });
    session.receive({ execute: 'brokenLater' });
    session.receive({ execute: 'echo', id: 1 });
    await carrier.find(({ id }) => id === 1);
    expect(carrier.replies.map((reply) => reply.error?.class)).toEqual(['Internal', 'Internal', undefined]);
  });

  test('are told when the connection closes and when the daemon stops', () => {
    const signals: AbortSignal[] = [];
    const commands: Commands = {
      wait: (_args, call) => {
        signals.push(call.signal);
        return new Promise(() => undefined);
      },
    };
    const closing = negotiated(commands);
    closing.receive({ execute: 'wait', id: 1 });
    const staying = negotiated(commands);
    staying.receive({ execute: 'wait', id: 1 });
    closing.closed();
    expect(signals.map(({ aborted }) => aborted)).toEqual([true, false]);
    stop.abort(new Error('stopping'));
    expect(signals.map(({ aborted }) => aborted)).toEqual([true, true]);
  });

  test('of a closed connection are not begun', async () => {
    const gate = deferred<void>();
    let called = 0;
    const session = negotiated({ slow: () => gate.promise, count: () => (called += 1) });
    session.receive({ execute: 'slow' });
    session.receive({ execute: 'count' });
    session.closed();
    gate.resolve();
    await turn();
    expect(called).toBe(0);
  });
});

describe('a client that sends faster than it is served', () => {
  test('is held back, and goes on when its requests are done', async () => {
    const gate = deferred<unknown>();
    const session = negotiated({ slow: () => gate.promise });
    session.receive({ execute: 'slow' });
    for (let n = 0; n < 300; n += 1) session.receive({ execute: 'echo', id: n });
    expect(carrier.paused).toBe(true);
    gate.resolve('done');
    await carrier.find(({ id }) => id === 299);
    expect(carrier.paused).toBe(false);
    expect(carrier.replies.slice(1).map(({ id }) => id)).toEqual(Array.from({ length: 300 }, (_, n) => n));
  });
});

describe('a turn of the event loop that is used up', () => {
  test('leaves what comes to the next ones, and nothing is lost or served twice', async () => {
    let isOver = false;
    const session = connect({}, () => isOver);
    session.receive({ execute: 'qmp_capabilities' });
    carrier.sent.splice(0);
    isOver = true;
    for (const id of [1, 2, 3]) session.receive({ execute: 'echo', arguments: {}, id });
    expect(carrier.replies).toEqual([]);
    await turn();
    expect(carrier.replies).toEqual([{ return: {}, id: 1 }]);
    session.receive({ execute: 'echo', arguments: {}, id: 4 });
    await carrier.find(({ id }) => id === 4);
    expect(carrier.replies.map(({ id }) => id)).toEqual([1, 2, 3, 4]);
  });

  test('is asked for by a client that reads again, too', async () => {
    let isOver = false;
    const session = connect({}, () => isOver);
    session.receive({ execute: 'qmp_capabilities' });
    carrier.sent.splice(0);
    carrier.bufferedBytes = 2 * MIB;
    session.receive({ execute: 'echo', arguments: {}, id: 1 });
    carrier.bufferedBytes = 0;
    isOver = true;
    session.drained();
    expect(carrier.replies).toEqual([]);
    await turn();
    expect(carrier.replies).toEqual([{ return: {}, id: 1 }]);
  });
});

describe('a client that does not read its replies', () => {
  test('is not served until it does, and misses nothing then', async () => {
    let called = 0;
    const served = deferred<void>();
    const session = negotiated({
      large: () => {
        called += 1;
        if (called === 10) served.resolve();
        return 'x'.repeat(MIB / 2);
      },
    });
    carrier.reads = false;
    for (let n = 0; n < 10; n += 1) session.receive({ execute: 'large', id: n });
    expect(called).toBe(2);
    expect(carrier.paused).toBe(true);
    carrier.bufferedBytes = 0;
    carrier.reads = true;
    session.drained();
    // It is served in several turns.
    await served.promise;
    expect(carrier.paused).toBe(false);
    expect(carrier.replies.map(({ id }) => id)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });
});

describe('events', () => {
  test('without a subscription are the lifecycle of guests', () => {
    negotiated();
    emit('web1');
    emitOther();
    expect(carrier.events).toEqual([
      {
        event: 'GUEST_CREATED',
        data: { guest: GUEST, name: 'web1', actor: 'daemon' },
        timestamp: { seconds: 1_800_000_000, microseconds: 0 },
        sequence: 1,
      },
    ]);
  });

  test('are those subscribed to, from then on', () => {
    const session = negotiated();
    emit('before');
    session.receive({ execute: 'subscribe', arguments: { events: ['OPERATION_CHANGED'] } });
    emit('not wanted');
    emitOther();
    expect(sequences()).toEqual([1, 3]);
    session.receive({ execute: 'subscribe', arguments: { events: [] } });
    emitOther();
    expect(sequences()).toEqual([1, 3]);
  });

  test('missed before are replayed after the reply, then go on without a gap or a repetition', async () => {
    for (let n = 0; n < 1200; n += 1) emit(`g${n}`);
    const session = negotiated();
    session.receive({ execute: 'subscribe', arguments: { since: 100 }, id: 's' });
    emit('between');
    expect(carrier.sent).toEqual([{ return: { lastSequence: 1200 }, id: 's' }]);
    await carrier.find(({ sequence }) => sequence === 1201);
    emit('after');
    expect(sequences()).toEqual(Array.from({ length: 1102 }, (_, n) => 101 + n));
  });

  test('that are seldom among the others are found, however far behind', async () => {
    for (let n = 0; n < 5000; n += 1) emit(`g${n}`);
    emitOther();
    const session = negotiated();
    session.receive({
      execute: 'subscribe',
      arguments: { since: 0, events: ['OPERATION_CHANGED'] },
    });
    await carrier.find(({ sequence }) => sequence === 5001);
    emitOther();
    expect(sequences()).toEqual([5001, 5002]);
  });

  test('since a sequence of the future begin now', async () => {
    const session = negotiated();
    session.receive({ execute: 'subscribe', arguments: { since: 999 } });
    await turn();
    emit('web1');
    expect(sequences()).toEqual([1]);
  });

  test('no longer kept are reported as lost, and the rest follows', async () => {
    for (let n = 0; n < 10; n += 1) emit(`g${n}`);
    inventory.db.sqlite.exec('DELETE FROM event WHERE sequence <= 6');
    const session = negotiated();
    session.receive({ execute: 'subscribe', arguments: { since: 2 } });
    await carrier.find(({ sequence }) => sequence === 10);
    expect(carrier.events[0]).toMatchObject({ event: 'EVENTS_LOST', data: { from: 3, to: 6 } });
    expect(sequences()).toEqual([6, 7, 8, 9, 10]);
  });

  test('wait in the log for a slow reader, and reach it without a gap', async () => {
    const session = negotiated();
    emit('g1');
    carrier.bufferedBytes = 2 * MIB;
    for (let n = 2; n <= 1500; n += 1) emit(`g${n}`);
    expect(sequences()).toEqual([1]);
    carrier.bufferedBytes = 0;
    session.drained();
    emit('g1501');
    await carrier.find(({ sequence }) => sequence === 1501);
    expect(sequences()).toEqual(Array.from({ length: 1501 }, (_, n) => n + 1));
  });

  test('that a slow reader missed for good are reported as lost', async () => {
    const session = negotiated();
    emit('g1');
    carrier.bufferedBytes = 2 * MIB;
    for (let n = 2; n <= 9; n += 1) emit(`g${n}`);
    inventory.db.sqlite.exec('DELETE FROM event WHERE sequence <= 5');
    carrier.bufferedBytes = 0;
    session.drained();
    await carrier.find(({ sequence }) => sequence === 9);
    expect(carrier.events[1]).toMatchObject({ event: 'EVENTS_LOST', data: { from: 2, to: 5 } });
    expect(sequences()).toEqual([1, 5, 6, 7, 8, 9]);
  });

  test('of a long replay stop while the client does not read, and go on afterwards', async () => {
    for (let n = 0; n < 3000; n += 1) emit('a'.repeat(60));
    const session = negotiated();
    carrier.reads = false;
    carrier.bufferedBytes = MIB;
    session.receive({ execute: 'subscribe', arguments: { since: 0 } });
    await carrier.find(({ sequence }) => sequence === 100);
    expect(carrier.events).toHaveLength(100);
    carrier.reads = true;
    carrier.bufferedBytes = 0;
    session.drained();
    await carrier.find(({ sequence }) => sequence === 3000);
    expect(sequences()).toEqual(Array.from({ length: 3000 }, (_, n) => n + 1));
  });

  test('of a replay come a page in a turn, also where each message says that it was sent', async () => {
    for (let n = 0; n < 1000; n += 1) emit(`g${n}`);
    const session = negotiated();
    const pages: number[] = [];
    const count = (): void => {
      pages.push(carrier.events.length - pages.reduce((sum, page) => sum + page, 0));
      if (carrier.events.length < 1000) setImmediate(count);
    };
    carrier.afterSend = () => session.drained();
    session.receive({ execute: 'subscribe', arguments: { since: 0 } });
    setImmediate(count);
    await carrier.find(({ sequence }) => sequence === 1000);
    await turn();
    expect(sequences()).toEqual(Array.from({ length: 1000 }, (_, n) => n + 1));
    expect(Math.max(...pages)).toBe(100);
  });

  test('do not reach a closed connection', () => {
    negotiated().closed();
    emit('web1');
    expect(carrier.events).toEqual([]);
  });
});

describe('a connection that becomes a stream', () => {
  test('answers first, then carries bytes and no more JSON', async () => {
    const stream = new PassThrough();
    const session = negotiated({
      console: async (_args, call) => {
        call.session.becomeStream(stream);
        return { guest: 'web1' };
      },
    });
    session.receive({ execute: 'console', id: 1 });
    await carrier.find(({ id }) => id === 1);
    await turn();
    expect(carrier.streamed).toBe(stream);
    emit('web1');
    session.receive({ execute: 'echo', id: 2 });
    expect(carrier.sent).toEqual([{ return: { guest: 'web1' }, id: 1 }]);
  });
});
