import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { subordinateIds } from '../../../daemon/guest-credentials.ts';
import {
  FIRST_CONTAINER_ID,
  ID_RANGES,
  IDS_PER_CONTAINER,
  idRangeFor,
} from '../../../daemon/guests/id-range.ts';
import type { IdRange } from '../../../protocol/container.ts';
import type { InstanceId } from '../../../protocol/types.ts';

const END = FIRST_CONTAINER_ID + ID_RANGES * IDS_PER_CONTAINER;
const instance = fc.stringMatching(/^[a-z0-9]{5}$/).map((id) => id as InstanceId);
const range = fc.record({
  first: fc.integer({ min: FIRST_CONTAINER_ID - IDS_PER_CONTAINER, max: END }),
  count: fc.integer({ min: 1, max: 8 * IDS_PER_CONTAINER }),
});
const has = ({ first, count }: IdRange, id: number): boolean => id >= first && id < first + count;
const share = (one: IdRange, other: IdRange): boolean => has(one, other.first) || has(other, one.first);

describe('the ids of a container', () => {
  it("are nobody else's, and within what is for containers", () => {
    fc.assert(
      fc.property(
        instance,
        fc.integer({ min: 1 }),
        fc.array(range, { maxLength: 40 }),
        (id, number, taken) => {
          const found = idRangeFor({ instance: id, number, firstId: FIRST_CONTAINER_ID, taken });
          expect(found.count).toBe(IDS_PER_CONTAINER);
          expect(found.first).toBeGreaterThanOrEqual(FIRST_CONTAINER_ID);
          expect(found.first + found.count).toBeLessThanOrEqual(END);
          expect(taken.filter((other) => share(found, other))).toEqual([]);
        },
      ),
    );
  });

  it('are the same for the same guest, and others for the next', () => {
    fc.assert(
      fc.property(instance, fc.integer({ min: 1, max: 100_000 }), (id, number) => {
        const asked = { instance: id, firstId: FIRST_CONTAINER_ID, taken: [] };
        const one = idRangeFor({ ...asked, number });
        expect(idRangeFor({ ...asked, number })).toEqual(one);
        expect(share(idRangeFor({ ...asked, number: number + 1 }), one)).toBe(false);
      }),
    );
  });

  it('are found although all others but one are taken, and then no more', () => {
    const ids = { instance: 'abcde' as InstanceId, number: 7, firstId: 65_536 };
    const free = 65_536 * 100;
    const taken = [
      { first: 1, count: free - 1 },
      { first: free + 65_536, count: 2 ** 32 },
    ];
    expect(idRangeFor({ ...ids, taken })).toEqual({ first: free, count: 65_536 });
    expect(() => idRangeFor({ ...ids, taken: [...taken, { first: free, count: 1 }] })).toThrow(
      expect.objectContaining({ class: 'ResourceExhausted' }),
    );
  });
});

it('the subordinate ids of users are read, and lines of no form are not', () => {
  expect(subordinateIds('alice:100000:65536\n# a word\n\nbob:x:1\nroot:1073741824:65536\n')).toEqual([
    { first: 100_000, count: 65_536 },
    { first: 1_073_741_824, count: 65_536 },
  ]);
});
