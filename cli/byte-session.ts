/**
 * A program in a guest, or its console, on this terminal: its streams are ours, its size is that of our terminal, its end
 * is told. Rules it keeps: whatever ends it, the terminal is as before; no key but the one that leaves is kept from the
 * other side; nothing is read faster than it is taken.
 */
import type { Socket } from 'node:net';
import { deferred } from '../lib/abort.ts';
import { ChannelFrameReader, encodeChannelFrame } from '../lib/channel-frames.ts';
import {
  MAX_SESSION_PAYLOAD_BYTES,
  type SessionEnd,
  sessionChannels,
  type TerminalSize,
} from '../protocol/byte-session.ts';
import { failureFromWire, unreachable } from './failure.ts';
import type { Io } from './io.ts';
import { enterRawMode } from './raw-mode.ts';

/** Ctrl-]. */
const ESCAPE_BYTE = 0x1d;

export interface ByteSessionOptions {
  /** What is at the other end. */
  readonly of: 'program' | 'console';
  /** Keys and input go there. */
  readonly interactive: boolean;
  /** It has a terminal: ours, as it is. */
  readonly terminal: boolean;
  /** Whether Ctrl-] leaves it to itself. */
  readonly mayLeave: boolean;
  /** Called before anything is shown: from then on each key goes on as it is. */
  readonly onOpen?: () => void;
}

const lostHints: Readonly<Record<ByteSessionOptions['of'], string>> = {
  program: 'The connection to roostd ended. The program may run on.',
  console: 'The connection to roostd ended. Attach again when it is back; the guest goes on.',
};

export type ByteSessionEnding = SessionEnd | 'left';

/** Undefined where there is no terminal. */
export const terminalSizeOf = ({ stdout }: Io): TerminalSize | undefined =>
  stdout.isTTY === true && (stdout.rows ?? 0) > 0 && (stdout.columns ?? 0) > 0
    ? { rows: stdout.rows ?? 0, columns: stdout.columns ?? 0 }
    : undefined;

const json = (value: object): Buffer => Buffer.from(JSON.stringify(value));

class Session {
  readonly over = deferred<ByteSessionEnding>();
  readonly #socket: Socket;
  readonly #io: Io;
  readonly #options: ByteSessionOptions;
  readonly #reader = new ChannelFrameReader(MAX_SESSION_PAYLOAD_BYTES);

  constructor(socket: Socket, io: Io, options: ByteSessionOptions) {
    this.#socket = socket;
    this.#io = io;
    this.#options = options;
  }

  readonly onSocketData = (chunk: Buffer): void => {
    for (const { channel, payload } of this.#reader.push(chunk)) {
      if (channel === sessionChannels.end) this.over.resolve(JSON.parse(payload.toString()) as SessionEnd);
      else this.#show(channel === sessionChannels.stderr ? this.#io.stderr : this.#io.stdout, payload);
    }
  };

  readonly onLost = (error?: Error): void =>
    this.over.reject(
      unreachable(
        `The ${this.#options.of} was lost${error === undefined ? '' : `: ${error.message}`}`,
        lostHints[this.#options.of],
        error,
      ),
    );

  readonly onAbort = (): void => this.over.reject(this.#io.signal.reason as Error);

  readonly onInput = (chunk: Buffer | string): void => {
    const bytes = Buffer.from(chunk);
    const escape = this.#options.mayLeave && this.#options.terminal ? bytes.indexOf(ESCAPE_BYTE) : -1;
    const sent = escape < 0 ? bytes : bytes.subarray(0, escape);
    for (let from = 0; from < sent.length; from += MAX_SESSION_PAYLOAD_BYTES)
      this.#send(sessionChannels.stdin, sent.subarray(from, from + MAX_SESSION_PAYLOAD_BYTES));
    if (escape >= 0) this.over.resolve('left');
  };

  readonly onInputEnd = (): void => this.#send(sessionChannels.stdin, Buffer.alloc(0));

  readonly onResize = (): void => {
    const size = terminalSizeOf(this.#io);
    if (size) this.#send(sessionChannels.resize, json(size));
  };

  #send(channel: number, payload: Buffer): void {
    if (this.#socket.destroyed || this.#socket.write(encodeChannelFrame(channel, payload))) return;
    this.#io.stdin.pause();
    this.#socket.once('drain', () => this.#io.stdin.resume());
  }

  #show(stream: NodeJS.WritableStream, bytes: Buffer): void {
    if (stream.write(bytes)) return;
    this.#socket.pause();
    stream.once('drain', () => this.#socket.resume());
  }
}

/** Carries a session until it ends or is left. Throws the signal's reason, or CliFailure. */
const carry = async (socket: Socket, io: Io, options: ByteSessionOptions): Promise<ByteSessionEnding> => {
  const session = new Session(socket, io, options);
  const { onAbort, onInput, onInputEnd, onLost, onResize, onSocketData, over } = session;
  const onClose = (): void => onLost();
  io.signal.addEventListener('abort', onAbort, { once: true });
  socket.on('data', onSocketData);
  socket.once('close', onClose);
  socket.once('error', onLost);
  if (options.terminal) io.stdout.on('resize', onResize);
  if (options.interactive) {
    io.stdin.on('data', onInput);
    io.stdin.once('end', onInputEnd);
    io.stdin.resume();
  }
  socket.resume();
  if (options.terminal) onResize();
  try {
    if (io.signal.aborted) onAbort();
    return await over.promise;
  } finally {
    io.signal.removeEventListener('abort', onAbort);
    io.stdout.off('resize', onResize);
    if (options.interactive) {
      io.stdin.off('data', onInput);
      io.stdin.off('end', onInputEnd);
      io.stdin.pause();
      // An open terminal or pipe would keep the process.
      io.stdin.unref?.();
    }
    socket.off('close', onClose);
    socket.destroy();
  }
};

/** The same with the terminal in raw mode, if there is one at the other end. */
export const carryByteSession = async (
  socket: Socket,
  io: Io,
  options: ByteSessionOptions,
): Promise<ByteSessionEnding> => {
  const restore = options.terminal && options.interactive ? enterRawMode(io) : () => undefined;
  try {
    options.onOpen?.();
    return await carry(socket, io, options);
  } finally {
    restore();
  }
};

/** Throws CliFailure for a session that ended by an error. */
export const exitCodeOf = (end: SessionEnd): number => {
  if ('error' in end) throw failureFromWire(end.error);
  if ('signal' in end) return 128 + end.signal;
  return 'closed' in end ? 0 : end.exitCode;
};
