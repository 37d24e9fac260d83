/**
 * The streams of bytes to and from programs and files of the guest, as Node's streams, under credit
 * (docs/guest-protocol.md, "Streams"). Neither end ever holds more than the window it has granted: a reader that stops
 * reading stops the program in the guest, and nothing else.
 */
import { Readable, Writable } from 'node:stream';
import { MAX_PAYLOAD_BYTES } from './frames.ts';

/** What the agent may send before it hears that it was read. */
export const OUTPUT_WINDOW_BYTES = 512 * 1024;
/** More than any agent has to grant at once. */
const MAX_CREDIT_BYTES = 16 * 1024 * 1024;
/** Smaller pieces are put together, so that a guest can't fill the host with the cost of many small ones. */
const SMALL_BYTES = 4096;
const BLOCK_BYTES = 16 * 1024;

/** What a stream says to the agent's end of it. */
export interface StreamLine {
  readonly data: (bytes: Uint8Array) => void;
  readonly credit: (bytes: number) => void;
  readonly end: () => void;
  readonly stop: () => void;
}

/** The agent broke a rule of the protocol; its session is of no use any more. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError';
}

/** What a program writes, or a file holds. */
export class AgentOutput extends Readable {
  readonly #line: StreamLine;
  readonly #queue: Buffer[] = [];
  #queuedBytes = 0;
  /** The last block of the queue has room from here on. */
  #blockUsed = BLOCK_BYTES;
  #wanted = false;
  #ended = false;
  #granted = OUTPUT_WINDOW_BYTES;

  /** The window of the request is {@link OUTPUT_WINDOW_BYTES}. */
  constructor(line: StreamLine) {
    super({ highWaterMark: 64 * 1024 });
    this.#line = line;
    // Whoever reads hears of an error by its own listener; nobody's is no reason to end the daemon.
    this.on('error', () => undefined);
  }

  /** Bytes that may still come. */
  get granted(): number {
    return this.#granted;
  }

  /** What the agent sent. Throws ProtocolError if it may not. */
  receive(payload: Buffer): void {
    if (this.#ended) throw new ProtocolError('data came after the end of its stream');
    if (payload.length === 0 || payload.length > this.#granted) {
      throw new ProtocolError(`${payload.length} bytes came where ${this.#granted} were granted`);
    }
    this.#granted -= payload.length;
    if (this.destroyed) return;
    this.#queuedBytes += payload.length;
    this.#enqueue(payload);
    if (this.#wanted) this.#pass();
  }

  /** The agent told the end; `error` is what it was about, if it was a failure. */
  receiveEnd(error: Error | undefined): void {
    if (this.#ended) throw new ProtocolError('a stream ended twice');
    this.#ended = true;
    if (error) this.destroy(error);
    else if (this.#wanted) this.#pass();
  }

  override _read(): void {
    this.#wanted = true;
    this.#pass();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#queue.length = 0;
    this.#queuedBytes = 0;
    if (!this.#ended) this.#line.stop();
    callback(error);
  }

  #enqueue(payload: Buffer): void {
    if (payload.length > SMALL_BYTES) {
      this.#queue.push(payload);
      this.#blockUsed = BLOCK_BYTES;
      return;
    }
    let last = this.#queue.at(-1);
    if (!last || this.#blockUsed + payload.length > BLOCK_BYTES) {
      last = Buffer.allocUnsafeSlow(BLOCK_BYTES).subarray(0, 0);
      this.#queue.push(last);
      this.#blockUsed = 0;
    }
    const whole = Buffer.from(last.buffer, 0, this.#blockUsed + payload.length);
    payload.copy(whole, this.#blockUsed);
    this.#blockUsed += payload.length;
    this.#queue[this.#queue.length - 1] = whole;
  }

  /** Hands on what is there while the reader takes it, and gives the agent credit for what was taken. */
  #pass(): void {
    while (this.#wanted) {
      const next = this.#queue.shift();
      if (!next) break;
      if (this.#queue.length === 0) this.#blockUsed = BLOCK_BYTES;
      this.#queuedBytes -= next.length;
      this.#wanted = this.push(next);
    }
    if (this.#ended) {
      if (this.#queue.length === 0 && !this.readableEnded) this.push(null);
      return;
    }
    const due = OUTPUT_WINDOW_BYTES - this.#granted - this.#queuedBytes - this.readableLength;
    if (due < OUTPUT_WINDOW_BYTES / 4) return;
    this.#granted += due;
    this.#line.credit(due);
  }
}

interface Waiting {
  rest: Buffer;
  readonly done: (error?: Error | null) => void;
}

/** What a program reads, or becomes a file. */
export class AgentInput extends Writable {
  readonly #line: StreamLine;
  #credit = 0;
  #waiting: Waiting | undefined;
  /** The agent has told of the stream, by its first credit; before, nothing on it would find it. */
  #known = false;
  #onKnown: (() => void) | undefined;
  #stopped = false;
  #ended = false;

  constructor(line: StreamLine) {
    super({ highWaterMark: 64 * 1024, decodeStrings: true });
    this.#line = line;
    this.on('error', () => undefined);
  }

  /** The agent takes more. Throws ProtocolError if that is beyond reason. */
  receiveCredit(bytes: number): void {
    if (bytes === 0 || bytes > MAX_CREDIT_BYTES - this.#credit) {
      throw new ProtocolError(`a credit of ${bytes} bytes`);
    }
    this.#credit += bytes;
    if (!this.#known) {
      this.#known = true;
      this.#onKnown?.();
      if (this.destroyed) this.#end();
    }
    this.#send();
  }

  /** Nobody in the guest reads any more. Throws ProtocolError if that was said before. */
  receiveStop(): void {
    if (this.#stopped) throw new ProtocolError('an input was stopped twice');
    this.#stopped = true;
    this.destroy(Object.assign(new Error('The program in the guest reads no more'), { code: 'EPIPE' }));
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    this.#waiting = { rest: chunk, done: callback };
    this.#send();
  }

  override _final(callback: (error?: Error | null) => void): void {
    const end = (): void => {
      this.#end();
      callback();
    };
    if (this.#known) end();
    else this.#onKnown = end;
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    this.#onKnown = undefined;
    if (this.#known) this.#end();
    waiting?.done(error);
    callback(error);
  }

  #end(): void {
    if (this.#ended || this.#stopped) return;
    this.#ended = true;
    this.#line.end();
  }

  #send(): void {
    const waiting = this.#waiting;
    if (!waiting) return;
    while (waiting.rest.length > 0 && this.#credit > 0) {
      const piece = waiting.rest.subarray(0, Math.min(this.#credit, MAX_PAYLOAD_BYTES));
      this.#credit -= piece.length;
      waiting.rest = waiting.rest.subarray(piece.length);
      this.#line.data(piece);
    }
    if (waiting.rest.length > 0) return;
    this.#waiting = undefined;
    waiting.done();
  }
}
