import { getEventListeners } from 'node:events';
import { PassThrough } from 'node:stream';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { QmpClient, type QmpConnectOptions } from '../../../../drivers/processes/qmp/qmp-client.ts';
import {
  QmpCommandError,
  QmpConnectError,
  QmpDisconnectedError,
  QmpReplyError,
} from '../../../../drivers/processes/qmp/qmp-errors.ts';
import type { QmpEvent, QmpViolation } from '../../../../drivers/processes/qmp/qmp-types.ts';
import { deferred } from '../../../../lib/abort.ts';
import { FakeQemu, type FakeScript, greeting } from '../../../fake-qemu/fake-qemu.ts';

const patience = new AbortController().signal;
const status = { status: 'running', running: true };

const open: AsyncDisposable[] = [];
afterEach(async () => {
  for (const resource of open.splice(0).toReversed()) await resource[Symbol.asyncDispose]();
});

async function fakeQemu(script: FakeScript): Promise<FakeQemu> {
  const fake = await FakeQemu.listen(script);
  open.push(fake);
  return fake;
}

/** A session with a fake QEMU that follows `script` once it is negotiated. */
async function session(script: FakeScript, options: Partial<QmpConnectOptions> = {}) {
  const events: QmpEvent[] = [];
  const violations: QmpViolation[] = [];
  const fake = await fakeQemu(async (peer) => {
    await peer.negotiate();
    await script(peer);
  });
  const client = await QmpClient.connect(fake.path, {
    signal: patience,
    onEvent: (event) => events.push(event),
    onViolation: (violation) => violations.push(violation),
    ...options,
  });
  open.push(client);
  return { client, events, violations };
}

const queryStatus = (client: QmpClient, signal = patience) => client.execute('query-status', {}, { signal });

/** A promise's outcome, taken hold of at once so that nothing is ever unhandled. */
const outcome = (promise: Promise<unknown>): Promise<unknown> => promise.catch((error: unknown) => error);

describe('a well-behaved QEMU', () => {
  test('greets, negotiates and answers; typed replies lose unknown members', async () => {
    const { client } = await session(async (peer) => {
      peer.reply(await peer.receive(), { ...status, singlestep: false });
    });
    expect(client.greeting.version.qemu).toEqual({ major: 7, minor: 2, micro: 22 });
    expect(await queryStatus(client)).toEqual(status);
    expect(client.pendingCalls()).toEqual([]);
    expect(client.violations).toBe(0);
  });

  test('answers out of order, each call gets its own', async () => {
    const { client } = await session(async (peer) => {
      const [first, second] = [await peer.receive(), await peer.receive()];
      peer.reply(second, { name: 'b' });
      peer.reply(first, status);
    });
    const [a, b] = await Promise.all([
      queryStatus(client),
      client.execute('query-name', {}, { signal: patience }),
    ]);
    expect([a, b]).toEqual([status, { name: 'b' }]);
  });

  test('refuses with class and description; the stack shows the caller', async () => {
    const { client } = await session(async (peer) => {
      peer.refuse(await peer.receive(), 'DeviceNotFound', "Device 'nic0' not found");
    });
    async function unplugTheNic(): Promise<void> {
      await client.execute('device_del', { id: 'nic0' }, { signal: patience });
    }
    const error = await outcome(unplugTheNic());
    expect(error).toBeInstanceOf(QmpCommandError);
    expect(error).toMatchObject({
      class: 'DeviceNotFound',
      desc: "Device 'nic0' not found",
      command: 'device_del',
      arguments: { id: 'nic0' },
    });
    expect((error as Error).stack).toContain('unplugTheNic');
  });

  test('sends events in order; one without data has empty data', async () => {
    const arrived = deferred<void>();
    const events: QmpEvent[] = [];
    await session(
      (peer) => {
        peer.event('STOP');
        peer.send({ event: 'RESUME', timestamp: { seconds: 3, microseconds: 4 } });
      },
      {
        onEvent: (event) => {
          events.push(event);
          if (event.event === 'RESUME') arrived.resolve();
        },
      },
    );
    await arrived.promise;
    expect(events).toEqual([
      { event: 'STOP', data: {}, timestamp: { seconds: 1, microseconds: 2 } },
      { event: 'RESUME', data: {}, timestamp: { seconds: 3, microseconds: 4 } },
    ]);
  });

  test('an event right behind the negotiation is not lost', async () => {
    const fake = await fakeQemu(async (peer) => {
      peer.send(greeting);
      const { id } = await peer.receive();
      const event = { event: 'POWERDOWN', timestamp: { seconds: 0, microseconds: 0 } };
      peer.raw(JSON.stringify({ return: {}, id }) + JSON.stringify(event));
    });
    const event = deferred<QmpEvent>();
    open.push(await QmpClient.connect(fake.path, { signal: patience, onEvent: event.resolve }));
    expect(await event.promise).toMatchObject({ event: 'POWERDOWN' });
  });

  test('shows its traffic', async () => {
    const onTraffic = vi.fn<NonNullable<QmpConnectOptions['onTraffic']>>();
    const { client } = await session(async (peer) => peer.reply(await peer.receive(), status), { onTraffic });
    await queryStatus(client);
    expect(onTraffic.mock.calls.map(([direction]) => direction)).toEqual([
      'received',
      'sent',
      'received',
      'sent',
      'received',
    ]);
    expect(onTraffic).toHaveBeenLastCalledWith(
      'received',
      { return: status, id: 2 },
      JSON.stringify({ return: status, id: 2 }).length,
    );
  });
});

