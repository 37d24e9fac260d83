import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  judgeQcow2Header,
  MAX_VIRTUAL_SIZE_BYTES,
  QCOW2_HEADER_BYTES,
} from '../../../storage/qcow2/qcow2-header.ts';
import { lastPercentage } from '../../../storage/qcow2/qemu-img.ts';

/** A harmless header of version 3, for a test to spoil. */
const header = (spoil: (view: DataView) => void = () => undefined): Uint8Array => {
  const view = new DataView(new ArrayBuffer(QCOW2_HEADER_BYTES));
  view.setUint32(0, 0x514649fb);
  view.setUint32(4, 3);
  view.setUint32(20, 16);
  view.setBigUint64(24, 1_048_576n);
  spoil(view);
  return new Uint8Array(view.buffer);
};

describe('judging a qcow2 header', () => {
  it('takes a plain one of either version', () => {
    expect(judgeQcow2Header(header())).toEqual({ ok: true, virtualSizeBytes: 1_048_576 });
    const version2 = header((view) => view.setUint32(4, 2)).subarray(0, 72);
    expect(judgeQcow2Header(version2)).toEqual({ ok: true, virtualSizeBytes: 1_048_576 });
  });

  it('takes dirty, compression type and extended L2, which say nothing of other files', () => {
    expect(judgeQcow2Header(header((view) => view.setBigUint64(72, 0b11001n)))).toMatchObject({ ok: true });
  });

  it.each<[string, string, (view: DataView) => void]>([
    ['another magic number', 'not-qcow2', (view) => view.setUint8(3, 0)],
    ['version 1', 'unknown-version', (view) => view.setUint32(4, 1)],
    ['version 4', 'unknown-version', (view) => view.setUint32(4, 4)],
    ['the offset of a backing file name', 'backing-file', (view) => view.setBigUint64(8, 512n)],
    ['the length of a backing file name', 'backing-file', (view) => view.setUint32(16, 9)],
    ['an encryption method', 'encrypted', (view) => view.setUint32(32, 2)],
    ['an external data file', 'data-file', (view) => view.setBigUint64(72, 0b100n)],
    ['the corrupt bit', 'corrupt', (view) => view.setBigUint64(72, 0b10n)],
    ['a feature from the future', 'unknown-feature', (view) => view.setBigUint64(72, 1n << 63n)],
    ['8 EiB', 'too-large', (view) => view.setBigUint64(24, (1n << 63n) - 512n)],
    ['64 TiB and a byte', 'too-large', (view) => view.setBigUint64(24, BigInt(MAX_VIRTUAL_SIZE_BYTES) + 1n)],
    ['no size', 'empty', (view) => view.setBigUint64(24, 0n)],
  ])('refuses %s', (_what, flaw, spoil) => {
    expect(judgeQcow2Header(header(spoil))).toEqual({ ok: false, flaw });
  });

  it('never throws, whatever the bytes and wherever they lie, and never exceeds the limit', () => {
    const spoiled = fc
      .tuple(fc.array(fc.tuple(fc.nat(103), fc.nat(255)), { maxLength: 6 }), fc.nat(104))
      .map(([changes, length]) => {
        const bytes = header();
        for (const [at, value] of changes) bytes[at] = value;
        return bytes.subarray(0, length);
      });
    const shifted = fc
      .uint8Array({ maxLength: 120 })
      .map((bytes) => new Uint8Array([0, 0, 0, ...bytes]).subarray(3));
    fc.assert(
      fc.property(fc.oneof(spoiled, shifted), (bytes) => {
        const verdict = judgeQcow2Header(bytes);
        if (!verdict.ok) return;
        expect(verdict.virtualSizeBytes).toBeGreaterThan(0);
        expect(verdict.virtualSizeBytes).toBeLessThanOrEqual(MAX_VIRTUAL_SIZE_BYTES);
        expect(bytes.length).toBeGreaterThanOrEqual(72);
      }),
    );
  });
});

describe('reading the progress of qemu-img', () => {
  it('takes the last whole report', () => {
    expect(lastPercentage('    (0.00/100%)\r    (12.50/100%)\r    (13.')).toBe(12.5);
    expect(lastPercentage('    (100.00/100%)\r\n')).toBe(100);
    expect(lastPercentage('Formatting …')).toBeUndefined();
  });
});
