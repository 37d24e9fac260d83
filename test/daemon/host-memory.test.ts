import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { admitMemory, parseMeminfo, readHostMemory } from '../../daemon/host-memory.ts';
import { RoostError } from '../../protocol/errors.ts';

const MIB = 1024 * 1024;

test('reads the two numbers it needs from /proc/meminfo', () => {
  const text = 'MemTotal:       16384 kB\nMemFree:  1 kB\nMemAvailable:    8192 kB\nSwapTotal: 5 kB\n';
  expect(parseMeminfo(text)).toEqual({ totalBytes: 16 * MIB, availableBytes: 8 * MIB });
});

test('this host has memory', async () => {
  const memory = await readHostMemory();
  expect(memory.totalBytes).toBeGreaterThan(0);
  expect(memory.availableBytes).toBeLessThanOrEqual(memory.totalBytes);
});

describe('admission by memory', () => {
  const demand = { guest: 'web1', neededBytes: 512 * MIB, committedBytes: 0, reserveBytes: 256 * MIB };

  test('a guest that fits is admitted', () => {
    expect(() => admitMemory({ totalBytes: 768 * MIB, availableBytes: 512 * MIB }, demand)).not.toThrow();
  });

  test('a refusal has all the numbers', () => {
    const refuse = (): void =>
      admitMemory(
        { totalBytes: 1024 * MIB, availableBytes: 1000 * MIB },
        { ...demand, committedBytes: 300 * MIB },
      );
    expect(refuse).toThrow(RoostError);
    expect(refuse).toThrow(
      expect.objectContaining({
        class: 'ResourceExhausted',
        message: 'Guest web1 needs 512 MiB of memory and the host can give 468 MiB',
        data: {
          neededBytes: 512 * MIB,
          freeBytes: 468 * MIB,
          totalBytes: 1024 * MIB,
          availableBytes: 1000 * MIB,
          committedBytes: 300 * MIB,
          reserveBytes: 256 * MIB,
        },
      }),
    );
  });

  test('never promises more than the host has less its reserve, nor more than is available', () => {
    const bytes = fc.nat(2 ** 40);
    fc.assert(
      fc.property(
        bytes,
        bytes,
        bytes,
        bytes,
        bytes,
        (totalBytes, availableBytes, neededBytes, committedBytes, reserveBytes) => {
          let admitted = true;
          try {
            admitMemory(
              { totalBytes, availableBytes },
              { guest: 'g', neededBytes, committedBytes, reserveBytes },
            );
          } catch {
            admitted = false;
          }
          const fits =
            neededBytes === 0 ||
            (neededBytes <= availableBytes && neededBytes + committedBytes + reserveBytes <= totalBytes);
          expect(admitted).toBe(fits);
        },
      ),
    );
  });
});
