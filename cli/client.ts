/**
 * The client's half of the wire: one connection to a daemon's unix socket, any number of calls at a time on it, events
 * as they come, and the step over to plain bytes for a program or a console.
 *
 * Rules it keeps: a call always ends (by its reply, its signal, or the loss of the connection); events are kept only
 * while someone listens; every failure to connect says what to do about it.
 */
import type { Socket } from 'node:net';
import { abortReason, DeadlineError, type Deferred, deadline, deferred, waitOrAbort } from '../lib/abort.ts';
import { connectUnixSocket } from '../lib/connect-unix-socket.ts';
import { JsonValueReader } from '../lib/json-values.ts';
import type { CommandInput, CommandName, CommandReturn } from '../protocol/commands.ts';
import type { EventView } from '../protocol/events.ts';
import { CliFailure, failureFromWire, unreachable } from './failure.ts';

/** Replies are pages of a list at most; this only bounds what a strange server can make us hold. */
const MAX_REPLY_BYTES = 256 * 1024 * 1024;
const DEFAULT_CONNECT_TIMEOUT_MS = 10_000;
const LINE_FEED = 0x0a;

export interface ConnectOptions {
  readonly socketPath: string;
  readonly signal: AbortSignal;
  /** Time for the connection and its greeting. */
  readonly timeoutMs?: number;
}

interface Pending extends Deferred<unknown> {
  readonly name: string;
  /** After this reply the connection carries bytes. */
  readonly raw: boolean;
}

type Message = Readonly<Record<string, unknown>>;

const isObject = (value: unknown): value is Message => typeof value === 'object' && value !== null;

const errorCode = (error: unknown): string | undefined =>
  isObject(error) && typeof error['code'] === 'string' ? error['code'] : undefined;

/** Why a connection could not be made, and what to do. */
const connectFailure = (path: string, error: unknown): CliFailure => {
  const elsewhere = 'or name its socket with --socket or ROOST_SOCKET';
  switch (errorCode(error)) {
    case 'ENOENT':
    case 'ENOTDIR':
      return unreachable(
        `roostd does not run, or its socket is elsewhere: there is none at ${path}`,
        `Start it with 'systemctl start roostd' or 'bin/roostd', ${elsewhere}.`,
        error,
      );
    case 'ECONNREFUSED':
      return unreachable(
        `roostd does not run: nobody listens on ${path}`,
        `Start it with 'systemctl start roostd' or 'bin/roostd', ${elsewhere}.`,
        error,
      );
    case 'EACCES':
    case 'EPERM':
      return new CliFailure(
        {
          class: 'PermissionDenied',
          desc: `This user may not open the socket ${path}`,
          hint: "Members of the group 'roost' may: 'sudo usermod -aG roost $USER', then log in again. Membership is as good as root.",
        },
        'permissionDenied',
        error,
      );
    default:
      return unreachable(
        `Cannot connect to ${path}: ${error instanceof Error ? error.message : String(error)}`,
        `Check that roostd runs there, ${elsewhere}.`,
        error,
      );
  }
};

const notRoost = (path: string, what: string): CliFailure =>
  unreachable(
    `${path} is not a socket of roostd: ${what}`,
    'Name the right one with --socket or ROOST_SOCKET.',
  );

/** A daemon that stands still, is not ready yet, or is none. */
const silent = (path: string, timeoutMs: number): CliFailure =>
  new CliFailure(
    {
      class: 'Unavailable',
      desc: `roostd at ${path} does not answer: for ${timeoutMs / 1000} s it said nothing`,
      hint: "It may be starting or standing still: look at 'systemctl status roostd' or its log. The socket of something else? Name the right one with --socket or ROOST_SOCKET.",
      data: { daemon: 'silent' },
    },
    'unreachable',
  );

/** Events of a connection from the moment it was made; `close` ends the iteration. */
export interface EventStream extends AsyncIterable<EventView> {
  close(): void;
}

class EventQueue implements EventStream {
  readonly #waiting: EventView[] = [];
  readonly #onClose: (queue: EventQueue) => void;
  #wakeUp = deferred<void>();
  #over = false;
  #failure: Error | undefined;

