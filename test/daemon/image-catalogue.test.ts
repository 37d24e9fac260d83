import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { datedVersion, newestOf, prunable } from '../../daemon/image-catalogue.ts';
import type { ImageRecord } from '../../daemon/inventory/image-table.ts';
import type { ImageId } from '../../protocol/types.ts';

const stored = { format: 'qcow2', sizeBytes: 1, virtualSizeBytes: 512, sha256: 'ab' } as const;
const aVersion = (number: number, state: ImageRecord['state']): ImageRecord => ({
  id: `image ${number}` as ImageId,
  number,
  name: 'debian',
  version: String(number),
  kind: 'disk',
  state,
  createdAt: number,
  ...(state === 'importing' ? {} : { stored }),
});
const versionsOf = fc
  .array(fc.constantFrom('importing', 'ready', 'deleting'))
  .map((states) => states.map((state, index) => aVersion(states.length - index, state)));

describe('the newest version', () => {
  test('is the first that is ready, and without any the first', () => {
    fc.assert(
      fc.property(versionsOf, (versions) => {
        const newest = newestOf(versions);
        const ready = versions.filter(({ state }) => state === 'ready');
        expect(newest).toBe(ready[0] ?? versions[0]);
      }),
    );
  });
});

describe('a dated version', () => {
  const noon = Date.UTC(2026, 10, 25, 12);
  test('is the date, in UTC, and numbered from the second of a day on', () => {
    expect(datedVersion(noon, [])).toBe('20261125');
    expect(datedVersion(Date.UTC(2026, 0, 1), ['20261125'])).toBe('20260101');
    expect(datedVersion(noon, ['20261125'])).toBe('20261125.2');
    expect(datedVersion(noon, ['20261125', '20261125.3', '20261125.2'])).toBe('20261125.4');
  });
});

describe('what can be pruned', () => {
  test('is neither new, nor needed, nor on its way; all that is so goes', () => {
    fc.assert(
      fc.property(
        versionsOf,
        fc.integer({ min: 1, max: 4 }),
        fc.func(fc.boolean()),
        (versions, keep, isNeeded) => {
          const needed = new Set(versions.filter((version) => isNeeded(version)));
          const pruned = prunable(versions, keep, (version) => needed.has(version));
          const stays = versions.filter((version) => !pruned.includes(version));
          for (const version of pruned)
            expect(needed.has(version) || version.state === 'importing').toBe(false);
          const ready = versions.filter(({ state }) => state === 'ready');
          expect(stays).toEqual(expect.arrayContaining(ready.slice(0, keep)));
          const reasons = [...needed, ...ready.slice(0, keep)];
          for (const version of stays)
            expect(version.state === 'importing' || reasons.includes(version)).toBe(true);
        },
      ),
    );
  });
});
