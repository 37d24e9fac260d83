/**
 * A daemon of a few lines that speaks the wire and answers by script. Every request is checked against the contract, so
 * a command line that maps to something the daemon would refuse fails its test.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { JsonValueReader } from '../../lib/json-values.ts';
import { findCommand } from '../../protocol/commands.ts';
import type { WireError } from '../../protocol/errors.ts';
import { errorReply, greeting, parseRequest, successReply } from '../../protocol/wire.ts';

export interface Call {
  readonly command: string;
  readonly args: Readonly<Record<string, unknown>>;
}

export interface Peer {
  /** Writes an event. */
  readonly emit: (event: string, data: object, sequence?: number) => void;
  readonly socket: Socket;
  /** Replies later to the call at hand, for which the handler gave NO_REPLY. */
  readonly answer: (value: unknown) => void;
  /** Replies to the call at hand, cut into the given writes, and from then on hands bytes to `onBytes`. */
  readonly becomeConsole: (
    cut: (reply: string) => readonly string[],
    onBytes: (chunk: Buffer) => void,
  ) => void;
}

/** Answers a call; throws a Refusal to answer with an error, returns NO_REPLY to stay silent. */
export type Handler = (args: Readonly<Record<string, unknown>>, peer: Peer) => unknown;

export const NO_REPLY = Symbol('no reply');

export class Refusal extends Error {
  readonly wire: WireError;

  constructor(wire: WireError) {
    super(wire.desc);
    this.wire = wire;
  }
}

export const OPERATION = '01890a5d-ac96-774b-bcce-b302099a8057';
export const GUEST = '01890a5d-ac96-774b-bcce-b302099a8058';
export const NOW = 1_800_000_000_000;

export const endedOperation = (more: object = {}): object => ({
  id: OPERATION,
  kind: 'guest-start',
  subject: { kind: 'guest', id: GUEST, name: 'web1' },
  actor: 'unix:uid=0,pid=1',
  state: 'succeeded',
  steps: [{ name: 'launch', state: 'done', startedAt: NOW - 2_000, endedAt: NOW - 500 }],
  cancelRequested: false,
  createdAt: NOW - 3_000,
  startedAt: NOW - 2_000,
  endedAt: NOW - 500,
  ...more,
});

export const aGuest = (more: object = {}): object => ({
  id: GUEST,
  name: 'web1',
  driver: 'qemu',
  state: 'running',
  observedAt: NOW - 1_000,
  stale: false,
  target: 'running',
  targetActor: 'unix:uid=0,pid=1',
  description: 'A web server',
  labels: { tier: 'front' },
  memoryBytes: 268_435_456,
  cpu: { count: 2, model: 'max' },
  machine: 'pc-q35-7.2',
  boot: { kind: 'disk' },
  disks: [{ name: 'disk0', image: 'debian', sizeBytes: 4_294_967_296, readOnly: false, serial: 'rs-1' }],
  cdroms: [],
  keptDisks: [],
  nics: [{ name: 'nic0', network: 'default', mac: '52:54:00:12:34:56', ipv4: '10.91.7.2' }],
  agent: { enabled: true, state: 'connected', since: NOW - 120_000, version: '7.2.0' },
  qemu: { binary: 'default', accel: 'auto', extraArgs: [] },
  tainted: [],
  autostart: { enabled: false, order: 100, delayMs: 0 },
  restartPolicy: { when: 'on-failure', delayMs: 1_000, maxDelayMs: 300_000 },
  deleteProtection: false,
  stopTimeoutMs: 60_000,
  pendingChanges: [],
  process: { pid: 4242, startedAt: NOW - 180_000, accel: 'kvm' },
  restarts: { count: 1 },
  createdAt: NOW - 86_400_000,
  generation: 3,
  ...more,
});

/** Each part is handed to the kernel before the next is written. */
const writeApart = async (socket: Socket, parts: readonly string[]): Promise<void> => {
  for (const part of parts) {
    await new Promise<void>((resolve) => socket.write(part, () => setImmediate(resolve)));
  }
};