describe('no session', () => {
  const connect = (path: string, signal = patience): Promise<unknown> =>
    outcome(QmpClient.connect(path, { signal, onEvent: () => undefined }));

  test('nobody listens', async () => {
    const error = await connect('/nonexistent/qmp.sock');
    expect(error).toBeInstanceOf(QmpConnectError);
    expect(error).toMatchObject({ phase: 'connect', cause: { code: 'ENOENT' } });
  });

  test('no greeting: the wait ends with the reason of its signal and the line is closed', async () => {
    const connected = deferred<void>();
    const closed = deferred<void>();
    const fake = await fakeQemu(async (peer) => {
      connected.resolve();
      await peer.closed;
      closed.resolve();
    });
    const controller = new AbortController();
    const connecting = connect(fake.path, controller.signal);
    await connected.promise;
    const reason = new Error('five seconds are over');
    controller.abort(reason);
    expect(await connecting).toBe(reason);
    await closed.promise;
    expect(getEventListeners(controller.signal, 'abort')).toEqual([]);
  });

  test('no answer to the negotiation', async () => {
    const asked = deferred<void>();
    const closed = deferred<void>();
    const fake = await fakeQemu(async (peer) => {
      peer.send(greeting);
      await peer.receive();
      asked.resolve();
      await peer.closed;
      closed.resolve();
    });
    const controller = new AbortController();
    const connecting = connect(fake.path, controller.signal);
    await asked.promise;
    controller.abort(new Error('enough'));
    expect(await connecting).toMatchObject({ message: 'enough' });
    await closed.promise;
  });

  test('a signal that aborted before', async () => {
    const fake = await fakeQemu(() => undefined);
    expect(await connect(fake.path, AbortSignal.abort(new Error('before')))).toMatchObject({
      message: 'before',
    });
  });

  test.each<[string, FakeScript, string]>([
    ['hangs up at once', (peer) => peer.hangUp(), 'greeting'],
    ['says something else', (peer) => peer.send({ hello: 'world' }), 'greeting'],
    ['says no JSON', (peer) => peer.raw('220 mail.example.org ESMTP\r\n'), 'greeting'],
    [
      'dies in the middle of its greeting',
      (peer) => {
        peer.raw(JSON.stringify(greeting).slice(0, 20));
        peer.hangUp();
      },
      'greeting',
    ],
    [
      'dies in the negotiation',
      async (peer) => {
        peer.send(greeting);
        await peer.receive();
        peer.hangUp();
      },
      'negotiation',
    ],
    [
      'refuses the negotiation',
      async (peer) => {
        peer.send(greeting);
        peer.refuse(await peer.receive(), 'CommandNotFound', 'no');
      },
      'negotiation',
    ],
  ])('QEMU %s', async (_name, script, phase) => {
    const fake = await fakeQemu(script);
    const error = await connect(fake.path);
    expect(error).toBeInstanceOf(QmpConnectError);
    expect(error).toMatchObject({ phase });
  });
});

