import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { GuestLimits } from '../../../drivers/driver.ts';
import {
  type Controllers,
  DEFAULT_PROCESSES,
  inOrder,
  type LimitFile,
  limitFiles,
} from '../../../drivers/lxc/limits.ts';

const limitsOf = (memoryBytes: number, limits: GuestLimits['limits'] = {}): GuestLimits => ({
  memoryBytes,
  cpus: 2,
  limits,
});
const all = (version: 1 | 2): Controllers =>
  new Map(['memory', 'cpu', 'pids', version === 1 ? 'blkio' : 'io'].map((name) => [name, version] as const));
const told = (files: readonly LimitFile[]): readonly string[] =>
  files.map(({ version, controller, file, value }) => `${version} ${controller}.${file}=${value}`);

const bytes = fc.integer({ min: 1, max: 2 ** 46 });

describe('the limits of a container', () => {
  it('are set in the hierarchies that the host has, each in its own words', () => {
    const wanted = limitsOf(1024, { readBytesPerSecond: 7 });
    expect(told(limitFiles(wanted, all(1), '254:0'))).toEqual([
      '1 memory.limit_in_bytes=1024',
      '1 memory.memsw.limit_in_bytes=1024',
      '1 cpu.cfs_period_us=100000',
      '1 cpu.cfs_quota_us=200000',
      `1 pids.max=${DEFAULT_PROCESSES}`,
      '1 blkio.throttle.read_bps_device=254:0 7',
      '1 blkio.throttle.write_bps_device=254:0 0',
    ]);
    expect(told(limitFiles(wanted, all(2), '254:0'))).toEqual([
      '2 memory.max=1024',
      '2 memory.swap.max=0',
      '2 cpu.max=200000 100000',
      `2 pids.max=${DEFAULT_PROCESSES}`,
      '2 io.max=254:0 rbps=7 wbps=max',
    ]);
  });

  it('mix versions where the host does', () => {
    const mixed: Controllers = new Map([
      ['memory', 1],
      ['pids', 2],
    ]);
    expect(told(limitFiles(limitsOf(1024, { processes: 5 }), mixed, '254:0'))).toEqual([
      '1 memory.limit_in_bytes=1024',
      '1 memory.memsw.limit_in_bytes=1024',
      '2 pids.max=5',
    ]);
  });

  it('are none where the host has no controller or no disk for them', () => {
    expect(limitFiles(limitsOf(1024), new Map())).toEqual([]);
    const files = limitFiles(limitsOf(1024, { writeBytesPerSecond: 7 }), all(2));
    expect(files.map(({ controller }) => controller)).not.toContain('io');
  });

  it('take a limit away that is not asked for any more', () => {
    const before = limitFiles(limitsOf(1024, { processes: 5, writeBytesPerSecond: 7 }), all(1), '254:0');
    const after = limitFiles(limitsOf(1024), all(1), '254:0');
    expect(after.map(({ file }) => file)).toEqual(before.map(({ file }) => file));
    expect(after.at(-1)?.value).toBe('254:0 0');
  });

  /** What the kernel does with the two files of memory of version 1, as cgroup-v1/memory.rst has it. */
  const writeInto = (group: Map<string, number>, { file, value }: LimitFile): void => {
    group.set(file, Number(value));
    const memory = group.get('limit_in_bytes') ?? Infinity;
    const together = group.get('memsw.limit_in_bytes') ?? Infinity;
    if (memory > together) throw new Error(`EINVAL: ${memory} of memory in ${together} of memory and swap`);
  };

  it('of memory never exceed those of memory and swap, whichever way they change', () => {
    fc.assert(
      fc.property(bytes, fc.array(bytes, { minLength: 1, maxLength: 5 }), (first, later) => {
        const group = new Map<string, number>();
        const set = (files: readonly LimitFile[]): void =>
          files.filter(({ controller }) => controller === 'memory').forEach((file) => writeInto(group, file));
        set(limitFiles(limitsOf(first), all(1)));
        for (const wanted of later) {
          const before = group.get('limit_in_bytes') ?? 0;
          set(inOrder(limitFiles(limitsOf(wanted), all(1)), before < wanted));
          expect([...group.values()]).toEqual([wanted, wanted]);
        }
      }),
    );
  });

  it('are all set, each once, in whatever order', () => {
    const versions = fc.constantFrom<1 | 2>(1, 2);
    fc.assert(
      fc.property(bytes, versions, fc.boolean(), (memoryBytes, version, grows) => {
        const files = limitFiles(limitsOf(memoryBytes, { processes: 9 }), all(version), '254:0');
        const ordered = inOrder(files, grows);
        expect(new Set(ordered)).toEqual(new Set(files));
        expect(ordered).toHaveLength(files.length);
      }),
    );
  });
});