const defaultHandlers: Readonly<Record<string, Handler>> = {
  qmp_capabilities: () => ({}),
  'query-version': () => ({ qemu: { major: 0, minor: 1, micro: 0 }, package: 'roost-0.1.0' }),
  'query-guest': () => aGuest(),
  'events-subscribe': () => ({ lastSequence: 7 }),
  'operation-wait': () => endedOperation(),
};

export class FakeDaemon {
  readonly socketPath: string;
  /** Every call but the handshake, without its idempotency key. */
  readonly calls: Call[] = [];
  readonly keys: string[] = [];
  /** One that stands still takes connections and says nothing. */
  standsStill = false;
  readonly #directory: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #handlers: Map<string, Handler>;

  private constructor(directory: string, handlers: Readonly<Record<string, Handler>>) {
    this.#directory = directory;
    this.socketPath = join(directory, 'roost.sock');
    this.#handlers = new Map(Object.entries({ ...defaultHandlers, ...handlers }));
    this.#server = createServer((socket) => this.#serve(socket));
  }

  static async start(handlers: Readonly<Record<string, Handler>> = {}): Promise<FakeDaemon> {
    const daemon = new FakeDaemon(await mkdtemp(join(tmpdir(), 'roost-cli-')), handlers);
    await new Promise<void>((resolve) => daemon.#server.listen(daemon.socketPath, resolve));
    return daemon;
  }

  handle(command: string, handler: Handler): void {
    this.#handlers.set(command, handler);
  }

  /** Ends every connection and listens no more, until it comes back. */
  async goAway(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  comeBack(): Promise<void> {
    return new Promise((resolve) => this.#server.listen(this.socketPath, resolve));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.goAway();
    await rm(this.#directory, { recursive: true, force: true });
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket);
    const reader = new JsonValueReader();
    const send = (message: object): void => void socket.write(`${JSON.stringify(message)}\n`);
    const peer: Peer = {
      socket,
      becomeConsole: () => undefined,
      answer: () => undefined,
      emit: (event, data, sequence = 1) =>
        send({ event, data, timestamp: { seconds: NOW / 1000, microseconds: 0 }, sequence }),
    };
    const onData = (chunk: Buffer): void => {
      for (const result of reader.push(chunk)) {
        if (result.kind !== 'value') throw new Error(result.message);
        this.#answer(result.value, peer, send);
      }
    };
    socket.on('data', onData);
    socket.on('error', () => undefined);
    socket.on('close', () => this.#sockets.delete(socket));
    if (!this.standsStill) send(greeting);
  }

  #answer(value: unknown, peer: Peer, send: (message: object) => void): void {
    const parsed = parseRequest(value);
    if (parsed.kind === 'refused') {
      send(errorReply(parsed.error.toWire(), parsed.id));
      return;
    }
    const { execute, arguments: args, id } = parsed.request;
    const command = findCommand(execute);
    if (execute !== 'qmp_capabilities') this.#note(execute, args);
    try {
      if (!command) throw new Refusal({ class: 'CommandNotFound', desc: `No command ${execute}` });
      const checked = command.arguments.safeParse(args);
      if (!checked.success) throw new Refusal({ class: 'InvalidArgument', desc: checked.error.message });
      const becomeConsole: Peer['becomeConsole'] = (cut, onBytes) => {
        peer.socket.removeAllListeners('data').on('data', onBytes);
        const reply = `${JSON.stringify(successReply({ guest: 'web1' }, id))}\n`;
        void writeApart(peer.socket, cut(reply));
      };
      const reply = this.#handlerOf(execute, command.nature === 'change')(args, {
        ...peer,
        becomeConsole,
        answer: (value) => send(successReply(value, id)),
      });
      if (reply !== NO_REPLY) send(successReply(reply, id));
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      send(errorReply(error.wire, id));
    }
  }

  #note(command: string, { idempotencyKey, ...args }: Call['args']): void {
    this.calls.push({ command, args });
    if (typeof idempotencyKey === 'string') this.keys.push(idempotencyKey);
  }

  #handlerOf(command: string, changes: boolean): Handler {
    const handler = this.#handlers.get(command);
    if (handler) return handler;
    if (changes) return () => ({ operation: OPERATION, id: GUEST });
    throw new Refusal({ class: 'Unsupported', desc: `The script has no ${command}` });
  }
}
