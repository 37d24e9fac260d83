import fc from 'fast-check';
import { expect, it } from 'vitest';
import { excerpt } from '../../../../drivers/processes/qmp/excerpt.ts';
import { redact } from '../../../../drivers/processes/qmp/redact.ts';

/** Objects with a secret here and there. */
const message = fc.letrec((tie) => ({
  value: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.string({ unit: 'grapheme' }),
    fc.integer(),
    fc.boolean(),
    fc.constant(null),
    fc.array(tie('value'), { maxLength: 5 }),
    fc.dictionary(
      fc.oneof(fc.string(), fc.constantFrom('password', 'id', 'data', 'qom-type', 'secret')),
      tie('value'),
      { maxKeys: 5 },
    ),
  ),
})).value;

it('of a message that fits is the JSON of it without its secrets', () => {
  fc.assert(
    fc.property(message, (value) => {
      const json = JSON.stringify(redact(value));
      expect(excerpt(value, json.length)).toEqual({ text: json, isWhole: true });
    }),
  );
});

it('of a longer one is the beginning of that, not cut in the middle of a character', () => {
  fc.assert(
    fc.property(message, fc.nat(200), (value, room) => {
      const json = JSON.stringify(redact(value));
      fc.pre(room < json.length);
      const { text, isWhole } = excerpt(value, room);
      expect(isWhole).toBe(false);
      expect(json.startsWith(text)).toBe(true);
      expect(room - text.length).toBeLessThanOrEqual(1);
      expect(text).not.toMatch(/[\uD800-\uDBFF]$/);
    }),
  );
});

it('of a huge message looks at no more than is kept', () => {
  const looked: number[] = [];
  const huge = Array.from({ length: 1000 }, (_, index) =>
    Object.defineProperty({}, 'name', {
      enumerable: true,
      get: () => {
        looked.push(index);
        return 'x'.repeat(100);
      },
    }),
  );
  expect(excerpt(huge, 500)).toMatchObject({ isWhole: false });
  expect(Math.max(...looked)).toBeLessThan(10);
});
