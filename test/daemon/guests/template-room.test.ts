import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { givingRoom, type TemplateMemory } from '../../../daemon/guests/template-room.ts';

const memoryOf = (name: string, bytes: number, lastAskedAt: number, mayGo = true): TemplateMemory => ({
  name,
  bytes,
  lastAskedAt,
  mayGo,
});

const namesOf = (given: readonly TemplateMemory[] | undefined): readonly string[] | undefined =>
  given?.map(({ name }) => name);

describe('templates that give their memory up', () => {
  test.each<[string, number, readonly TemplateMemory[], readonly string[] | undefined]>([
    ['none where there is room', 4, [memoryOf('a', 6, 1)], []],
    ['the one asked for the longest ago', 4, [memoryOf('a', 5, 2), memoryOf('b', 5, 1)], ['b']],
    ['as many as it takes', 8, [memoryOf('a', 5, 2), memoryOf('b', 5, 1)], ['b', 'a']],
    ['not one that would be lost', 4, [memoryOf('a', 5, 2), memoryOf('b', 5, 1, false)], ['a']],
    ['none where it would not be enough', 8, [memoryOf('a', 5, 2), memoryOf('b', 5, 1, false)], undefined],
    ['none for one that is too large', 11, [], undefined],
  ])('%s', (_sentence, needed, templates, expected) => {
    expect(namesOf(givingRoom(needed, 10, templates))).toEqual(expected);
  });

  test('make room if they are any, and none of them goes in vain', () => {
    const template = fc.record({
      name: fc.string(),
      bytes: fc.integer({ min: 1, max: 20 }),
      lastAskedAt: fc.nat({ max: 9 }),
      mayGo: fc.boolean(),
    });
    fc.assert(
      fc.property(
        fc.nat({ max: 40 }),
        fc.nat({ max: 60 }),
        fc.array(template),
        (needed, budget, templates) => {
          const sum = (of: readonly TemplateMemory[]): number =>
            of.reduce((all, { bytes }) => all + bytes, 0);
          const free = budget - sum(templates);
          const given = givingRoom(needed, budget, templates);
          const gone = given ?? templates.filter(({ mayGo }) => mayGo);
          expect(free + sum(gone) >= needed).toBe(given !== undefined);
          expect(gone.every(({ mayGo }) => mayGo)).toBe(true);
          const last = given?.at(-1);
          expect(last !== undefined && free + sum(gone) - last.bytes >= needed).toBe(false);
        },
      ),
    );
  });
});
