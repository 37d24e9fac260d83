/**
 * The frames of the agent's protocol (docs/guest-protocol.md, "Frames"), as the host's end writes and reads them. Pure.
 *
 * The reader takes only frames of its own session: before the handshake has ended anything may lie on the line, the
 * rest of a frame to an earlier host too, and no length in it is to be believed. What belongs to nothing is counted, and
 * whoever reads decides how much of it is too much.
 */
import { crc32 } from 'node:zlib';

export const HEADER_BYTES = 32;
export const MAX_FRAME_BYTES = 65_536;
export const MAX_PAYLOAD_BYTES = MAX_FRAME_BYTES - HEADER_BYTES;

const MAGIC = 0x5453_528f;
const MAGIC_FIRST_BYTE = 0x8f;
/** Where the parts of a header lie; all numbers are little-endian. */
const at = { type: 4, flags: 5, zero: 6, length: 8, id: 12, session: 16, payloadCrc: 24, crc: 28 } as const;

/** The payload goes on in the next frame of the channel, which has the same type and id. */
export const FLAG_MORE = 1;

export const frameTypes = {
  hello: 0x01,
  welcome: 0x02,
  reply: 0x03,
  error: 0x04,
  exited: 0x05,
  cancel: 0x06,
  data: 0x10,
  end: 0x11,
  stop: 0x12,
  credit: 0x13,
  ping: 0x20,
  inspect: 0x21,
  exec: 0x22,
  attach: 0x23,
  signal: 0x24,
  resize: 0x25,
  release: 0x26,
  processes: 0x27,
  detach: 0x28,
  readFile: 0x30,
  writeFile: 0x31,
  stat: 0x32,
  list: 0x33,
  makeDirectory: 0x34,
  makeLink: 0x35,
  seed: 0x40,
  setClock: 0x41,
  setIdentity: 0x42,
  setLink: 0x43,
  setResolver: 0x44,
  setHosts: 0x45,
  waitLink: 0x46,
  sync: 0x50,
  freeze: 0x51,
  thaw: 0x52,
  mount: 0x53,
  power: 0x54,
  settle: 0x55,
} as const;

export type FrameType = keyof typeof frameTypes;
/** What asks for something and is answered by one `reply` or one `error`. */
export type RequestType = Exclude<
  FrameType,
  'hello' | 'welcome' | 'reply' | 'error' | 'exited' | 'cancel' | 'data' | 'end' | 'stop' | 'credit'
>;

const nameOfType: ReadonlyMap<number, FrameType> = new Map(
  Object.entries(frameTypes).map(([name, number]) => [number, name as FrameType]),
);

export interface Frame {
  /** Undefined for a number that this version does not know. */
  readonly type: FrameType | undefined;
  readonly flags: number;
  /** Of a request, a stream or a process, 32 bits; 0 where there is none. */
  readonly id: number;
  readonly payload: Buffer;
}

export interface FrameHead {
  readonly type: FrameType;
  readonly id: number;
  readonly session: bigint;
  readonly flags?: number;
}

/** One frame in two pieces, so that a payload is not copied. `payload` has at most {@link MAX_PAYLOAD_BYTES}. */
export const encodeFrame = (head: FrameHead, payload: Uint8Array): readonly [Buffer, Uint8Array] => {
  if (payload.length > MAX_PAYLOAD_BYTES)
    throw new RangeError(`a payload of ${payload.length} bytes fits no frame`);
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt32LE(MAGIC, 0);
  header.writeUInt8(frameTypes[head.type], at.type);
  header.writeUInt8(head.flags ?? 0, at.flags);
  header.writeUInt32LE(payload.length, at.length);
  header.writeUInt32LE(head.id, at.id);
  header.writeBigUInt64LE(head.session, at.session);
  header.writeUInt32LE(crc32(payload), at.payloadCrc);
  header.writeUInt32LE(crc32(header.subarray(0, at.crc)), at.crc);
  return [header, payload];
};

/** A payload of any length as as many frames as it takes; an empty one takes one. */
export const encodeFrames = (head: FrameHead, payload: Buffer): readonly Uint8Array[] => {
  const pieces: Uint8Array[] = [];
  for (let from = 0; from === 0 || from < payload.length; from += MAX_PAYLOAD_BYTES) {
    const piece = payload.subarray(from, from + MAX_PAYLOAD_BYTES);
    const flags = from + piece.length < payload.length ? FLAG_MORE : 0;
    pieces.push(...encodeFrame({ ...head, flags }, piece));
  }
  return pieces;
};

export class FrameReader {
  readonly #session: bigint;
  #chunks: Buffer[] = [];
  #size = 0;
  /** Fewer bytes than this say nothing new. */
  #needed = HEADER_BYTES;
  #garbageBytes = 0;

  constructor(session: bigint) {
    this.#session = session;
  }

  /** Bytes so far that belonged to no frame of the session. */
  get garbageBytes(): number {
    return this.#garbageBytes;
  }

  /** Bytes that wait for the rest of their frame; less than a frame's. */
  get pendingBytes(): number {
    return this.#size;
  }

  /** The frames that are whole with these bytes. Their payloads are parts of the chunks. */
  push(chunk: Buffer): readonly Frame[] {
    this.#chunks.push(chunk);
    this.#size += chunk.length;
    // Put together once per frame and not once per chunk.
    if (this.#size < this.#needed) return [];
    const [only] = this.#chunks;
    const bytes = this.#chunks.length === 1 && only ? only : Buffer.concat(this.#chunks);
    const frames: Frame[] = [];
    const rest = this.#read(bytes, frames);
    this.#chunks = rest.length > 0 ? [rest] : [];
    this.#size = rest.length;
    return frames;
  }

  /** Returns what is left over. */
  #read(bytes: Buffer, frames: Frame[]): Buffer {
    this.#needed = HEADER_BYTES;
    let from = 0;
    for (;;) {
      const start = bytes.indexOf(MAGIC_FIRST_BYTE, from);
      this.#garbageBytes += (start === -1 ? bytes.length : start) - from;
      if (start === -1) return bytes.subarray(bytes.length);
      from = start;
      if (bytes.length - from < HEADER_BYTES) return bytes.subarray(from);
      const header = bytes.subarray(from, from + HEADER_BYTES);
      if (!this.#isOurs(header)) {
        this.#garbageBytes += 1;
        from += 1;
        continue;
      }
      const whole = HEADER_BYTES + header.readUInt32LE(at.length);
      if (bytes.length - from < whole) {
        this.#needed = whole;
        return bytes.subarray(from);
      }
      const payload = bytes.subarray(from + HEADER_BYTES, from + whole);
      from += whole;
      if (crc32(payload) !== header.readUInt32LE(at.payloadCrc)) {
        // Damaged as a whole: what is in it is somebody's data and not to be searched for frames.
        this.#garbageBytes += whole;
        continue;
      }
      frames.push({
        type: nameOfType.get(header.readUInt8(at.type)),
        flags: header.readUInt8(at.flags),
        id: header.readUInt32LE(at.id),
        payload,
      });
    }
  }

  #isOurs(header: Buffer): boolean {
    return (
      header.readUInt32LE(0) === MAGIC &&
      header.readBigUInt64LE(at.session) === this.#session &&
      header.readUInt16LE(at.zero) === 0 &&
      header.readUInt32LE(at.length) <= MAX_PAYLOAD_BYTES &&
      crc32(header.subarray(0, at.crc)) === header.readUInt32LE(at.crc)
    );
  }
}
