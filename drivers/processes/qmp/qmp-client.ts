/**
 * One QMP session over one connection, used once.
 *
 * `connect` returns only when the session is negotiated; whatever fails before that is rolled back first. From
 * then on the line is read, no faster than a flood would need, calls run side by side, and each ends exactly once (see
 * {@link PendingCalls}). The session ends once, and `ended` says how; it does not come back: connect anew.
 *
 *     greeting ──> negotiation ──> running ──> ended
 *         └──────────────┴───────────────────────^
 *
 * Messages that make no sense are counted and reported and change nothing; bytes that are not JSON, or a
 * message over the limit, end the session, because an answer may have been among them.
 */
import type { Socket } from 'node:net';
import { performance } from 'node:perf_hooks';
import type { Duplex } from 'node:stream';
import { abortReason, deferred, waitOrAbort } from '../../../lib/abort.ts';
import { ByteBudget } from '../../../lib/byte-budget.ts';
import { connectUnixSocket } from '../../../lib/connect-unix-socket.ts';
import { type JsonReadResult, JsonValueReader } from '../../../lib/json-values.ts';
import { working } from '../../../lib/loop-watch.ts';
import { isTurnOver } from '../../../lib/turn.ts';
import { sendDescriptor } from '../../../native/index.ts';
import { type PendingCall, PendingCalls } from './pending-calls.ts';
import { type QmpCommandName, type QmpCommands, qmpReturns } from './qmp-commands.ts';
import {
  describeEnd,
  QmpCommandError,
  QmpConnectError,
  QmpDisconnectedError,
  QmpProtocolError,
  QmpReplyError,
} from './qmp-errors.ts';
import {
  type QmpEnd,
  type QmpEvent,
  type QmpGreeting,
  type QmpViolation,
  type QmpViolationKind,
  qmpErrorSchema,
  qmpEventSchema,
  qmpGreetingSchema,
} from './qmp-types.ts';

/**
 * How fast QEMU is read. A guest can make it tell events without end, and one that was taken over could send anything; a
 * second of this is some ten thousand events. What waits is kept by QEMU, at its own cost.
 */
const READ_BUDGET = { burst: 32 * 1024 * 1024, perSecond: 2 * 1024 * 1024 } as const;

/** Largest message accepted from QEMU. `query-qmp-schema`, the largest usual one, has about 200 KiB. */
export const MAX_QMP_MESSAGE_BYTES = 16 * 1024 * 1024;

export interface QmpSessionOptions {
  /** Gets every event in order, from the first one on. Must not throw; a throw is reported as a violation. */
  readonly onEvent: (event: QmpEvent) => void;
  /** Must not throw. */
  readonly onViolation?: (violation: QmpViolation) => void;
  /** Sees every message as it is sent or received, with its size. Must not throw. */
  readonly onTraffic?: (direction: 'sent' | 'received', message: unknown, bytes: number) => void;
  readonly maxMessageBytes?: number;
}

export interface QmpConnectOptions extends QmpSessionOptions {
  /** Bounds connecting, greeting and negotiation, not the session after it. */
  readonly signal: AbortSignal;
}

type Message = Readonly<Record<string, unknown>>;

export class QmpClient implements AsyncDisposable {
  /** Resolves once, when the session is over; never rejects. */
  readonly ended: Promise<QmpEnd>;
  readonly #stream: Duplex;
  readonly #options: QmpSessionOptions;
  readonly #reader: JsonValueReader;
  readonly #calls = new PendingCalls();
  readonly #greeted = deferred<QmpGreeting>();
  readonly #ended = deferred<QmpEnd>();
  readonly #streamClosed = deferred<void>();
  #greeting: QmpGreeting | undefined;
  #end: QmpEnd | undefined;
  #lastHeardAt = performance.now();
  #violations = 0;
  readonly #budget = new ByteBudget(READ_BUDGET);
  #resting: NodeJS.Timeout | undefined;
  /** What is understood and not dealt with yet. */
  readonly #heard: JsonReadResult[] = [];
  /** A turn for it is on its way. */
  #handling = false;
  /** How the line ended, which counts when all that was heard is dealt with. */
  #hangUp: QmpEnd | undefined;

