/**
 * One connection to the host end of an agent's channel. The agent's protocol has neither greeting nor ids, and what
 * comes may be the rest of an answer to somebody before: a line is of use only after `sync`, and only as long as every
 * byte on it was asked for. Whatever else comes ends the line at once, so that a guest that floods its port keeps
 * nobody busy: without a client QEMU throws away what the guest writes.
 */
import { randomInt } from 'node:crypto';
import type { Socket } from 'node:net';
import { type Deferred, deferred, waitOrAbort } from '../../../lib/abort.ts';
import { connectUnixSocket } from '../../../lib/connect-unix-socket.ts';
import { type JsonReadResult, JsonValueReader } from '../../../lib/json-values.ts';

/** Deeper than any answer of the agent. */
const MAX_DEPTH = 16;
/** Bytes that may come before the answer to a sync: more than the longest answer that nobody waits for any more. */
const MAX_STALE_BYTES = 64 * 1024 * 1024;
const MAX_SYNC_REPLY_BYTES = 64 * 1024;
/** Ids beyond 2^53 lose precision; this many is what randomInt gives. */
const SYNC_IDS = 2 ** 48 - 1;
/** No UTF-8 text contains it: it ends whatever either parser had begun. */
const RESET = Buffer.from([0xff]);

/** The line is of no use any more. */
export class AgentLineError extends Error {
  override readonly name = 'AgentLineError';
}

interface Expected {
  readonly reader: JsonValueReader;
  readonly answer: Deferred<unknown>;
  /** Decides on what was read; undefined leaves the answer open. */
  readonly take: (result: JsonReadResult) => { readonly value: unknown } | undefined;
  bytes: number;
}

type Message = Readonly<Record<string, unknown>>;

export class AgentLine {
  readonly #socket: Socket;
  #expected: Expected | undefined;
  #broken: AgentLineError | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('error', (error) => this.break(`the channel failed: ${error.message}`));
    socket.on('close', () => this.break('QEMU closed the channel'));
  }

  /** Connects. QEMU serves one client at a time. Rejects with AgentLineError, or the signal's reason. */
  static async open(path: string, signal: AbortSignal): Promise<AgentLine> {
    try {
      return new AgentLine(await connectUnixSocket(path, signal));
    } catch (error) {
      signal.throwIfAborted();
      throw new AgentLineError('the channel cannot be reached', { cause: error });
    }
  }

  get isBroken(): boolean {
    return this.#broken !== undefined;
  }

  /** Ends the line; whoever waits on it is told why. May be called more than once. */
  break(why: string): void {
    if (this.#broken) return;
    this.#broken = new AgentLineError(why);
    this.#socket.destroy();
    this.#expected?.answer.reject(this.#broken);
    this.#expected = undefined;
  }

  /**
   * Finds out that the agent listens and that nothing old is left on the line (guest-sync-delimited). Everything before
   * the answer is thrown away, whatever it is.
   */
  async sync(signal: AbortSignal): Promise<void> {
    const id = randomInt(SYNC_IDS);
    this.#socket.write(RESET);
    const take: Expected['take'] = (result) =>
      result.kind === 'value' && isMessage(result.value) && result.value['return'] === id
        ? { value: id }
        : undefined;
    await this.#exchange('guest-sync-delimited', { id }, MAX_SYNC_REPLY_BYTES, take, signal);
  }

  /** Asks; resolves with the whole message that comes, whatever is in it. */
  async ask(
    command: string,
    commandArguments: Message,
    maxReplyBytes: number,
    signal: AbortSignal,
  ): Promise<Message> {
    const take: Expected['take'] = (result) => {
      if (result.kind === 'error') {
        this.break(`what came is no answer: ${result.message}`);
        return undefined;
      }
      if (isMessage(result.value)) return { value: result.value };
      this.break('what came is no answer: it is no object');
      return undefined;
    };
    return (await this.#exchange(command, commandArguments, maxReplyBytes, take, signal)) as Message;
  }

  /** Given up, the line is broken: the answer may still come, and nothing would tell it from the next one. */
  async #exchange(
    command: string,
    commandArguments: Message,
    maxValueBytes: number,
    take: Expected['take'],
    signal: AbortSignal,
  ): Promise<unknown> {
    if (this.#broken) throw this.#broken;
    signal.throwIfAborted();
    const answer = deferred<unknown>();
    const reader = new JsonValueReader({ maxValueBytes, maxDepth: MAX_DEPTH });
    this.#expected = { reader, answer, take, bytes: 0 };
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: commandArguments })}\n`);
    try {
      return await waitOrAbort(answer.promise, signal);
    } catch (error) {
      this.break('the answer was given up');
      throw error;
    }
  }

  #receive(chunk: Buffer): void {
    const expected = this.#expected;
    if (!expected) {
      if (!isBlank(chunk)) this.break('something came that nobody had asked for');
      return;
    }
    expected.bytes += chunk.length;
    let answered = false;
    for (const result of expected.reader.push(chunk)) {
      if (this.#broken) return;
      if (answered) {
        // It is of the guest's making what came first; what follows belongs to nothing.
        this.break('more came than had been asked for');
        return;
      }
      const taken = expected.take(result);
      if (!taken) continue;
      answered = true;
      this.#expected = undefined;
      expected.answer.resolve(taken.value);
    }
    if (answered && expected.reader.pending > 0) this.break('more came than had been asked for');
    if (!answered && expected.bytes > MAX_STALE_BYTES) this.break('too much came that is no answer');
  }
}

const isMessage = (value: unknown): value is Message =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Line ends between answers. */
const isBlank = (chunk: Buffer): boolean =>
  chunk.every((byte) => byte === 0x0a || byte === 0x0d || byte === 0x20 || byte === 0x09);
