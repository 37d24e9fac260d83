import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ChannelFrameError, ChannelFrameReader, encodeChannelFrame } from '../../lib/channel-frames.ts';

const frame = fc.record({ channel: fc.nat(255), payload: fc.uint8Array({ maxLength: 40 }) });

/** The bytes in pieces that end at these places. */
const cut = (bytes: Buffer, places: readonly number[]): Buffer[] => {
  const ends = [...places.map((place) => place % (bytes.length + 1)), bytes.length].toSorted((a, b) => a - b);
  return ends.map((end, index) => bytes.subarray(ends[index - 1] ?? 0, end));
};

describe('frames of channels', () => {
  it('come out as they went in, however the line cuts them', () => {
    fc.assert(
      fc.property(fc.array(frame), fc.array(fc.nat(2000)), (frames, places) => {
        const bytes = Buffer.concat(
          frames.map(({ channel, payload }) => encodeChannelFrame(channel, payload)),
        );
        const reader = new ChannelFrameReader(40);
        const read = cut(bytes, places).flatMap((chunk) => reader.push(chunk));
        expect(read.map(({ channel, payload }) => ({ channel, payload: [...payload] }))).toEqual(
          frames.map(({ channel, payload }) => ({ channel, payload: [...payload] })),
        );
        expect(reader.isInFrame).toBe(false);
      }),
    );
  });

  it('that are longer than agreed are refused by their header alone', () => {
    const reader = new ChannelFrameReader(40);
    const long = encodeChannelFrame(1, Buffer.alloc(41));
    expect(reader.push(long.subarray(0, 4))).toEqual([]);
    expect(reader.isInFrame).toBe(true);
    expect(() => reader.push(long.subarray(4, 5))).toThrow(ChannelFrameError);
  });
});
