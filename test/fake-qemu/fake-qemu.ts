/**
 * A QEMU that misbehaves on purpose: a QMP server on a unix socket whose every connection follows a script.
 *
 * A script reads commands and writes what the test wants, right or wrong, down to single bytes. It ends by
 * returning; the connection stays open until the script hangs up or the server closes. What a script throws
 * comes out of `close`, so that no failure in it goes unnoticed.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deferred } from '../../lib/abort.ts';
import { JsonValueReader } from '../../lib/json-values.ts';

export const greeting = {
  QMP: {
    version: { qemu: { micro: 22, minor: 2, major: 7 }, package: 'fake' },
    capabilities: ['oob'],
  },
} as const;

export interface ReceivedCommand {
  readonly execute: string;
  readonly arguments?: Readonly<Record<string, unknown>>;
  readonly id?: unknown;
}

/** The server's end of one connection. */
export class FakePeer {
  readonly #socket: Socket;
  readonly #commands: ReceivedCommand[] = [];
  readonly #waiters: ((command: ReceivedCommand) => void)[] = [];
  readonly #closed = deferred<void>();

  constructor(socket: Socket) {
    this.#socket = socket;
    const reader = new JsonValueReader();
    socket.on('data', (chunk: Buffer) => {
      for (const result of reader.push(chunk)) {
        if (result.kind === 'error') throw new Error(`The client sent bad JSON: ${result.message}`);
        this.#deliver(result.value as ReceivedCommand);
      }
    });
    // A client that is gone in the middle of a write is part of the game.
    socket.on('error', () => undefined);
    socket.on('close', () => this.#closed.resolve());
  }

  /** Resolves when the connection is closed, by whichever end. */
  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  /** The next command of the client, in order. */
  receive(): Promise<ReceivedCommand> {
    const ready = this.#commands.shift();
    if (ready !== undefined) return Promise.resolve(ready);
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  /** Writes bytes as they are. */
  raw(bytes: string | Uint8Array): void {
    this.#socket.write(bytes);
  }

  send(message: unknown): void {
    this.raw(`${JSON.stringify(message)}\r\n`);
  }

  reply(command: ReceivedCommand, value: unknown = {}): void {
    this.send({ return: value, id: command.id });
  }

  refuse(command: ReceivedCommand, errorClass: string, desc: string): void {
    this.send({ id: command.id, error: { class: errorClass, desc } });
  }

  event(event: string, data: Readonly<Record<string, unknown>> = {}): void {
    this.send({ timestamp: { seconds: 1, microseconds: 2 }, event, data });
  }

  /** Greets, and answers the negotiation. */
  async negotiate(): Promise<void> {
    this.send(greeting);
    const command = await this.receive();
    if (command.execute !== 'qmp_capabilities') {
      throw new Error(`Expected qmp_capabilities, got ${command.execute}`);
    }
    this.reply(command);
  }

  /** Writes what is still to be written, then closes the connection. */
  hangUp(): void {
    this.#socket.end();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  #deliver(command: ReceivedCommand): void {
    const waiter = this.#waiters.shift();
    if (waiter === undefined) this.#commands.push(command);
    else waiter(command);
  }
}

export type FakeScript = (peer: FakePeer) => Promise<void> | void;

export class FakeQemu implements AsyncDisposable {
  readonly path: string;
  readonly #directory: string;
  readonly #server: Server;
  readonly #peers: FakePeer[] = [];
  readonly #failures: unknown[] = [];

  private constructor(directory: string, path: string, script: FakeScript) {
    this.#directory = directory;
    this.path = path;
    this.#server = createServer((socket) => {
      const peer = new FakePeer(socket);
      this.#peers.push(peer);
      Promise.resolve(peer)
        .then(script)
        .catch((error: unknown) => {
          this.#failures.push(error);
          peer.destroy();
        });
    });
  }

  /** Listens on a socket of its own and runs `script` for every connection. */
  static async listen(script: FakeScript): Promise<FakeQemu> {
    const directory = await mkdtemp(join(tmpdir(), 'fake-qemu-'));
    const fake = new FakeQemu(directory, join(directory, 'qmp.sock'), script);
    const listening = deferred<void>();
    fake.#server.once('error', listening.reject);
    fake.#server.listen(fake.path, listening.resolve);
    await listening.promise;
    return fake;
  }

  /** Closes every connection and removes the socket; throws what a script threw. */
  async close(): Promise<void> {
    for (const peer of this.#peers) peer.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
    await rm(this.#directory, { recursive: true });
    if (this.#failures.length > 0) throw new AggregateError(this.#failures, 'A script failed');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