describe('calls end exactly once', () => {
  test('QEMU dies in the middle of them', async () => {
    const { client } = await session(async (peer) => {
      await peer.receive();
      const second = await peer.receive();
      peer.raw(JSON.stringify({ return: status, id: second.id }).slice(0, 10));
      peer.hangUp();
    });
    const errors = await Promise.all([outcome(queryStatus(client)), outcome(queryStatus(client))]);
    for (const error of errors) expect(error).toBeInstanceOf(QmpDisconnectedError);
    expect(errors[0]).not.toBe(errors[1]);
    expect(await client.ended).toEqual({ reason: 'eof' });
    expect(client.pendingCalls()).toEqual([]);
  });

  test('the reply that came before the end of the line counts', async () => {
    const { client } = await session(async (peer) => {
      peer.reply(await peer.receive());
      peer.hangUp();
    });
    expect(await client.execute('quit', {}, { signal: patience })).toEqual({});
    expect(await client.ended).toEqual({ reason: 'eof' });
  });

  test('never answered: the call ends with its signal and leaves no listener', async () => {
    const received = deferred<void>();
    const { client } = await session(async (peer) => {
      await peer.receive();
      received.resolve();
    });
    const controller = new AbortController();
    const call = outcome(queryStatus(client, controller.signal));
    await received.promise;
    expect(client.pendingCalls()).toEqual([{ id: 2, command: 'query-status' }]);
    const reason = new Error('given up');
    controller.abort(reason);
    expect(await call).toBe(reason);
    expect(client.pendingCalls()).toEqual([]);
    expect(client.abandonedCalls()).toBe(1);
    expect(getEventListeners(controller.signal, 'abort')).toEqual([]);
  });

  test('answered after it was given up: dropped quietly, later calls unharmed', async () => {
    const received = deferred<void>();
    const { client, violations } = await session(async (peer) => {
      const late = await peer.receive();
      received.resolve();
      const next = await peer.receive();
      peer.reply(late, { status: 'paused', running: false });
      peer.reply(next, status);
    });
    const controller = new AbortController();
    const call = outcome(queryStatus(client, controller.signal));
    await received.promise;
    controller.abort(new Error('given up'));
    expect(await call).toMatchObject({ message: 'given up' });
    expect(await queryStatus(client)).toEqual(status);
    expect(violations).toEqual([]);
    expect(client.abandonedCalls()).toBe(0);
  });

  test('a signal that aborted before: nothing is sent', async () => {
    const onTraffic = vi.fn<NonNullable<QmpConnectOptions['onTraffic']>>();
    const { client } = await session(() => undefined, { onTraffic });
    onTraffic.mockClear();
    const error = await outcome(queryStatus(client, AbortSignal.abort(new Error('before'))));
    expect(error).toMatchObject({ message: 'before' });
    expect(onTraffic).not.toHaveBeenCalled();
  });

  test('an argument that JSON cannot hold fails that call only', async () => {
    const { client } = await session(async (peer) => peer.reply(await peer.receive(), status));
    const bad = { driver: 'null-co', 'node-name': 'n', size: 1n };
    expect(await outcome(client.execute('blockdev-add', bad, { signal: patience }))).toBeInstanceOf(
      TypeError,
    );
    expect(client.pendingCalls()).toEqual([]);
    expect(await queryStatus(client)).toEqual(status);
  });

  test('closed on our side, more than once; later calls are told', async () => {
    const { client } = await session(() => undefined);
    const call = outcome(queryStatus(client));
    await Promise.all([client.close(), client.close()]);
    await client.close();
    expect(await call).toMatchObject({ name: 'QmpDisconnectedError', end: { reason: 'closed' } });
    expect(await outcome(queryStatus(client))).toBeInstanceOf(QmpDisconnectedError);
    expect(await client.ended).toEqual({ reason: 'closed' });
  });

  test('a failing socket is told apart from a hang-up', async () => {
    const stream = new PassThrough();
    const negotiating = outcome(
      QmpClient.negotiate(stream, 'a broken pipe', { signal: patience, onEvent: () => undefined }),
    );
    stream.destroy(new Error('EIO'));
    expect(await negotiating).toMatchObject({ phase: 'greeting', cause: { message: 'EIO' } });
  });
});