  constructor(onClose: (queue: EventQueue) => void) {
    this.#onClose = onClose;
  }

  push(event: EventView): void {
    this.#waiting.push(event);
    this.#wakeUp.resolve();
  }

  end(failure?: Error): void {
    this.#over = true;
    this.#failure = failure;
    this.#wakeUp.resolve();
  }

  close(): void {
    this.end();
    this.#onClose(this);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<EventView> {
    try {
      for (;;) {
        yield* this.#waiting.splice(0);
        if (this.#over) break;
        await this.#wakeUp.promise;
        this.#wakeUp = deferred<void>();
      }
      yield* this.#waiting.splice(0);
      if (this.#failure) throw this.#failure;
    } finally {
      this.#onClose(this);
    }
  }
}

export class Client {
  readonly #socket: Socket;
  readonly #path: string;
  readonly #reader = new JsonValueReader({ maxValueBytes: MAX_REPLY_BYTES });
  readonly #pending = new Map<number, Pending>();
  readonly #streams = new Set<EventQueue>();
  readonly #greeting = deferred<Message>();
  #lastId = 0;
  #lost: CliFailure | undefined;
  /** Set once the connection carries bytes; `skipNewline` while the reply's own newline has not come yet. */
  #raw: { skipNewline: boolean } | undefined;

  constructor(socket: Socket, path: string) {
    this.#socket = socket;
    this.#path = path;
    socket.on('data', this.#onData);
    socket.on('error', (error) => this.#lose(error));
    socket.on('close', () => this.#lose());
    // The greeting may be lost before anyone waits for it.
    this.#greeting.promise.catch(() => undefined);
  }

  get greeting(): Promise<Message> {
    return this.#greeting.promise;
  }

  /** Calls a command of the contract. Throws CliFailure, or the signal's reason. */
  async call<N extends CommandName>(
    name: N,
    args: CommandInput<N>,
    options: { readonly signal?: AbortSignal } = {},
  ): Promise<CommandReturn<N>> {
    return (await this.callAny(name, args, options)) as CommandReturn<N>;
  }

  /** Calls a command by any name, as it is written. */
  async callAny(
    name: string,
    args: Message,
    options: { readonly signal?: AbortSignal } = {},
  ): Promise<unknown> {
    return this.#send(name, args, false, options.signal);
  }

  /**
   * Calls a command after which the connection carries bytes: it is the returned socket from then on, which is paused and
   * holds back nothing that came after the reply. No further calls.
   */
  async attach<N extends 'guest-console' | 'guest-exec-session' | 'guest-attach'>(
    name: N,
    args: CommandInput<N>,
    options: { readonly signal?: AbortSignal } = {},
  ): Promise<Socket> {
    await this.#send(name, args as Message, true, options.signal);
    return this.#socket;
  }

  /** Events from now on; what to get is chosen by events-subscribe. */
  events(): EventStream {
    const queue = new EventQueue((ended) => this.#streams.delete(ended));
    if (this.#lost) queue.end(this.#lost);
    else this.#streams.add(queue);
    return queue;
  }

  close(): void {
    this.#socket.destroy();
  }

  async #send(name: string, args: Message, raw: boolean, signal: AbortSignal | undefined): Promise<unknown> {
    if (this.#lost) throw this.#lost;
    if (this.#raw) throw new Error('The connection carries bytes; commands need another');
    this.#lastId += 1;
    const id = this.#lastId;
    const pending: Pending = { ...deferred<unknown>(), name, raw };
    this.#pending.set(id, pending);
    this.#socket.write(`${JSON.stringify({ execute: name, arguments: args, id })}\n`);
    try {
      return await (signal === undefined ? pending.promise : waitOrAbort(pending.promise, signal));
    } finally {
      this.#pending.delete(id);
    }
  }

  readonly #onData = (chunk: Buffer): void => {
    if (this.#raw) {
      this.#becomeRaw(chunk);
      return;
    }
    if (![...this.#pending.values()].some((pending) => pending.raw)) {
      this.#read(chunk);
      return;
    }
    // Bytes of a session may follow its reply in the same chunk, so go by lines: each reply ends with one.
    let rest = chunk;
    while (rest.length > 0 && !this.#raw) {
      const newline = rest.indexOf(LINE_FEED);
      const line = newline < 0 ? rest : rest.subarray(0, newline + 1);
      rest = rest.subarray(line.length);
      this.#read(line);
      if (this.#raw) this.#raw = { skipNewline: newline < 0 };
    }
    if (this.#raw) this.#becomeRaw(rest);
  };

  /** Hands the socket over, with the bytes that were read already. */
  #becomeRaw(rest: Buffer): void {
    if (this.#raw?.skipNewline === true && rest.length === 0) return;
    const bytes = this.#raw?.skipNewline === true && rest[0] === LINE_FEED ? rest.subarray(1) : rest;
    this.#socket.off('data', this.#onData);
    this.#socket.pause();
    if (bytes.length > 0) this.#socket.unshift(bytes);
    for (const pending of this.#pending.values()) if (pending.raw) pending.resolve(undefined);
  }

  #read(chunk: Uint8Array): void {
    for (const result of this.#reader.push(chunk)) {
      if (result.kind === 'value' && isObject(result.value)) this.#onMessage(result.value);
      else this.#strange();
    }
  }

  /** Something that is no message: not a daemon of ours, or a defect. */
  #strange(): void {
    const failure = notRoost(this.#path, 'what it says is no QMP');
    this.#lost ??= failure;
    this.#socket.destroy(failure);
  }

  #onMessage(message: Message): void {
    if (isObject(message['QMP'])) this.#greeting.resolve(message['QMP']);
    else if ('event' in message)
      for (const stream of this.#streams) stream.push(message as unknown as EventView);
    else if ('return' in message || 'error' in message) this.#onReply(message);
    else this.#strange();
  }

  #onReply(message: Message): void {
    const id = message['id'];
    // An error without id answers a value the daemon could not read: the oldest call, as replies keep order there.
    const pending =
      typeof id === 'number' ? this.#pending.get(id) : [...this.#pending.values()].find(() => true);
    if (!pending) return;
    if ('error' in message) pending.reject(failureFromWire(message['error']));
    else if (pending.raw) this.#raw = { skipNewline: true };
    else pending.resolve(message['return']);
  }

  #lose(error?: Error): void {
    const waited = [...this.#pending.values()].map((pending) => pending.name);
    this.#lost ??= unreachable(
      `The connection to roostd was lost${waited.length > 0 ? ` during ${waited.join(', ')}` : ''}`,
      "Look at its log ('journalctl -u roostd'). Operations that were accepted go on when it is back: 'roost operation ls'.",
      error,
    );
    for (const pending of this.#pending.values()) pending.reject(this.#lost);
    for (const stream of this.#streams) stream.end(this.#lost);
    this.#greeting.reject(error ?? this.#lost);
  }
}

const checkGreeting = (path: string, greeting: Message): void => {
  const version = isObject(greeting['version']) ? greeting['version'] : {};
  const name = version['package'];
  if (typeof name === 'string' && name.startsWith('roost-')) return;
  throw notRoost(path, 'it greets as another QMP server');
};

/** Connects, checks the greeting and leaves negotiation mode. Throws CliFailure, or the signal's reason. */
export const connect = async (options: ConnectOptions): Promise<Client> => {
  const { socketPath, signal, timeoutMs = DEFAULT_CONNECT_TIMEOUT_MS } = options;
  using limit = deadline(timeoutMs, signal);
  let client: Client | undefined;
  try {
    client = new Client(await connectUnixSocket(socketPath, limit.signal), socketPath);
    checkGreeting(socketPath, await waitOrAbort(client.greeting, limit.signal));
    await client.call('qmp_capabilities', {}, { signal: limit.signal });
    return client;
  } catch (error) {
    client?.close();
    if (signal.aborted) throw abortReason(signal);
    // One that stands still long enough takes no connections either.
    if (error instanceof DeadlineError) throw silent(socketPath, timeoutMs);
    if (error instanceof CliFailure) throw error;
    throw connectFailure(socketPath, error);
  }
};
