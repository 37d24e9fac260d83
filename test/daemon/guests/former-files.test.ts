import { expect, it } from 'vitest';
import { formerFiles } from '../../../daemon/guests/live-template.ts';
import type { GuestId } from '../../../protocol/types.ts';

const [template, other] = ['one', 'other'] as GuestId[];
const disk = { sizeBytes: 1, readOnly: false };

it('are those of disks that lie on this template, and of no others', () => {
  const disks = [
    { ...disk, name: 'first', template, layer: 1 },
    { ...disk, name: 'again', template, layer: 3 },
    { ...disk, name: 'elsewhere', template: other, layer: 2 },
    { ...disk, name: 'forked', template },
    // Attached since, and its only file.
    { ...disk, name: 'new' },
  ] as Parameters<typeof formerFiles>[0]['disks'];
  expect(formerFiles({ disks }, template as GuestId)).toEqual([
    { name: 'first' },
    { name: 'again', layer: 2 },
  ]);
});
