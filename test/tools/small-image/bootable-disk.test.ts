import { describe, expect, it } from 'vitest';
import { masterBootRecord } from '../../../tools/small-image/bootable-disk.ts';

describe('masterBootRecord', () => {
  const mbr = masterBootRecord(Buffer.alloc(512, 0xaa), 524_288);

  it('has the boot code, pointing at the sector after it', () => {
    expect(mbr).toHaveLength(512);
    expect(mbr.subarray(0, 0x5c).every((byte) => byte === 0xaa)).toBe(true);
    expect(mbr.readBigUInt64LE(0x5c)).toBe(1n);
    expect(mbr.subarray(440, 446).every((byte) => byte === 0)).toBe(true);
  });

  it('has one active Linux partition from 1 MiB to the end', () => {
    expect([mbr[446], mbr[450]]).toEqual([0x80, 0x83]);
    expect([mbr.readUInt32LE(454), mbr.readUInt32LE(458)]).toEqual([2048, 522_240]);
    expect(mbr.subarray(462, 510).every((byte) => byte === 0)).toBe(true);
    expect(mbr.readUInt16LE(510)).toBe(0xaa55);
  });
});
