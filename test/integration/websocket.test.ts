/** The WebSocket of a real daemon: who gets in, what they may do, and that it carries the socket's own values. */
import { once } from 'node:events';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { WebSocket } from 'ws';
import type { Role } from '../../protocol/types.ts';
import { describeWith } from '../harness/needs.ts';
import { type DaemonHome, type RealDaemon, testDaemonHome } from '../harness/real-daemon.ts';
import { importBootSector, tinyGuest } from '../harness/tiny-guests.ts';

type Message = Readonly<Record<string, unknown>>;

/** One connection with its messages in order. */
class WebClient {
  readonly socket: WebSocket;
  /** Code and reason of its end. */
  readonly closed: Promise<readonly [number, string]>;
  readonly #waiting: Message[] = [];
  #wake: () => void = () => undefined;
  #lastId = 0;

  constructor(socket: WebSocket) {
    this.socket = socket;
    socket.on('message', (data: Buffer) => {
      this.#waiting.push(JSON.parse(data.toString('utf8')) as Message);
      this.#wake();
    });
    this.closed = new Promise((resolve) => {
      socket.on('close', (code, reason) => resolve([code, reason.toString('utf8')]));
    });
    onTestFinished(async () => {
      socket.terminate();
      await this.closed;
    });
  }

  async next(): Promise<Message> {
    for (;;) {
      const message = this.#waiting.shift();
      if (message) return message;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** The reply to a command; what comes before it is passed over. */
  async call(execute: string, args: object = {}): Promise<Message> {
    this.#lastId += 1;
    this.socket.send(JSON.stringify({ execute, arguments: args, id: this.#lastId }));
    for (;;) {
      const message = await this.next();
      if (message['id'] === this.#lastId) return message;
    }
  }
}

/** A configuration with the WebSocket on a port of loopback that is free at this moment, given with it. */
const configure = async (home: DaemonHome): Promise<{ readonly args: string[]; readonly port: number }> => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' && address ? address.port : 0;
  server.close();
  await once(server, 'close');
  const file = join(home.stateDirectory, 'roostd.yaml');
  await writeFile(file, `websocket:\n  listen: 127.0.0.1:${port}\n`);
  return { args: ['--config', file], port };
};

const open = (port: number, token?: string): WebSocket =>
  new WebSocket(
    `ws://127.0.0.1:${port}/v1`,
    token === undefined ? {} : { headers: { authorization: `Bearer ${token}` } },
  );

/** A negotiated connection. */
const enter = async (port: number, token: string): Promise<WebClient> => {
  const client = new WebClient(open(port, token));
  expect(await client.next()).toMatchObject({ QMP: { capabilities: [] } });
  expect(await client.call('qmp_capabilities')).toMatchObject({ return: {} });
  return client;
};

const makeToken = async (daemon: RealDaemon, role: Role): Promise<string> =>
  (await daemon.client.call('token-create', { name: `${role}er`, role })).token;

/** What refuses an attempt to connect. */
const refusal = async (port: number, token?: string): Promise<string> => {
  const [error] = (await once(open(port, token), 'error')) as [Error];
  return error.message;
};

const denied = (needed: Role, held: Role): object => ({
  error: { class: 'PermissionDenied', data: { needed, held } },
});

describeWith(['root', 'qemu', 'qemu-img'], 'the WebSocket', () => {
  it('is off by default, lets in by token only, and does for each role what is its own', async () => {
    const home = await testDaemonHome({ ownNamespace: false });
    const { args, port } = await configure(home);
    const closed = await home.start();
    expect(await refusal(port)).toContain('ECONNREFUSED');
    await closed.stop();

    const daemon = await home.start({ args });
    await importBootSector(daemon, 'idle');
    await daemon.succeed('guest-create', tinyGuest('one', 'idle'));
    expect(await refusal(port)).toContain('401');
    expect(await refusal(port, `roost_${'A'.repeat(43)}`)).toContain('401');

    const reader = await enter(port, await makeToken(daemon, 'read'));
    expect((await reader.call('query-guests'))['return']).toEqual(
      await daemon.client.call('query-guests', {}),
    );
    expect(await reader.call('guest-start', { guest: 'one' })).toMatchObject(denied('operate', 'read'));
    expect(await reader.call('token-create', { name: 'more' })).toMatchObject(denied('admin', 'read'));
    expect((await daemon.guest('one')).target).toBe('stopped');

    const operator = await enter(port, await makeToken(daemon, 'operate'));
    const { operation } = (await operator.call('guest-start', { guest: 'one' }))['return'] as {
      operation: string;
    };
    expect(await operator.call('operation-wait', { operation })).toMatchObject({
      return: { state: 'succeeded', actor: 'token:operateer' },
    });
    expect(await daemon.guest('one')).toMatchObject({ state: 'running', targetActor: 'token:operateer' });
    expect(await operator.call('query-tokens')).toMatchObject(denied('admin', 'operate'));

    const admin = await enter(port, await makeToken(daemon, 'admin'));
    expect(await admin.call('token-create', { name: 'made-by-web' })).toMatchObject({
      return: { role: 'read' },
    });
    expect(await admin.call('token-revoke', { name: 'reader' })).toMatchObject({
      return: { name: 'reader' },
    });
    expect(await reader.closed).toEqual([1008, expect.stringContaining('revoked')]);
    expect(await operator.call('query-version')).toHaveProperty('return');
    await daemon.stop();
    expect((await admin.closed)[0]).toBe(1006);
  });

  it('answers what is no value with an error, ends what is too large, and keeps no secret', async () => {
    const home = await testDaemonHome({ ownNamespace: false });
    const { args, port } = await configure(home);
    const daemon = await home.start({ args });
    const token = await makeToken(daemon, 'admin');
    const client = await enter(port, token);
    const invalid = { error: { class: 'InvalidArgument' } };
    for (const bad of ['{', '', 'null', '{"execute": 7}', '{} {}', Buffer.from([0, 1, 2])]) {
      client.socket.send(bad);
      expect(await client.next()).toMatchObject(invalid);
    }
    expect(await client.call('no-such-command')).toMatchObject({ error: { class: 'CommandNotFound' } });
    client.socket.send(JSON.stringify({ execute: 'query-guests', id: 'x'.repeat(1024 * 1024) }));
    expect((await client.closed)[0]).toBe(1009);
    expect((await daemon.client.call('query-tokens', {})).tokens).toMatchObject([{ name: 'adminer' }]);
    await daemon.stop();

    for (const name of await readdir(home.stateDirectory, { recursive: true, withFileTypes: true })) {
      if (!name.isFile()) continue;
      const content = await readFile(join(name.parentPath, name.name), 'latin1');
      const secret = token.replace('roost_', '');
      expect({ file: name.name, tells: content.includes(secret) }).toEqual({ file: name.name, tells: false });
    }
    const again = await home.start({ args });
    await enter(port, token);
    await again.stop();
  });

  it('on a port that somebody else has keeps the daemon from starting, in words', async () => {
    const home = await testDaemonHome({ ownNamespace: false });
    const { args, port } = await configure(home);
    const other = createServer().listen(port, '127.0.0.1');
    await once(other, 'listening');
    onTestFinished(async () => {
      other.close();
      await once(other, 'close');
    });
    await expect(home.start({ args })).rejects.toThrow(`127.0.0.1:${port} is in use`);
    await writeFile(args[1] ?? '', 'websocket:\n  listen: 127.0.0.1:65536\n');
    await expect(home.start({ args })).rejects.toThrow(/websocket\.listen/);
  });
});