  private constructor(stream: Duplex, options: QmpSessionOptions) {
    this.#stream = stream;
    this.#options = options;
    this.#reader = new JsonValueReader({ maxValueBytes: options.maxMessageBytes ?? MAX_QMP_MESSAGE_BYTES });
    this.ended = this.#ended.promise;
    stream.on('data', (chunk: Buffer) => this.#receive(chunk));
    stream.on('error', (error) =>
      this.#hungUp(isHangUp(error) ? { reason: 'eof' } : { reason: 'socket-error', error }),
    );
    stream.on('end', () => this.#hungUp({ reason: 'eof' }));
    stream.on('close', () => {
      this.#hungUp({ reason: 'eof' });
      this.#streamClosed.resolve();
    });
  }

  /**
   * Connects to QEMU's monitor socket and negotiates. QEMU serves one client a socket and greets the next one
   * only when it is gone, so that a connection alone proves nothing: always pass a signal with a deadline.
   * Rejects with {@link QmpConnectError}, or with the signal's reason.
   */
  static async connect(path: string, options: QmpConnectOptions): Promise<QmpClient> {
    let socket: Socket;
    try {
      socket = await connectUnixSocket(path, options.signal);
    } catch (error) {
      if (options.signal.aborted) throw abortReason(options.signal);
      throw new QmpConnectError('connect', path, error);
    }
    return QmpClient.negotiate(socket, path, options);
  }

  /** Negotiates over a connection that is open already; owns it from here on. `name` is for error texts. */
  static async negotiate(stream: Duplex, name: string, options: QmpConnectOptions): Promise<QmpClient> {
    const client = new QmpClient(stream, options);
    try {
      await waitOrAbort(client.#greeted.promise, options.signal);
      await client.execute('qmp_capabilities', {}, options);
      return client;
    } catch (error) {
      const phase = client.#greeting === undefined ? 'greeting' : 'negotiation';
      await client.close();
      if (options.signal.aborted) throw abortReason(options.signal);
      throw new QmpConnectError(phase, name, error);
    }
  }

  /** What QEMU said about itself. */
  get greeting(): QmpGreeting {
    if (this.#greeting === undefined) throw new QmpProtocolError('The monitor has not greeted yet');
    return this.#greeting;
  }

  /** When the last byte came from QEMU, in milliseconds of `performance.now()`. */
  get lastHeardAt(): number {
    return this.#lastHeardAt;
  }

  /** How many messages made no sense so far. */
  get violations(): number {
    return this.#violations;
  }

  /** Calls that wait for an answer, oldest first. */
  pendingCalls(): readonly { readonly id: number; readonly command: string }[] {
    return this.#calls.list.map(({ id, command }) => ({ id, command }));
  }

  /** Calls given up by their callers that QEMU has not answered yet. */
  abandonedCalls(): number {
    return this.#calls.abandonedCount;
  }

  /**
   * Executes a command. Rejects with {@link QmpCommandError} when QEMU refuses, {@link QmpDisconnectedError}
   * when the session ends first, {@link QmpReplyError} for a reply of the wrong shape, or the signal's reason.
   * Giving up does not undo a command that was sent.
   */
  execute<C extends QmpCommandName>(
    command: C,
    commandArguments: QmpCommands[C]['arguments'],
    options: { readonly signal: AbortSignal },
  ): Promise<QmpCommands[C]['returns']> {
    const site: { stack?: string } = {};
    Error.captureStackTrace(site);
    return this.#execute(command, commandArguments, options.signal, site);
  }

  /**
   * Hands a descriptor over, for QEMU to know by `name` (`getfd`); ours stays the caller's. Only on a connection made by
   * `connect`. Rejects as `execute` does, and with the system's own error when QEMU has stopped reading.
   */
  async sendDescriptor(
    name: string,
    descriptor: number,
    options: { readonly signal: AbortSignal },
  ): Promise<void> {
    const site: { stack?: string } = {};
    Error.captureStackTrace(site);
    // What Node has not written yet would come after the descriptor, or in the middle of its message.
    await waitOrAbort(this.#written(), options.signal);
    await this.#execute('getfd', { fdname: name }, options.signal, site, descriptor);
  }

  /** Ends the session and waits until the connection is closed. May be called more than once. */
  async close(): Promise<void> {
    this.#finish({ reason: 'closed' });
    await this.#streamClosed.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #execute<C extends QmpCommandName>(
    command: C,
    commandArguments: QmpCommands[C]['arguments'],
    signal: AbortSignal,
    site: { readonly stack?: string },
    descriptor?: number,
  ): Promise<QmpCommands[C]['returns']> {
    if (signal.aborted) throw abortReason(signal);
    const request = { command, arguments: commandArguments };
    if (this.#end !== undefined) throw calledFrom(site, new QmpDisconnectedError(request, this.#end));
    let reply: unknown;
    try {
      reply = await this.#calls.open(request, signal, (id) =>
        this.#send({ execute: command, arguments: commandArguments, id }, descriptor),
      );
    } catch (error) {
      throw signal.aborted && error === abortReason(signal) ? error : calledFrom(site, error);
    }
    const parsed = qmpReturns[command].safeParse(reply);
    if (!parsed.success) throw calledFrom(site, new QmpReplyError(request, reply, parsed.error));
    return parsed.data as QmpCommands[C]['returns'];
  }

  #send(message: Message, descriptor: number | undefined): void {
    // No newline: QEMU needs none, and one left unread by `quit` would turn its hang-up into a reset.
    const bytes = Buffer.from(JSON.stringify(message));
    this.#options.onTraffic?.('sent', message, bytes.length);
    const sent =
      descriptor === undefined ? 0 : sendDescriptor(descriptorOf(this.#stream), bytes.toString(), descriptor);
    if (sent === bytes.length) return;
    // What is asked at once wakes QEMU once.
    this.#stream.cork();
    this.#stream.write(bytes.subarray(sent));
    process.nextTick(() => this.#stream.uncork());
  }

  /** Resolves when nothing of ours is on its way to the socket any more. */
  async #written(): Promise<void> {
    if (this.#stream.writableLength === 0) return;
    const drained = deferred<void>();
    this.#stream.write('', () => drained.resolve());
    await drained.promise;
  }

  #receive(chunk: Buffer): void {
    this.#lastHeardAt = performance.now();
    this.#rest(this.#budget.spend(chunk.length));
    this.#heard.push(...working('parsing what a monitor said', () => this.#reader.push(chunk)));
    if (!this.#handling) this.#handleInTurn();
  }

  /** QEMU may say a thousand things in one piece; the others come to their turns in between, and it is not read on. */
  #handleInTurn(): void {
    this.#handling = false;
    for (let result = this.#heard.shift(); result; result = this.#heard.shift()) {
      this.#handle(result);
      if (this.#heard.length === 0 || !isTurnOver()) continue;
      this.#handling = true;
      this.#stream.pause();
      setImmediate(() => this.#handleInTurn());
      return;
    }
    if (this.#hangUp !== undefined) this.#finish(this.#hangUp);
    else if (this.#resting === undefined) this.#stream.resume();
  }

  #handle(result: JsonReadResult): void {
    if (this.#end !== undefined) return;
    if (result.kind === 'error') {
      const error = new QmpProtocolError(`The monitor sent what is not a QMP message: ${result.message}`);
      this.#finish({ reason: 'protocol-error', error });
      return;
    }
    this.#options.onTraffic?.('received', result.value, result.bytes);
    this.#route(result.value);
  }

  /** What QEMU had said before counts. */
  #hungUp(end: QmpEnd): void {
    this.#hangUp ??= end;
    if (!this.#handling) this.#finish(this.#hangUp);
  }

  /** Reads no further for a while. */
  #rest(delayMs: number): void {
    if (delayMs === 0 || this.#resting !== undefined) return;
    this.#stream.pause();
    this.#resting = setTimeout(() => {
      this.#resting = undefined;
      if (!this.#handling) this.#stream.resume();
    }, delayMs);
    this.#resting.unref();
  }

  #route(value: unknown): void {
    if (this.#greeting === undefined) return this.#routeGreeting(value);
    if (!isMessage(value)) return this.#violate('unknown-message', value);
    if ('event' in value) return this.#routeEvent(value);
    if ('return' in value || 'error' in value) return this.#routeReply(value);
    return this.#violate('unknown-message', value);
  }

  #routeGreeting(value: unknown): void {
    const parsed = qmpGreetingSchema.safeParse(value);
    if (parsed.success) {
      this.#greeting = parsed.data.QMP;
      this.#greeted.resolve(this.#greeting);
    } else {
      const error = new QmpProtocolError('The first message is not a QMP greeting', { cause: parsed.error });
      this.#finish({ reason: 'protocol-error', error });
    }
  }

  #routeEvent(message: Message): void {
    const parsed = qmpEventSchema.safeParse(message);
    if (!parsed.success) return this.#violate('bad-event', message, parsed.error);
    try {
      return this.#options.onEvent(parsed.data);
    } catch (error) {
      const thrown = error instanceof Error ? error : new Error(String(error));
      return this.#violate('listener-threw', message, thrown);
    }
  }

  #routeReply(message: Message): void {
    const isError = 'error' in message;
    if (!('id' in message)) {
      return this.#violate(isError ? 'error-without-id' : 'reply-without-id', message);
    }
    const call = this.#calls.take(message.id);
    if (call === undefined) return this.#violate('unknown-id', message);
    if (call === 'abandoned') return undefined;
    return isError ? rejectWithReply(call, message.error) : call.resolve(message.return);
  }

  #violate(kind: QmpViolationKind, value: unknown, error?: Error): void {
    this.#violations += 1;
    this.#options.onViolation?.(error === undefined ? { kind, value } : { kind, value, error });
  }

  /** Ends the session; only the first reason counts. */
  #finish(end: QmpEnd): void {
    if (this.#end !== undefined) return;
    this.#end = end;
    clearTimeout(this.#resting);
    this.#calls.failAll((call) => new QmpDisconnectedError(call, end));
    if (this.#greeting === undefined) {
      // Nobody may be waiting for it: the wait for the greeting can be given up before.
      this.#greeted.promise.catch(() => undefined);
      this.#greeted.reject('error' in end ? end.error : new QmpProtocolError(describeEnd(end)));
    }
    this.#stream.destroy();
    this.#ended.resolve(end);
  }
}

function rejectWithReply(call: PendingCall, reply: unknown): void {
  const parsed = qmpErrorSchema.safeParse(reply);
  if (parsed.success) call.reject(new QmpCommandError(call, parsed.data));
  else call.reject(new QmpReplyError(call, reply, parsed.error));
}

/** Node tells the descriptor of a socket only by way of its handle. */
function descriptorOf(stream: Duplex): number {
  return (stream as unknown as { readonly _handle?: { readonly fd?: number } })._handle?.fd ?? -1;
}

function isMessage(value: unknown): value is Message {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A peer that dies with something of ours unread resets the connection instead of ending it. */
function isHangUp(error: Error): boolean {
  return 'code' in error && (error.code === 'ECONNRESET' || error.code === 'EPIPE');
}

/** Replaces an error's stack, which shows only the socket's reader, by that of the code that made the call. */
function calledFrom(site: { readonly stack?: string }, error: unknown): unknown {
  if (!(error instanceof Error) || site.stack === undefined) return error;
  const frames = site.stack.slice(site.stack.indexOf('\n'));
  error.stack = `${error.name}: ${error.message}${frames}`;
  return error;
}
