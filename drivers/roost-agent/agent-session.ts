/**
 * One session with the agent of a microVM over two lines: handshake, requests and their answers, streams, ends of
 * programs. It trusts nothing that comes: what was not asked for, is larger than was granted or has another form ends
 * the session at once, with one error for everybody who waits; silence ends a wait by its deadline or its signal. So a
 * guest costs the host a bounded amount of memory, and of time only what it has been granted.
 */
import { randomBytes } from 'node:crypto';
import type { Duplex } from 'node:stream';
import { DeadlineError, type Deferred, deadline, deferred, waitOrAbort } from '../../lib/abort.ts';
import { RoostError } from '../../protocol/errors.ts';
import { guestText } from '../qemu/agent/agent-types.ts';
import { agentGone, nonsense, refusal } from './agent-errors.ts';
import { AgentInput, AgentOutput, ProtocolError, type StreamLine } from './byte-streams.ts';
import { FieldError, FieldReader, FieldWriter, required } from './fields.ts';
import {
  encodeFrame,
  encodeFrames,
  type Frame,
  FrameReader,
  type FrameType,
  MAX_FRAME_BYTES,
  type RequestType,
} from './frames.ts';

export const PROTOCOL_VERSION = 1;
/** What a request may have; larger ones are refused here. */
export const MAX_REQUEST_BYTES = 1024 * 1024;

/** Bytes that may lie on a line before the agent's welcome: what it had under way to an earlier host. */
const MAX_STALE_BYTES = 16 * 1024 * 1024;
const MAX_PENDING = 256;
/** Requests that were given up and are still not answered: a line to nowhere. */
const MAX_ABANDONED = 256;
const MAX_UNSENT_BYTES = 4 * 1024 * 1024;
/** The rest of a frame to an earlier host takes these for its own, and is then damaged; see the protocol, "Sessions". */
const PREAMBLE = Buffer.alloc(MAX_FRAME_BYTES);

/** How long an answer may take that waits for nothing in the guest. */
export const REPLY_TIMEOUT_MS = 10_000;

/** The host's ends of the two channels. The session owns them from now on. */
export interface AgentLines {
  readonly control: Duplex;
  readonly streams: Duplex;
}

/** What the agent says of itself when it is greeted. */
export interface AgentFacts {
  readonly agent: string;
  readonly bootId: string | undefined;
  /** Why the guest did not come up; then it takes few requests. */
  readonly failure: string | undefined;
  /** Of the last identity that the guest was given. */
  readonly token: Buffer | undefined;
}

interface Pending {
  readonly type: RequestType;
  readonly answer: Deferred<FieldReader>;
  abandoned: boolean;
  readonly options: CallOptions;
}

export interface Greeting {
  /** Nothing was half sent to the agent before: it need not be told where a frame begins. */
  readonly isClean?: boolean;
}

export interface CallOptions {
  /** `Infinity` for what lasts as long as its signal lets it. */
  readonly timeoutMs?: number;
  /** Gets the answer to a request that was given up, to undo what it did. */
  readonly onLate?: (reply: FieldReader) => void;
  /** It was not done and will not be: refused by the agent, sooner or later, or never sent. */
  readonly onRefused?: () => void;
}

type Reading = (frame: Frame) => void;

export class AgentSession {
  readonly #id = randomBytes(8).readBigUInt64LE() | 1n;
  readonly #lines: AgentLines;
  readonly #pending = new Map<number, Pending>();
  readonly #ends = new Map<number, Deferred<FieldReader>>();
  readonly #outputs = new Map<number, AgentOutput>();
  readonly #inputs = new Map<number, AgentInput>();
  readonly #welcomes = { control: deferred<FieldReader>(), streams: deferred<FieldReader>() };
  readonly #breaking = new AbortController();
  #nextId = 1;
  #nextStream = 1;
  #abandoned = 0;
  /** What may still come for streams that are forgotten: their last bytes and words were under way. */
  #staleAllowance = 0;

