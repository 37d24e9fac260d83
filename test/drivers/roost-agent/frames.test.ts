import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FieldReader, FieldWriter, parseFields } from '../../../drivers/roost-agent/fields.ts';
import {
  encodeFrame,
  encodeFrames,
  type Frame,
  FrameReader,
  type FrameType,
  frameTypes,
  HEADER_BYTES,
  MAX_FRAME_BYTES,
  MAX_PAYLOAD_BYTES,
} from '../../../drivers/roost-agent/frames.ts';

const session = 0x0123_4567_89ab_cdefn;
const encode = (type: FrameType, id: number, payload: Uint8Array, of = session): Buffer =>
  Buffer.concat(encodeFrame({ type, id, session: of }, payload));

const types = Object.keys(frameTypes) as FrameType[];
const frame = fc.record({
  type: fc.constantFrom(...types),
  id: fc.nat({ max: 0xffff_ffff }),
  payload: fc.oneof(
    { weight: 5, arbitrary: fc.uint8Array({ maxLength: 200 }) },
    {
      weight: 1,
      arbitrary: fc.nat({ max: MAX_PAYLOAD_BYTES }).map((size) => new Uint8Array(size).fill(0x8f)),
    },
  ),
});

/** The same bytes in pieces of these sizes, again and again. */
const inPieces = (bytes: Buffer, sizes: readonly number[]): readonly Buffer[] => {
  const pieces: Buffer[] = [];
  for (let from = 0, index = 0; from < bytes.length; index += 1) {
    const size = sizes[index % sizes.length] ?? 1;
    pieces.push(bytes.subarray(from, from + size));
    from += size;
  }
  return pieces;
};

const readAll = (reader: FrameReader, pieces: readonly Buffer[]): readonly Frame[] =>
  pieces.flatMap((piece) => reader.push(piece));

describe('frames', () => {
  it('have the form that is written down', () => {
    expect(encode('ping', 7, Buffer.from('roost')).toString('hex')).toBe(
      '8f525354200000000500000007000000efcdab8967452301eab08436dda5e489726f6f7374',
    );
  });

  it('come out as they went in, whatever the pieces', () => {
    fc.assert(
      fc.property(
        fc.array(frame, { maxLength: 20 }),
        fc.array(fc.integer({ min: 1, max: 5000 }), { minLength: 1, maxLength: 5 }),
        (frames, sizes) => {
          const bytes = Buffer.concat(frames.map(({ type, id, payload }) => encode(type, id, payload)));
          const reader = new FrameReader(session);
          const read = readAll(reader, inPieces(bytes, sizes));
          expect(read.map(({ type, id, payload }) => [type, id, payload.toString('hex')])).toEqual(
            frames.map(({ type, id, payload }) => [type, id, Buffer.from(payload).toString('hex')]),
          );
          expect(reader.garbageBytes).toBe(0);
          expect(reader.pendingBytes).toBe(0);
        },
      ),
      { numRuns: 100 },
    );
  });

  it('are found behind anything, also behind a frame of another session that never ends', () => {
    const wanted = encode('welcome', 0, Buffer.from('here'));
    fc.assert(
      fc.property(
        fc.array(
          fc.oneof(
            fc.uint8Array({ maxLength: 300 }),
            fc.constant(Buffer.from('8f525354', 'hex')),
            fc
              .tuple(fc.nat({ max: 1 }), fc.nat({ max: 20_000 }))
              .map(([of, cut]) => encode('data', 1, Buffer.alloc(20_000), BigInt(of)).subarray(0, cut)),
          ),
          { maxLength: 10 },
        ),
        (garbage) => {
          const reader = new FrameReader(session);
          const before = Buffer.concat(garbage);
          const read = readAll(reader, inPieces(Buffer.concat([before, wanted]), [700]));
          expect(read.map(({ type, payload }) => [type, String(payload)])).toEqual([['welcome', 'here']]);
          expect(reader.garbageBytes).toBe(before.length);
        },
      ),
      { numRuns: 200 },
    );
  });

  it('that are damaged are skipped whole, with what looks like a frame in them', () => {
    const smuggled = encode('exited', 666, Buffer.from('not me'));
    const damaged = encode('data', 1, smuggled);
    damaged[HEADER_BYTES + 37] = (damaged[HEADER_BYTES + 37] ?? 0) ^ 1;
    const reader = new FrameReader(session);
    const read = reader.push(Buffer.concat([damaged, encode('ping', 2, Buffer.alloc(0))]));
    expect(read.map(({ type, id }) => [type, id])).toEqual([['ping', 2]]);
    expect(reader.garbageBytes).toBe(damaged.length);
  });

  it('never keep more than one frame’s bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 4000 }), fc.nat({ max: 40_000 }), (noise, cut) => {
        const reader = new FrameReader(session);
        reader.push(Buffer.from(noise));
        reader.push(encode('data', 1, Buffer.alloc(60_000)).subarray(0, cut));
        expect(reader.pendingBytes).toBeLessThan(MAX_FRAME_BYTES);
      }),
    );
  });

  it('carry a larger payload in several, and refuse one that fits none', () => {
    const payload = Buffer.alloc(2 * MAX_PAYLOAD_BYTES + 1, 7);
    const read = new FrameReader(session).push(
      Buffer.concat(encodeFrames({ type: 'exec', id: 1, session }, payload)),
    );
    expect(read.map(({ flags, payload: { length } }) => [flags, length])).toEqual([
      [1, MAX_PAYLOAD_BYTES],
      [1, MAX_PAYLOAD_BYTES],
      [0, 1],
    ]);
    expect(() => encodeFrame({ type: 'exec', id: 1, session }, payload)).toThrow(RangeError);
  });
});

/** The bytes that the fields take, or the name of the error. */
const sizeOfFields = (bytes: Buffer): number | string => {
  try {
    return parseFields(bytes).reduce((sum, { value }) => sum + 6 + value.length, 0);
  } catch (error) {
    return (error as Error).name;
  }
};

describe('fields', () => {
  it('come out as they went in', () => {
    const payload = new FieldWriter()
      .text('path', 'a')
      .text('user', undefined)
      .u8('up', 1)
      .u16('version', 2)
      .u32('mode', 0xffff_ffff)
      .i32('oomScoreAdj', -5)
      .u64('size', 2n ** 63n)
      .flag('all', true)
      .flag('parents', false)
      .texts('argument', ['b', ''])
      .payload();
    const read = FieldReader.of(payload);
    expect(read.text('path', 10)).toBe('a');
    expect(read.text('user', 10)).toBeUndefined();
    expect([read.u8('up'), read.u16('version'), read.u32('mode')]).toEqual([1, 2, 0xffff_ffff]);
    expect(read.u32('oomScoreAdj')).toBe(0xffff_fffb);
    expect(read.u64('size')).toBe(2n ** 63n);
    expect(() => read.size('size')).toThrow('larger than any size');
    expect([read.has('all'), read.has('parents')]).toEqual([true, false]);
    expect(() => read.u32('path')).toThrow('path has 1 bytes');
    expect(() => read.bytes('mode', 3)).toThrow('mode has 4 bytes');
    expect(parseFields(payload)).toHaveLength(9);
  });

  it('of any bytes are fields or an error', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
        const outcome = sizeOfFields(Buffer.from(bytes));
        expect([bytes.length, 'FieldError']).toContain(outcome);
      }),
    );
  });
});