describe('a QEMU that breaks the rules', () => {
  test.each<[string, unknown, string]>([
    ['a reply to an id nobody used', { return: {}, id: 4711 }, 'unknown-id'],
    ['a reply to an id of another kind', { return: {}, id: { a: 1 } }, 'unknown-id'],
    ['a second reply to a call', { return: {}, id: 1 }, 'unknown-id'],
    ['an error reply to nobody', { error: { class: 'X', desc: 'x' }, id: 99 }, 'unknown-id'],
    ['a reply without an id', { return: {} }, 'reply-without-id'],
    ['an error without an id', { error: { class: 'GenericError', desc: 'parse' } }, 'error-without-id'],
    ['an event without a time', { event: 'STOP' }, 'bad-event'],
    ['a second greeting', greeting, 'unknown-message'],
    ['no object at all', [1, 2, 3], 'unknown-message'],
    ['null', null, 'unknown-message'],
  ])('%s is reported and changes nothing', async (_name, message, kind) => {
    const { client, events, violations } = await session(async (peer) => {
      const command = await peer.receive();
      peer.send(message);
      peer.reply(command, status);
    });
    expect(await queryStatus(client)).toEqual(status);
    expect(violations).toMatchObject([{ kind, value: message }]);
    expect(client.violations).toBe(1);
    expect(events).toEqual([]);
  });

  test('a reply of the wrong shape fails its call alone', async () => {
    const { client } = await session(async (peer) => {
      peer.reply(await peer.receive(), { status: 7 });
      peer.send({ id: (await peer.receive()).id, error: 'no object' });
      peer.reply(await peer.receive(), status);
    });
    expect(await outcome(queryStatus(client))).toBeInstanceOf(QmpReplyError);
    expect(await outcome(queryStatus(client))).toBeInstanceOf(QmpReplyError);
    expect(await queryStatus(client)).toEqual(status);
  });

  test('bytes that are no JSON end the session', async () => {
    const { client } = await session(async (peer) => {
      await peer.receive();
      peer.raw('{"return": {bad}}\r\n');
    });
    expect(await outcome(queryStatus(client))).toMatchObject({ end: { reason: 'protocol-error' } });
    expect(await client.ended).toMatchObject({ reason: 'protocol-error' });
  });

  test('a reply of 10 MiB arrives, one over the limit ends the session', async () => {
    const names = [{ name: 'x'.repeat(10 * 1024 * 1024) }];
    const script: FakeScript = async (peer) => peer.reply(await peer.receive(), names);
    const { client } = await session(script);
    expect(await client.execute('query-commands', {}, { signal: patience })).toEqual(names);
    const { client: narrow } = await session(script, { maxMessageBytes: 10 * 1024 * 1024 });
    const error = await outcome(narrow.execute('query-commands', {}, { signal: patience }));
    expect(error).toMatchObject({ end: { reason: 'protocol-error' } });
  });

  test('a message cut anywhere arrives whole', async () => {
    const { client } = await session(async (peer) => {
      const { id } = await peer.receive();
      for (const byte of Buffer.from(JSON.stringify({ return: { name: 'Jürgen' }, id }))) {
        peer.raw(Buffer.of(byte));
      }
    });
    expect(await client.execute('query-name', {}, { signal: patience })).toEqual({ name: 'Jürgen' });
  });

  test('a flood of events is read through, in order', async () => {
    const { client, events } = await session(async (peer) => {
      const command = await peer.receive();
      for (let number = 0; number < 20_000; number += 1) peer.event('RTC_CHANGE', { offset: number });
      peer.reply(command, status);
    });
    expect(await queryStatus(client)).toEqual(status);
    expect(events.map((event) => event.data['offset'])).toEqual(Array.from({ length: 20_000 }, (_, i) => i));
  });

  test('a flood of events leaves turns to others, and what came before a hang-up counts', async () => {
    let turns = 0;
    const count = (): void => {
      turns += 1;
      if (turns < 10) setImmediate(count);
    };
    const heard: unknown[] = [];
    const { client } = await session(
      async (peer) => {
        const command = await peer.receive();
        const flood = Array.from({ length: 500 }, (_, offset) =>
          JSON.stringify({
            event: 'RTC_CHANGE',
            data: { offset },
            timestamp: { seconds: 1, microseconds: 0 },
          }),
        );
        peer.raw(flood.join('\n'));
        peer.reply(command, status);
        peer.destroy();
      },
      {
        onEvent: ({ data }) => {
          if (heard.length === 0) setImmediate(count);
          heard.push(data['offset']);
          // As long as it takes for a few of them to use up a turn.
          const since = performance.now();
          while (performance.now() - since < 0.1);
        },
      },
    );
    expect(await queryStatus(client)).toEqual(status);
    expect(heard).toEqual(Array.from({ length: 500 }, (_, offset) => offset));
    expect(turns).toBeGreaterThan(3);
  });

  test('a listener that throws is reported and harms no one', async () => {
    const violations: QmpViolation[] = [];
    const { client } = await session(
      async (peer) => {
        const command = await peer.receive();
        peer.event('STOP');
        peer.reply(command, status);
      },
      {
        onEvent: () => {
          throw new Error('our own mistake');
        },
        onViolation: (violation) => violations.push(violation),
      },
    );
    expect(await queryStatus(client)).toEqual(status);
    expect(violations).toMatchObject([{ kind: 'listener-threw', error: { message: 'our own mistake' } }]);
  });
});
