/** A program in a guest, or its console, as the frames of protocol/byte-session.ts: what a connection carries, or any door. */
import { constants } from 'node:os';
import { Duplex, type Readable, type Writable } from 'node:stream';
import { finished } from 'node:stream/promises';
import type { ProgramEnd, ProgramLine } from '../../drivers/driver.ts';
import { deadline, deferred, waitOrAbort } from '../../lib/abort.ts';
import {
  type ChannelFrame,
  ChannelFrameError,
  ChannelFrameReader,
  encodeChannelFrame,
} from '../../lib/channel-frames.ts';
import {
  MAX_SESSION_PAYLOAD_BYTES,
  type SessionClosed,
  type SessionEnd,
  sessionChannels,
} from '../../protocol/byte-session.ts';
import { sessionSignal, terminalSize } from '../../protocol/byte-session-forms.ts';
import { RoostError, toRoostError } from '../../protocol/errors.ts';
import type { House } from './house.ts';

/** What a program left running may keep its outputs open; they are waited for so long after its end. */
const LAST_WORDS_MS = 2_000;
const CONTROL_TIMEOUT_MS = 10_000;

/** What a session carries. `ended` rejects with RoostError for an end that is no ordinary one. */
export interface SessionLine extends Omit<ProgramLine, 'ended'> {
  readonly ended: Promise<ProgramEnd | SessionClosed>;
}

const sessionEnd = (end: ProgramEnd | SessionClosed): SessionEnd => {
  if ('closed' in end) return end;
  return end.signal === undefined ? { exitCode: end.exitCode ?? 0 } : { signal: end.signal };
};

export class ByteSession extends Duplex {
  readonly #line: SessionLine;
  readonly #hangsUp: boolean;
  readonly #house: Pick<House, 'clock' | 'stopping' | 'log'>;
  readonly #reader = new ChannelFrameReader(MAX_SESSION_PAYLOAD_BYTES);
  /** The end is told, or is nobody's to hear. */
  #hasEnded = false;

  /** Owns the line from here on. `hangsUp`: a program that is left gets SIGHUP. */
  constructor(line: SessionLine, hangsUp: boolean, house: Pick<House, 'clock' | 'stopping' | 'log'>) {
    super({ allowHalfOpen: true });
    this.#line = line;
    this.#hangsUp = hangsUp;
    this.#house = house;
    // Whoever carries it hears of an error by its own listener.
    this.on('error', () => undefined);
    // A program may close its input and run on.
    line.stdin?.on('error', () => undefined);
    const outputs = Promise.all([
      this.#pump(line.stdout, sessionChannels.stdout),
      this.#pump(line.stderr, sessionChannels.stderr),
    ]);
    void this.#follow(outputs);
  }

  override _read(): void {
    this.#line.stdout?.resume();
    this.#line.stderr?.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#take(chunk)
      .catch((error: unknown) => this.#giveUp({ error: refusal(error).toWire() }))
      .finally(() => done());
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#line.stdin?.end();
    done();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#hangUp();
    done(error);
  }

  /** The program is left to itself. */
  #hangUp(): void {
    if (!this.#hasEnded && this.#hangsUp)
      void this.#control((limit) => this.#line.kill(constants.signals.SIGHUP, limit));
    this.#hasEnded = true;
    this.#line.release();
  }

  #giveUp(end: SessionEnd): void {
    if (this.#hasEnded) return;
    this.#hangUp();
    this.#tell(end);
  }

  #tell(end: SessionEnd): void {
    this.push(encodeChannelFrame(sessionChannels.end, Buffer.from(JSON.stringify(end))));
    this.push(null);
  }

  /** Hands on what the program writes, no faster than it is taken. Resolves when no more comes. */
  async #pump(stream: Readable | undefined, channel: number): Promise<void> {
    if (!stream) return;
    stream.on('data', (bytes: Buffer) => {
      if (this.#hasEnded) return;
      let goesOn = true;
      for (let from = 0; from < bytes.length; from += MAX_SESSION_PAYLOAD_BYTES)
        goesOn = this.push(
          encodeChannelFrame(channel, bytes.subarray(from, from + MAX_SESSION_PAYLOAD_BYTES)),
        );
      if (!goesOn) stream.pause();
    });
    const broke = (error: Error): void => this.#giveUp({ error: toRoostError(error).toWire() });
    if (stream.errored) broke(stream.errored);
    else stream.once('error', broke);
    await finished(stream, { writable: false }).catch(() => undefined);
  }

  async #follow(outputs: Promise<unknown>): Promise<void> {
    let end: SessionEnd;
    try {
      end = sessionEnd(await this.#line.ended);
      await this.#lastWords(outputs);
    } catch (error) {
      end = { error: toRoostError(error).toWire() };
    }
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#tell(end);
  }

  async #lastWords(outputs: Promise<unknown>): Promise<void> {
    const late = deferred<void>();
    const cancelTimer = this.#house.clock.after(LAST_WORDS_MS, late.resolve);
    await Promise.race([outputs, late.promise]).finally(cancelTimer);
  }

  async #take(chunk: Buffer): Promise<void> {
    if (this.#hasEnded) return;
    for (const frame of this.#reader.push(chunk)) await this.#takeFrame(frame);
  }

  async #takeFrame({ channel, payload }: ChannelFrame): Promise<void> {
    switch (channel) {
      case sessionChannels.stdin:
        await this.#input(payload);
        return;
      case sessionChannels.resize: {
        const size = terminalSize.parse(JSON.parse(payload.toString()));
        await this.#control((limit) => this.#line.resize(size, limit));
        return;
      }
      case sessionChannels.signal: {
        const { signal } = sessionSignal.parse(JSON.parse(payload.toString()));
        await this.#control((limit) => this.#line.kill(signal, limit));
        return;
      }
      default:
        throw new ChannelFrameError(`there is no channel ${channel} from a client`);
    }
  }

  async #input(payload: Buffer): Promise<void> {
    const { stdin } = this.#line;
    if (!stdin || stdin.destroyed || stdin.writableEnded) return;
    if (payload.length === 0) stdin.end();
    else if (!stdin.write(payload)) await drained(stdin);
  }

  /** What is refused of it, as for a program that has ended meanwhile, changes nothing for the session. */
  async #control(act: (limit: AbortSignal) => Promise<void>): Promise<void> {
    using limit = deadline(CONTROL_TIMEOUT_MS, this.#house.stopping);
    await waitOrAbort(act(limit.signal), limit.signal).catch((err: unknown) =>
      this.#house.log.debug({ err }, 'a program in a guest could not be told'),
    );
  }
}

/** Resolves when more may be written, or nobody reads any more. */
const drained = async (stream: Writable): Promise<void> => {
  const over = deferred<void>();
  stream.once('drain', over.resolve);
  stream.once('close', over.resolve);
  await over.promise;
  stream.off('drain', over.resolve);
  stream.off('close', over.resolve);
};

const refusal = (error: unknown): RoostError =>
  new RoostError(
    'InvalidArgument',
    `What the client sent is no frame of a session: ${toRoostError(error).message}`,
    {
      cause: error,
      hint: 'See protocol/byte-session.ts for the frames.',
    },
  );