  private constructor(lines: AgentLines) {
    this.#lines = lines;
    this.#listen('control', (frame) => this.#takeControl(frame));
    this.#listen('streams', (frame) => this.#takeStreams(frame));
    // Nobody may be waiting for one of them when the session ends.
    for (const { promise } of Object.values(this.#welcomes)) promise.catch(() => undefined);
  }

  /** Greets the agent. Rejects with RoostError, or the signal's reason; the lines are destroyed then. */
  static async open(
    lines: AgentLines,
    signal: AbortSignal,
    greeting: Greeting = {},
  ): Promise<{ readonly session: AgentSession; readonly facts: AgentFacts }> {
    const session = new AgentSession(lines);
    try {
      return { session, facts: await session.#greet(greeting, signal) };
    } catch (error) {
      session.break(agentGone('it was not greeted'));
      throw error instanceof FieldError ? nonsense('hello', error) : error;
    }
  }

  /** Aborts with the reason when the session ends. */
  get broken(): AbortSignal {
    return this.#breaking.signal;
  }

  /** Ends the session; whoever waits on it is told. May be called more than once. */
  break(why: RoostError): void {
    if (this.broken.aborted) return;
    this.#breaking.abort(why);
    this.#lines.control.destroy();
    this.#lines.streams.destroy();
    for (const welcome of Object.values(this.#welcomes)) welcome.reject(why);
    for (const { answer } of this.#pending.values()) answer.reject(why);
    for (const end of this.#ends.values()) end.reject(why);
    for (const stream of [...this.#outputs.values(), ...this.#inputs.values()]) stream.destroy(why);
    for (const map of [this.#pending, this.#ends, this.#outputs, this.#inputs]) map.clear();
  }

  /**
   * Asks, and resolves with the fields of the answer. Rejects with RoostError: what the agent refused, what is wrong
   * with its answer, or that none came; or with the signal's reason.
   */
  async call(
    type: RequestType,
    fields: FieldWriter,
    signal: AbortSignal,
    options: CallOptions = {},
  ): Promise<FieldReader> {
    const { timeoutMs = REPLY_TIMEOUT_MS } = options;
    const payload = fields.payload();
    try {
      signal.throwIfAborted();
      this.broken.throwIfAborted();
      this.#admit(type, payload);
    } catch (error) {
      options.onRefused?.();
      throw error;
    }
    const id = this.#newRequestId();
    const pending: Pending = { type, answer: deferred<FieldReader>(), abandoned: false, options };
    // It may be given up before it is answered.
    pending.answer.promise.catch(() => undefined);
    this.#pending.set(id, pending);
    using limit = deadline(timeoutMs, signal);
    this.#send('control', encodeFrames({ type, id, session: this.#id }, payload));
    try {
      return await waitOrAbort(pending.answer.promise, limit.signal);
    } catch (error) {
      if (this.#pending.has(id)) this.#abandon(id, pending);
      if (!(error instanceof DeadlineError) || signal.aborted) throw error;
      throw new RoostError('DeadlineExceeded', `The guest's agent gave no answer to ${type}`, {
        cause: error,
        data: { request: type, timeoutMs },
        hint: 'Whether the guest has done it is not known. The guest may be too busy, or its agent broken.',
      });
    }
  }

  /** A stream that the agent writes to under the returned id, once a request has named it. */
  openOutput(): { readonly id: number; readonly output: AgentOutput } {
    const id = this.#nextStream++;
    const output = new AgentOutput(this.#streamLine(id));
    this.#outputs.set(id, output);
    return { id, output };
  }

  openInput(): { readonly id: number; readonly input: AgentInput } {
    const id = this.#nextStream++;
    const input = new AgentInput(this.#streamLine(id));
    this.#inputs.set(id, input);
    return { id, input };
  }

  /** The request that named them was refused, or whatever they belonged to is gone: what still comes is nobody's. */
  forgetStreams(ids: readonly (number | undefined)[], why?: Error): void {
    for (const id of ids) {
      if (id === undefined) continue;
      const output = this.#outputs.get(id);
      const input = this.#inputs.get(id);
      if (!output && !input) continue;
      this.#outputs.delete(id);
      this.#inputs.delete(id);
      this.#staleAllowance += 16 + (output?.granted ?? 0);
      output?.destroy(why);
      input?.destroy(why);
    }
  }

  /**
   * Resolves with how a program of this number ends; register it before the agent is asked to start it. Throws RoostError
   * AlreadyExists if the end of one of this number is waited for.
   */
  expectEnd(process: number): Promise<FieldReader> {
    if (this.#ends.has(process)) {
      throw new RoostError('AlreadyExists', `There is a program ${process} in the microVM already`, {
        data: { process },
        hint: 'Choose another number, or wait until that one has ended.',
      });
    }
    const end = deferred<FieldReader>();
    end.promise.catch(() => undefined);
    this.#ends.set(process, end);
    return end.promise;
  }

  forgetEnd(process: number): void {
    this.#ends.delete(process);
  }

  async #greet({ isClean = false }: Greeting, signal: AbortSignal): Promise<AgentFacts> {
    const hello = new FieldWriter()
      .u16('version', PROTOCOL_VERSION)
      .u16('versionMax', PROTOCOL_VERSION)
      .payload();
    for (const name of ['control', 'streams'] as const) {
      const frame = encodeFrame({ type: 'hello', id: 0, session: this.#id }, hello);
      this.#send(name, isClean ? frame : [PREAMBLE, ...frame]);
    }
    const { control, streams } = this.#welcomes;
    const said = await waitOrAbort(control.promise, signal);
    await waitOrAbort(streams.promise, signal);
    if (required(said.u16('version'), 'version') !== PROTOCOL_VERSION) throw nonsense('hello');
    const message = said.text('message', 1024);
    return {
      agent: guestText(required(said.text('agent', 256), 'agent'), 128),
      bootId: maybe(said.text('bootId', 64), (text) => guestText(text, 64)),
      failure: said.u8('state') === 1 ? undefined : guestText(message ?? 'it does not say why', 512),
      token: maybe(said.bytes('token', 64), (token) => Buffer.from(token)),
    };
  }

  #admit(type: RequestType, payload: Buffer): void {
    if (payload.length > MAX_REQUEST_BYTES) {
      throw new RoostError('InvalidArgument', `The request ${type} has ${payload.length} bytes`, {
        data: { request: type, maxBytes: MAX_REQUEST_BYTES },
        hint: 'Arguments and environment together have to be smaller.',
      });
    }
    const unsent = this.#lines.control.writableLength;
    if (this.#pending.size < MAX_PENDING && unsent < MAX_UNSENT_BYTES) return;
    throw new RoostError(
      'Unavailable',
      `${this.#pending.size} requests wait for the microVM's agent already`,
      {
        data: { request: type, unsentBytes: unsent },
        hint: 'Try again when some of them have ended.',
      },
    );
  }

  #newRequestId(): number {
    const id = this.#nextId;
    this.#nextId = id === 0xffff_ffff ? 1 : id + 1;
    return this.#pending.has(id) ? this.#newRequestId() : id;
  }

  /** Its answer may still come, and is then nobody's but that of `onLate`. */
  #abandon(id: number, pending: Pending): void {
    pending.abandoned = true;
    this.#abandoned += 1;
    if (this.#abandoned > MAX_ABANDONED) {
      this.break(agentGone('it left too many requests without an answer'));
      return;
    }
    this.#send('control', encodeFrame({ type: 'cancel', id, session: this.#id }, Buffer.alloc(0)));
  }

  #streamLine(id: number): StreamLine {
    const say = (type: FrameType, payload: Uint8Array): void =>
      this.#send('streams', encodeFrame({ type, id, session: this.#id }, payload));
    return {
      data: (bytes) => say('data', bytes),
      credit: (bytes) => {
        const payload = Buffer.alloc(4);
        payload.writeUInt32LE(bytes);
        say('credit', payload);
      },
      end: () => say('end', Buffer.alloc(0)),
      stop: () => say('stop', Buffer.alloc(0)),
    };
  }

  #send(line: keyof AgentLines, pieces: readonly Uint8Array[]): void {
    if (this.broken.aborted) return;
    for (const piece of pieces) this.#lines[line].write(piece);
  }

  /** A line whose bytes are frames. Before the welcome others' bytes may be on it, afterwards none. */
  #listen(name: keyof AgentLines, take: Reading): void {
    const line = this.#lines[name];
    const reader = new FrameReader(this.#id);
    let welcomed = false;
    let allowed = MAX_STALE_BYTES;
    line.on('data', (chunk: Buffer) => {
      try {
        for (const frame of reader.push(chunk)) {
          if (this.broken.aborted) return;
          if (frame.flags !== 0) throw new ProtocolError('a frame has flags that mean nothing');
          if (welcomed) {
            take(frame);
            continue;
          }
          this.#takeWelcome(name, frame);
          welcomed = true;
          allowed = reader.garbageBytes;
        }
        if (reader.garbageBytes > allowed) throw new ProtocolError('what came is no frame');
      } catch (error) {
        if (!(error instanceof ProtocolError || error instanceof FieldError)) throw error;
        this.break(agentGone(error.message, error));
      }
    });
    line.on('error', (error) => this.break(agentGone(`the channel failed: ${error.message}`)));
    line.on('close', () => this.break(agentGone('the channel was closed')));
  }

  #takeWelcome(name: keyof AgentLines, frame: Frame): void {
    const fields = FieldReader.of(frame.payload);
    if (frame.type === 'error' && name === 'control') {
      throw new ProtocolError(`it speaks version ${fields.u16('version') ?? 'unknown'} of the protocol`);
    }
    if (frame.type !== 'welcome') throw new ProtocolError('something came before its welcome');
    this.#welcomes[name].resolve(fields);
  }

  #takeControl(frame: Frame): void {
    switch (frame.type) {
      case 'reply':
      case 'error':
        this.#takeAnswer(frame, frame.type);
        return;
      case 'exited': {
        const end = this.#ends.get(frame.id);
        if (!end) throw new ProtocolError('a program ended that was not expected to');
        const fields = FieldReader.of(frame.payload);
        this.#ends.delete(frame.id);
        end.resolve(fields);
        return;
      }
      default:
        throw new ProtocolError(`${frame.type ?? 'an unknown frame'} came on the control channel`);
    }
  }

  #takeAnswer(frame: Frame, kind: 'reply' | 'error'): void {
    const pending = this.#pending.get(frame.id);
    if (!pending) throw new ProtocolError('an answer came that nobody had asked for');
    // What cannot be read breaks the session: whoever waits for it has to be known still, to be told.
    const fields = FieldReader.of(frame.payload);
    const refused = kind === 'error' ? refusal(pending.type, fields) : undefined;
    this.#pending.delete(frame.id);
    if (pending.abandoned) this.#abandoned -= 1;
    if (refused) {
      pending.options.onRefused?.();
      pending.answer.reject(refused);
    } else if (pending.abandoned) pending.options.onLate?.(fields);
    else pending.answer.resolve(fields);
  }

  #takeStreams(frame: Frame): void {
    const output = this.#outputs.get(frame.id);
    const input = this.#inputs.get(frame.id);
    switch (frame.type) {
      case 'data':
        if (output) output.receive(frame.payload);
        else this.#takeStale(frame);
        return;
      case 'end':
        if (!output) return this.#takeStale(frame);
        this.#outputs.delete(frame.id);
        return output.receiveEnd(this.#endError(frame));
      case 'stop':
        if (!input) return this.#takeStale(frame);
        return input.receiveStop();
      case 'credit':
        if (frame.payload.length !== 4) throw new ProtocolError('a credit without a number');
        if (input) input.receiveCredit(frame.payload.readUInt32LE());
        else this.#takeStale(frame);
        return;
      default:
        throw new ProtocolError(`${frame.type ?? 'an unknown frame'} came on the streams channel`);
    }
  }

  /** An end with an errno is the failure of what the stream came from. */
  #endError(frame: Frame): RoostError | undefined {
    const fields = FieldReader.of(frame.payload);
    return fields.has('errno') ? refusal('readFile', fields) : undefined;
  }

  #takeStale(frame: Frame): void {
    this.#staleAllowance -= 1 + frame.payload.length;
    if (this.#staleAllowance < 0) throw new ProtocolError(`${frame.type ?? ''} came for no stream`);
  }
}

const maybe = <T, R>(value: T | undefined, map: (value: T) => R): R | undefined =>
  value === undefined ? undefined : map(value);
