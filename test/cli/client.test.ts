import { setImmediate as turn } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Client, connect } from '../../cli/client.ts';
import { FakeDaemon, NO_REPLY } from './fake-daemon.ts';

const signal = new AbortController().signal;
let daemon: FakeDaemon;
let client: Client;
beforeEach(async () => {
  daemon = await FakeDaemon.start({ 'query-guest': ({ guest }) => ({ name: guest }) });
  client = await connect({ socketPath: daemon.socketPath, signal });
});
afterEach(async () => {
  client.close();
  await daemon[Symbol.asyncDispose]();
});

describe('calls', () => {
  it('are answered each by its own reply, many at a time', async () => {
    const names = Array.from({ length: 50 }, (_, index) => `g${index}`);
    const replies = await Promise.all(names.map((guest) => client.call('query-guest', { guest })));
    expect(replies.map(({ name }) => name)).toEqual(names);
  });

  it('end with the reason of their signal, and the connection goes on', async () => {
    daemon.handle('operation-wait', () => NO_REPLY);
    const controller = new AbortController();
    const reason = new Error('enough');
    const call = client.callAny(
      'operation-wait',
      { operation: '01890a5d-ac96-774b-bcce-b302099a8057' },
      { signal: controller.signal },
    );
    controller.abort(reason);
    await expect(call).rejects.toBe(reason);
    expect(await client.call('query-guest', { guest: 'a' })).toEqual({ name: 'a' });
  });

  it('all fail when the connection is lost, and so does every later one', async () => {
    daemon.handle('query-guest', (_, peer) => {
      peer.socket.destroy();
      return NO_REPLY;
    });
    const calls = [client.call('query-guest', { guest: 'a' }), client.call('query-guest', { guest: 'b' })];
    const ended = await Promise.allSettled(calls);
    expect(ended.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    await expect(client.call('query-guest', { guest: 'c' })).rejects.toMatchObject({ exitCode: 4 });
  });
});

describe('events', () => {
  it('are those since the stream was opened, in order', async () => {
    daemon.handle('events-subscribe', (_, peer) => {
      for (let sequence = 1; sequence <= 3; sequence += 1) peer.emit('GUEST_CREATED', {}, sequence);
      return { lastSequence: 3 };
    });
    await client.call('events-subscribe', {});
    const stream = client.events();
    await client.call('events-subscribe', {});
    stream.close();
    const seen: number[] = [];
    for await (const event of stream) seen.push(event.sequence);
    expect(seen).toEqual([1, 2, 3]);
  });

  it('end with the failure when the connection is lost', async () => {
    const stream = client.events();
    daemon.handle('query-guest', (_, peer) => {
      peer.emit('GUEST_CREATED', {}, 1);
      peer.socket.end();
      return NO_REPLY;
    });
    client.call('query-guest', { guest: 'a' }).catch(() => undefined);
    const seen: number[] = [];
    const read = async (): Promise<void> => {
      for await (const event of stream) seen.push(event.sequence);
    };
    await expect(read()).rejects.toMatchObject({ exitCode: 4 });
    expect(seen).toEqual([1]);
  });
});

describe('the console', () => {
  const event =
    '{"event":"GUEST_CREATED","data":{},"timestamp":{"seconds":1,"microseconds":0},"sequence":1}\n';
  const cuts: Readonly<Record<string, (reply: string) => readonly string[]>> = {
    'in the chunk of the reply': (reply) => [`${reply}\n{"a": hello`],
    'in a chunk of their own': (reply) => [reply, '\n{"a": hello'],
    'after a newline that comes late': (reply) => [reply.slice(0, -1), '\n', '\n{"a": hello'],
    'with the late newline': (reply) => [reply.slice(0, -1), '\n\n{"a": hello'],
    'after a reply in pieces': (reply) => [
      reply.slice(0, 5),
      reply.slice(5, 9),
      `${reply.slice(9)}\n{"a": hello`,
    ],
    'after an event': (reply) => [`${event}${reply}\n{"a": hello`],
  };

  it.each(Object.keys(cuts))('gets all its bytes: %s', async (name) => {
    const received: Buffer[] = [];
    daemon.handle('guest-console', (_, peer) => {
      peer.becomeConsole(cuts[name] ?? ((reply) => [reply]), (chunk) => {
        received.push(chunk);
        peer.socket.end('bye');
      });
      return NO_REPLY;
    });
    const socket = await client.attach('guest-console', { guest: 'web1', framed: true });
    await turn();
    socket.write('typed');
    let output = '';
    for await (const chunk of socket) output += String(chunk);
    expect(output).toBe('\n{"a": hellobye');
    expect(Buffer.concat(received).toString()).toBe('typed');
  });
});
