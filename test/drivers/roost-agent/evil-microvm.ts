/**
 * The guest's end of a microVM's two channels, in memory: speaks the protocol as an agent does unless a test says
 * otherwise. It exists to misbehave.
 */
import { Duplex, type DuplexOptions } from 'node:stream';
import type { AgentLines } from '../../../drivers/roost-agent/agent-session.ts';
import { FieldReader, FieldWriter } from '../../../drivers/roost-agent/fields.ts';
import {
  encodeFrame,
  FrameReader,
  type FrameType,
  MAX_FRAME_BYTES,
} from '../../../drivers/roost-agent/frames.ts';
import { deferred } from '../../../lib/abort.ts';

/** One end of a line in memory; what is written to it is read at the other, with back-pressure. */
class LineEnd extends Duplex {
  other: LineEnd | undefined;
  #resume: (() => void) | undefined;

  constructor(options: DuplexOptions = {}) {
    super({ ...options, allowHalfOpen: false });
    this.on('error', () => undefined);
  }

  override _read(): void {
    const resume = this.#resume;
    this.#resume = undefined;
    resume?.();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: () => void): void {
    const { other } = this;
    if (!other || other.destroyed) callback();
    else if (other.push(chunk)) callback();
    else other.#resume = callback;
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    callback(error);
    const { other } = this;
    queueMicrotask(() => other?.destroy());
  }
}

const pair = (): readonly [LineEnd, LineEnd] => {
  const [here, there] = [new LineEnd(), new LineEnd()];
  here.other = there;
  there.other = here;
  return [here, there];
};

export interface Heard {
  readonly type: FrameType;
  readonly id: number;
  readonly fields: FieldReader;
}

type Answer = (heard: Heard, evil: EvilMicrovm) => void;
type LineName = keyof AgentLines;

export const healthy: Answer = ({ type, id, fields }, evil) => {
  if (type === 'exec') evil.say('control', 'reply', id, new FieldWriter().u32('pid', 7).payload());
  else if (type === 'ping') {
    evil.say('control', 'reply', id, new FieldWriter().bytes('echo', fields.bytes('echo', 64)).payload());
  } else if (type !== 'cancel') evil.say('control', 'reply', id, Buffer.alloc(0));
};

export class EvilMicrovm {
  readonly lines: AgentLines;
  /** Does with a request what it likes. */
  answer: Answer = healthy;
  /** What it says to a hello, on each line. */
  greet: (line: LineName, evil: EvilMicrovm) => void = (line, evil) =>
    evil.say(line, 'welcome', 0, evil.welcome());
  /** All that came but hellos, in the order of each line. */
  readonly heard: { readonly line: LineName; readonly type: FrameType; readonly id: number }[] = [];
  readonly #ends: Readonly<Record<LineName, LineEnd>>;
  readonly #sessions = new Map<LineName, bigint>();
  readonly #waiters = new Set<{ readonly isSo: () => boolean; readonly resolve: () => void }>();

  constructor() {
    const [control, controlEnd] = pair();
    const [streams, streamsEnd] = pair();
    this.lines = { control, streams };
    this.#ends = { control: controlEnd, streams: streamsEnd };
    this.#listen('control');
    this.#listen('streams');
  }

  welcome(): Buffer {
    return new FieldWriter().u16('version', 1).text('agent', 'evil').u8('state', 1).payload();
  }

  /** A frame of the session. */
  say(line: LineName, type: FrameType, id: number, payload: Uint8Array): void {
    const session = this.#sessions.get(line) ?? 0n;
    this.bytes(line, Buffer.concat(encodeFrame({ type, id, session }, payload)));
  }

  /** Any bytes; resolves to false when the host does not take them just now. */
  bytes(line: LineName, bytes: Buffer): boolean {
    return this.#ends[line].destroyed ? false : this.#ends[line].write(bytes);
  }

  /** Says the same again and again until the host has had enough; resolves with the bytes that it took. */
  async flood(line: LineName, bytes: Buffer, maxBytes: number): Promise<number> {
    const end = this.#ends[line];
    let sent = 0;
    while (!end.destroyed && sent < maxBytes) {
      sent += bytes.length;
      if (!end.write(bytes)) {
        await new Promise<void>((resolve) => {
          end.once('drain', resolve);
          end.once('close', resolve);
        });
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
    return sent;
  }

  session(line: LineName): bigint {
    return this.#sessions.get(line) ?? 0n;
  }

  get isGone(): boolean {
    return this.#ends.control.destroyed && this.#ends.streams.destroyed;
  }

  close(): void {
    this.#ends.control.destroy();
    this.#ends.streams.destroy();
  }

  /** Resolves when it is so; looked at whenever something came. */
  async until(isSo: () => boolean): Promise<void> {
    if (isSo()) return;
    const { promise, resolve } = deferred<void>();
    this.#waiters.add({ isSo, resolve });
    await promise;
  }

  #listen(line: LineName): void {
    let head = Buffer.alloc(0);
    let reader: FrameReader | undefined;
    this.#ends[line].on('data', (chunk: Buffer) => {
      let bytes = chunk;
      if (!reader) {
        head = Buffer.concat([head, chunk]);
        if (head.length < MAX_FRAME_BYTES + 32) return;
        const session = head.readBigUInt64LE(MAX_FRAME_BYTES + 16);
        this.#sessions.set(line, session);
        reader = new FrameReader(session);
        bytes = head.subarray(MAX_FRAME_BYTES);
      }
      for (const { type, id, payload } of reader.push(bytes)) {
        if (type === 'hello') this.greet(line, this);
        else if (type) this.#take(line, type, id, payload);
      }
      for (const waiter of [...this.#waiters].filter(({ isSo }) => isSo())) {
        this.#waiters.delete(waiter);
        waiter.resolve();
      }
    });
  }

  #take(line: LineName, type: FrameType, id: number, payload: Buffer): void {
    this.heard.push({ line, type, id });
    if (line === 'control') this.answer({ type, id, fields: FieldReader.of(payload) }, this);
  }
}
