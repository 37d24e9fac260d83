import * as fc from 'fast-check';
import { expect, it } from 'vitest';
import { filesystemsToMount } from '../../../daemon/guests/filesystems.ts';
import type { GuestRecord } from '../../../daemon/inventory/guest-table.ts';

const recordOf = (targets: readonly string[]): Pick<GuestRecord, 'spec' | 'machine'> =>
  ({
    spec: { filesystems: targets.map((target) => ({ source: '/srv', target, readOnly: false })), disks: [] },
    machine: { filesystems: targets.map((_, index) => ({ name: `fs${index}`, address: '' })), disks: [] },
  }) as unknown as Pick<GuestRecord, 'spec' | 'machine'>;

it('a directory is mounted after the one that it lies in, under its own name', () => {
  const path = fc
    .array(fc.constantFrom('a', 'b', 'c'), { minLength: 1, maxLength: 4 })
    .map((parts) => `/${parts.join('/')}`);
  fc.assert(
    fc.property(fc.uniqueArray(path, { minLength: 1, maxLength: 16 }), (targets) => {
      const { filesystems = [] } = filesystemsToMount(recordOf(targets));
      expect(filesystems.map(({ target }) => target).toSorted()).toEqual(targets.toSorted());
      for (const [index, { name, target }] of filesystems.entries()) {
        expect(targets[Number(name.slice('fs'.length))]).toBe(target);
        const before = filesystems.slice(0, index);
        expect(before.filter((each) => each.target.startsWith(`${target}/`))).toEqual([]);
      }
    }),
  );
});

it('a copy is told by the serial number of its disk, and mounted in its turn', () => {
  const record = recordOf(['/a/b/c']);
  const copyOf = { source: '/srv', target: '/a/b', readOnly: true };
  const spec = { ...record.spec, disks: [{ name: 'copy0', sizeBytes: 512, readOnly: true, copyOf }] };
  const disks = [{ name: 'copy0', serial: 'x-2', address: '' }];
  expect(filesystemsToMount({ spec, machine: { ...record.machine, disks } }).filesystems).toEqual([
    { name: 'copy0', target: '/a/b', readOnly: true, serial: 'x-2' },
    { name: 'fs0', target: '/a/b/c', readOnly: false },
  ]);
});

it('a guest without any is told of none', () => {
  expect(filesystemsToMount(recordOf([]))).toEqual({});
});
