import * as fc from 'fast-check';
import { expect, it } from 'vitest';
import { filesystemsToMount } from '../../../daemon/guests/filesystems.ts';
import type { GuestRecord } from '../../../daemon/inventory/guest-table.ts';

const recordOf = (targets: readonly string[]): Pick<GuestRecord, 'spec' | 'machine'> =>
  ({
    spec: { filesystems: targets.map((target) => ({ source: '/srv', target, readOnly: false })) },
    machine: { filesystems: targets.map((_, index) => ({ name: `fs${index}`, address: '' })) },
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

it('a guest without any is told of none', () => {
  expect(filesystemsToMount(recordOf([]))).toEqual({});
});
