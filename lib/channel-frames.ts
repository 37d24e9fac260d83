/**
 * Several channels on one line of bytes: each frame is the number of its channel, the length of its payload in four
 * bytes, the most significant first, and the payload. Pure.
 */

const HEADER_BYTES = 5;

export interface ChannelFrame {
  /** 0 to 255. */
  readonly channel: number;
  readonly payload: Buffer;
}

export const encodeChannelFrame = (channel: number, payload: Uint8Array): Buffer => {
  const frame = Buffer.allocUnsafe(HEADER_BYTES + payload.length);
  frame.writeUInt8(channel, 0);
  frame.writeUInt32BE(payload.length, 1);
  frame.set(payload, HEADER_BYTES);
  return frame;
};

/** A frame is longer than was agreed on: nothing behind it can be read. */
export class ChannelFrameError extends Error {
  override readonly name = 'ChannelFrameError';
}

export class ChannelFrameReader {
  readonly #maxPayloadBytes: number;
  #chunks: Buffer[] = [];
  #size = 0;
  /** Fewer bytes than this say nothing new. */
  #needed = HEADER_BYTES;

  constructor(maxPayloadBytes: number) {
    this.#maxPayloadBytes = maxPayloadBytes;
  }

  /** Whether the line ends in the middle of a frame if it ends now. */
  get isInFrame(): boolean {
    return this.#size > 0;
  }

  /** The frames that are whole with these bytes. Their payloads are parts of the chunks. Throws ChannelFrameError. */
  push(chunk: Buffer): readonly ChannelFrame[] {
    this.#chunks.push(chunk);
    this.#size += chunk.length;
    // Put together once per frame and not once per chunk.
    if (this.#size < this.#needed) return [];
    let rest = this.#chunks.length === 1 ? chunk : Buffer.concat(this.#chunks);
    const frames: ChannelFrame[] = [];
    for (;;) {
      this.#needed = HEADER_BYTES;
      if (rest.length < HEADER_BYTES) break;
      const length = rest.readUInt32BE(1);
      if (length > this.#maxPayloadBytes)
        throw new ChannelFrameError(`a frame of ${length} bytes; ${this.#maxPayloadBytes} are the most`);
      this.#needed = HEADER_BYTES + length;
      if (rest.length < this.#needed) break;
      frames.push({ channel: rest.readUInt8(0), payload: rest.subarray(HEADER_BYTES, this.#needed) });
      rest = rest.subarray(this.#needed);
    }
    this.#chunks = rest.length > 0 ? [rest] : [];
    this.#size = rest.length;
    return frames;
  }
}
