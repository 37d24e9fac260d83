import { once } from 'node:events';
import { connect as connectSocket, type Socket } from 'node:net';
import { describe, expect, onTestFinished, test } from 'vitest';
import { WebSocket } from 'ws';
import { deferred } from '../../../lib/abort.ts';
import { ChannelFrameReader, encodeChannelFrame } from '../../../lib/channel-frames.ts';
import { MAX_SESSION_PAYLOAD_BYTES, sessionChannels } from '../../../protocol/byte-session.ts';
import { aGuest, type FakeDaemon, fakeHouse } from '../fake-house.ts';
import type { Message } from './fake-carrier.ts';

class WebClient {
  readonly received: Message[] = [];
  readonly socket: WebSocket;
  #wake: (() => void)[] = [];

  constructor(socket: WebSocket) {
    this.socket = socket;
    socket.on('message', (data: Buffer) => {
      this.received.push(JSON.parse(data.toString()) as Message);
      for (const wake of this.#wake.splice(0)) wake();
    });
  }

  async find(fits: (message: Message) => boolean): Promise<Message> {
    for (let at = 0; ; at += 1) {
      while (at >= this.received.length) await new Promise<void>((resolve) => this.#wake.push(resolve));
      const message = this.received[at];
      if (message && fits(message)) return message;
    }
  }

  async call(execute: string, args: object = {}): Promise<Message> {
    const id = `${execute} ${this.received.length}`;
    this.socket.send(JSON.stringify({ execute, arguments: args, id }));
    return await this.find((message) => message.id === id);
  }
}

const begin = async (): Promise<FakeDaemon> => (await fakeHouse()).start({ webSocketPort: 0 });

/** The status with which the upgrade is refused, or 101. */
const knock = async (
  daemon: FakeDaemon,
  path: string,
  headers: Record<string, string> = {},
): Promise<number> => {
  const socket = new WebSocket(`ws://127.0.0.1:${daemon.daemon.webSocketPort}${path}`, { headers });
  socket.on('error', () => undefined);
  onTestFinished(() => socket.terminate());
  return await new Promise((resolve) => {
    socket.on('open', () => resolve(101));
    socket.on('unexpected-response', (_request, response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
  });
};

const connect = async (daemon: FakeDaemon, role: 'read' | 'operate' | 'admin'): Promise<WebClient> => {
  const { token } = await daemon.client.call('token-create', { name: `${role}er`, role });
  const socket = new WebSocket(`ws://127.0.0.1:${daemon.daemon.webSocketPort}/v1`, {
    headers: { authorization: `Bearer ${token}` },
  });
  const client = new WebClient(socket);
  onTestFinished(async () => {
    if (socket.readyState === socket.CLOSED) return;
    socket.terminate();
    await once(socket, 'close');
  });
  await client.find(({ QMP }) => QMP !== undefined);
  await client.call('qmp_capabilities');
  return client;
};

/** A connection that has become the console of web1; what it hears are frames, in words. */
const connectRaw = async (
  daemon: FakeDaemon,
): Promise<{ readonly socket: WebSocket; readonly heard: (frame: string) => Promise<void> }> => {
  const { socket } = await connect(daemon, 'operate');
  const frames = new ChannelFrameReader(MAX_SESSION_PAYLOAD_BYTES);
  const told: string[] = [];
  let wake = deferred<void>();
  socket.removeAllListeners('message').on('message', (data: Buffer, isBinary: boolean) => {
    if (isBinary)
      for (const { channel, payload } of frames.push(data)) told.push(`${channel} ${payload.toString()}`);
    else told.push(data.toString());
    wake.resolve();
  });
  const heard = async (frame: string): Promise<void> => {
    while (!told.includes(frame)) {
      await wake.promise;
      wake = deferred<void>();
    }
  };
  const args = { guest: 'web1', framed: true };
  socket.send(JSON.stringify({ execute: 'guest-console', arguments: args, id: 1 }));
  await heard('{"return":{"guest":"web1"},"id":1}');
  return { socket, heard };
};

describe('the WebSocket', () => {
  test('is off unless it is asked for', async () => {
    expect((await (await fakeHouse()).start()).daemon.webSocketPort).toBeUndefined();
  });

  test('lets nobody in without a token that is known', async () => {
    const daemon = await begin();
    const { token } = await daemon.client.call('token-create', { name: 'ci' });
    expect(await knock(daemon, '/v1')).toBe(401);
    expect(await knock(daemon, '/v1', { authorization: 'Bearer roost_guess' })).toBe(401);
    expect(await knock(daemon, '/v1?token=roost_guess')).toBe(401);
    expect(await knock(daemon, '/else', { authorization: `Bearer ${token}` })).toBe(404);
    expect(await knock(daemon, `/v1?token=${token}`)).toBe(101);
    expect(await knock(daemon, '/v1', { authorization: `Bearer ${token}` })).toBe(101);
  });

  test('serves the same values, and the actor is the token', async () => {
    const daemon = await begin();
    const client = await connect(daemon, 'operate');
    const { name: _name, ...rest } = aGuest('web1');
    const created = (await client.call('guest-create', { name: 'web1', ...rest })).return as {
      operation: string;
    };
    expect((await client.call('operation-wait', { operation: created.operation })).return).toMatchObject({
      state: 'succeeded',
      actor: 'token:operateer',
    });
    await client.find(({ event }) => event === 'GUEST_CREATED');
  });

  test('carries a console as a session of bytes, one frame after the other, and closes behind its end', async () => {
    const daemon = await begin();
    await daemon.client.done('guest-create', aGuest('web1'));
    await daemon.client.done('guest-start', { guest: 'web1' });
    // A client of before there were frames would show them as they are.
    const older = await connect(daemon, 'admin');
    expect((await older.call('guest-console', { guest: 'web1' })).error).toMatchObject({
      class: 'InvalidArgument',
      desc: expect.stringContaining('older than this roostd'),
    });
    const { socket, ...client } = await connectRaw(daemon);
    socket.send(encodeChannelFrame(sessionChannels.stdin, Buffer.from('typed')));
    await client.heard('1 typed');
    await daemon.client.done('guest-stop', { guest: 'web1', force: true });
    const closed = once(socket, 'close');
    await client.heard('3 {"closed":"guest-ended"}');
    expect((await closed)[0]).toBe(1005);
  });

  test('holds each token to its role', async () => {
    const daemon = await begin();
    const reader = await connect(daemon, 'read');
    expect((await reader.call('query-guests')).return).toMatchObject({ total: 0 });
    expect((await reader.call('guest-create', aGuest('web1'))).error?.class).toBe('PermissionDenied');
    const operator = await connect(daemon, 'operate');
    expect((await operator.call('token-create', { name: 'mine', role: 'admin' })).error?.class).toBe(
      'PermissionDenied',
    );
    const tainted = aGuest('web1', { qemu: { extraArgs: [{ argument: '-x', reason: 'y' }] } });
    expect((await operator.call('guest-create', tainted)).error?.class).toBe('PermissionDenied');
    const shared = aGuest('web1', { filesystems: [{ source: '/no/such', target: '/data' }] });
    expect((await operator.call('guest-create', shared)).error).toMatchObject({
      class: 'PermissionDenied',
      desc: 'Directories of the host are given to guests by administrators only',
    });
    expect((await daemon.client.call('query-guests', {})).total).toBe(0);
  });

  test('closes the connections of a token that is revoked, and keeps only hashes', async () => {
    const daemon = await begin();
    const client = await connect(daemon, 'read');
    const { tokens } = await daemon.client.call('query-tokens', {});
    expect(tokens).toEqual([
      { name: 'reader', role: 'read', createdAt: expect.any(Number), lastUsedAt: expect.any(Number) },
    ]);
    const closed = once(client.socket, 'close');
    await daemon.client.call('token-revoke', { name: 'reader' });
    expect((await closed)[0]).toBe(1008);
    await expect(daemon.client.call('token-revoke', { name: 'reader' })).rejects.toMatchObject({
      class: 'NotFound',
    });
  });

  /** A client that need not even have a token. */
  const intrude = async (daemon: FakeDaemon, text: string): Promise<Socket> => {
    const socket = connectSocket(daemon.daemon.webSocketPort ?? 0, '127.0.0.1');
    onTestFinished(() => void socket.destroy());
    socket.on('error', () => undefined);
    await once(socket, 'connect');
    socket.write(text);
    return socket;
  };
  const upgradeOf = (target: string): string =>
    [
      `GET ${target} HTTP/1.1`,
      'Host: roost',
      'Connection: Upgrade',
      'Upgrade: websocket',
      'Sec-WebSocket-Version: 13',
      'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
      '',
      '',
    ].join('\r\n');

  test.each(['//', 'http://[', '*', '/v1', '/%'])(
    'survives a stranger who asks for %s and hangs up',
    async (target) => {
      const daemon = await begin();
      const refused = await intrude(daemon, upgradeOf(target));
      refused.resume();
      await new Promise<void>((resolve) => refused.once('close', () => resolve()));
      const gone = await intrude(daemon, upgradeOf(target));
      gone.resetAndDestroy();
      expect(await knock(daemon, '/v1')).toBe(401);
    },
  );

  test('does not hold up the end of the daemon for a stranger who never finishes', async () => {
    const daemon = await begin();
    const socket = await intrude(daemon, 'GET / HTTP/1.1\r\nHost');
    const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
    await daemon.stop();
    await expect(closed).resolves.toBeUndefined();
  });

  test('does nothing more for a client whose token was revoked, however long it takes to leave', async () => {
    const daemon = await begin();
    const client = await connect(daemon, 'operate');
    // Reads nothing, so it does not see that it is to leave.
    client.socket.pause();
    await daemon.client.call('token-revoke', { name: 'operateer' });
    const sent = new Promise<void>((resolve, reject) =>
      client.socket.send(JSON.stringify({ execute: 'guest-create', arguments: aGuest('web1') }), (error) =>
        error ? reject(error) : resolve(),
      ),
    );
    await sent;
    client.socket.resume();
    await once(client.socket, 'close');
    expect((await daemon.client.call('query-guests', {})).total).toBe(0);
  });

  test('answers what is no request with an error and lives on', async () => {
    const client = await connect(await begin(), 'read');
    client.socket.send('no json');
    await client.find(({ error }) => error?.class === 'InvalidArgument');
    client.socket.send(Buffer.from([1, 2, 3]));
    await client.find(({ error }) => error?.desc.includes('binary') === true);
    expect((await client.call('query-version')).return).toBeDefined();
  });
});
