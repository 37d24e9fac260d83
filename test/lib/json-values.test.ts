import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type JsonReadResult, JsonValueReader } from '../../lib/json-values.ts';

/** Short form of results: values as `{value}`, errors by their reason. */
const brief = (results: readonly JsonReadResult[]): unknown[] =>
  results.map((result) => (result.kind === 'value' ? { value: result.value } : result.reason));

const readAll = (input: string | Uint8Array, options = {}): unknown[] => {
  const reader = new JsonValueReader(options);
  return brief([...reader.push(Buffer.from(input)), ...reader.end()]);
};

const bytes = (...parts: (string | number)[]): Buffer =>
  Buffer.concat(parts.map((part) => (typeof part === 'number' ? Buffer.of(part) : Buffer.from(part))));

/** Reads the input in pieces of one byte, and whole; both must come to the same. */
const readBothWays = (input: string | Uint8Array, options = {}): unknown[] => {
  const whole = readAll(input, options);
  const reader = new JsonValueReader(options);
  const results = [...Buffer.from(input)].flatMap((byte) => [...reader.push(Buffer.of(byte))]);
  expect(brief([...results, ...reader.end()])).toEqual(whole);
  return whole;
};

describe('values', () => {
  test('need no separator', () => {
    expect(readBothWays('{"a":1}{"b":[2]}[]"x"{}')).toEqual(
      [{ a: 1 }, { b: [2] }, [], 'x', {}].map((value) => ({ value })),
    );
  });

  test('may stand over several lines', () => {
    expect(readBothWays('\r\n{\n  "a": [\n    1\n  ]\n}\n\n')).toEqual([{ value: { a: [1] } }]);
  });

  test('count no brackets and quotes inside strings', () => {
    const value = { '}{]["': '\\"}{\\\\"', nested: ['}', { '"': '\\' }] };
    expect(readBothWays(JSON.stringify(value))).toEqual([{ value }]);
  });

  test('may be scalars, ended by the byte after them', () => {
    const reader = new JsonValueReader();
    expect(brief(reader.push(Buffer.from('12')))).toEqual([]);
    expect(reader.pending).toBe(2);
    expect(brief(reader.push(Buffer.from('3 true{}null"s"-1e3')))).toEqual(
      [123, true, {}, null, 's'].map((value) => ({ value })),
    );
    expect(brief(reader.end())).toEqual([{ value: -1000 }]);
    expect(reader.pending).toBe(0);
  });

  test('tell how long they are', () => {
    const reader = new JsonValueReader();
    reader.push(Buffer.from(' {"a"'));
    expect(reader.push(Buffer.from(':"ü"} '))).toEqual([{ kind: 'value', value: { a: 'ü' }, bytes: 10 }]);
  });

  test('do not touch prototypes', () => {
    readAll('{"__proto__":{"polluted":true}}');
    expect(Object.prototype).not.toHaveProperty('polluted');
  });
});

describe('pending', () => {
  test('counts the bytes of an unfinished value only', () => {
    const reader = new JsonValueReader();
    const pendingAfter = (text: string): number => {
      reader.push(Buffer.from(text));
      return reader.pending;
    };
    expect(pendingAfter('  \n')).toBe(0);
    expect(pendingAfter('{} {"a"')).toBe(4);
    expect(pendingAfter(': 1')).toBe(7);
    expect(pendingAfter('}')).toBe(0);
    expect(pendingAfter('}}}')).toBe(0);
  });

  test('still counts a value that was refused and has not ended', () => {
    const reader = new JsonValueReader({ maxValueBytes: 4 });
    reader.push(Buffer.from('[1,2,3'));
    expect(reader.pending).toBe(6);
    reader.push(Buffer.from(']'));
    expect(reader.pending).toBe(0);
  });
});

describe('errors', () => {
  test.each([
    ['a wrong word', '{bad}{"a":1}', ['syntax', { value: { a: 1 } }]],
    ['a missing colon', '{"a" 1} 2', ['syntax', { value: 2 }]],
    ['brackets of different kinds', '{"a":[1}] {}', ['syntax', { value: {} }]],
    ['a closing bracket without its other half', '}{"a":1}', ['syntax', { value: { a: 1 } }]],
    ['several of them', ']}}],{"a":1}', ['syntax', { value: { a: 1 } }]],
    ['several of them, apart', '] }\n{}', ['syntax', 'syntax', { value: {} }]],
    ['a scalar that is none', 'nope {}', ['syntax', { value: {} }]],
    ['a byte order mark', '\u{feff}{}', ['syntax', { value: {} }]],
    ['a string that its line cuts off', '{"a":"oops}\n{"b":1}', ['syntax', { value: { b: 1 } }]],
    ['a line end after a backslash', '{"a":"oops\\\n{"b":1}', ['syntax', { value: { b: 1 } }]],
    ['a control character in a string', '{"a":"x\ty"}{"b":1}', ['syntax', { value: { b: 1 } }]],
    ['a wrong escape', '["\\x"]{"b":1}', ['syntax', { value: { b: 1 } }]],
    ['an end inside a value', '{"a":', ['truncated']],
  ])('%s', (_name, input, expected) => {
    expect(readBothWays(input)).toEqual(expected);
  });

  test('invalid UTF-8 is refused and the stream goes on', () => {
    expect(readBothWays(bytes('{"a":"', 0xc3, '"}{"b":1}'))).toEqual(['syntax', { value: { b: 1 } }]);
    expect(readBothWays(bytes('{"a":"', 0xed, 0xa0, 0x80, '"} 1'))).toEqual(['syntax', { value: 1 }]);
    expect(readBothWays(bytes(0xe4, '{}'))).toEqual(['syntax', { value: {} }]);
  });

  test('0xff discards what is unfinished: silently outside a string', () => {
    expect(readBothWays(bytes('{"a":[', 0xff, '{"b":1}'))).toEqual([{ value: { b: 1 } }]);
    expect(readBothWays(bytes(0xff, 0xff, '{}', 0xff))).toEqual([{ value: {} }]);
    expect(readBothWays(bytes('12', 0xff, '3 '))).toEqual([{ value: 3 }]);
    const reader = new JsonValueReader();
    reader.push(bytes('{"a":[', 0xff));
    expect(reader.pending).toBe(0);
  });

  test('0xff inside a string is one error, and the rest of that value is skipped', () => {
    expect(readBothWays(bytes('{"a":"', 0xff, '"}\n{"b":1}'))).toEqual(['syntax', { value: { b: 1 } }]);
    expect(readBothWays(bytes('{"exec', 0xff, '{"b":1}'))).toEqual(['syntax', { value: { b: 1 } }]);
  });
});

describe('limits', () => {
  test('a value may be as long as the limit and no longer', () => {
    const options = { maxValueBytes: 10 };
    expect(readBothWays('"12345678"{}', options)).toEqual([{ value: '12345678' }, { value: {} }]);
    expect(readBothWays('"123456789"{}', options)).toEqual(['too-large', { value: {} }]);
    expect(readBothWays('[1,[2,"]"],3,4]{}', options)).toEqual(['too-large', { value: {} }]);
    expect(readBothWays('12345678901 {}', options)).toEqual(['too-large', { value: {} }]);
  });

  test('a value may be as deep as the limit and no deeper', () => {
    const options = { maxDepth: 3 };
    expect(readBothWays('[[[]]]', options)).toEqual([{ value: [[[]]] }]);
    expect(readBothWays('[[[{"]":[1]}]],"x"]{}', options)).toEqual(['too-deep', { value: {} }]);
  });

  test('depth without end is one error', () => {
    const reader = new JsonValueReader();
    const chunk = Buffer.alloc(1024 * 1024, '[');
    expect(brief([...reader.push(chunk), ...reader.push(chunk)])).toEqual(['too-deep']);
    expect(brief(reader.push(Buffer.from(`${']'.repeat(chunk.length * 2)}{}`)))).toEqual([{ value: {} }]);
  });
});

const whitespace = fc.stringMatching(/^[ \t\r\n]{0,3}$/);
const indent = fc.constantFrom(0, 2);
const serialized = fc
  .tuple(fc.jsonValue({ maxDepth: 6 }), whitespace, indent)
  .map(([value, gap, width]) => ({ text: JSON.stringify(value, null, width), gap }));
/** JSON texts and what stands between them; two bare words always have something between them. */
const stream = fc.array(serialized, { maxLength: 12 }).map((parts) => {
  const isBare = (text: string | undefined): boolean => text !== undefined && !/^[{["]/.test(text);
  const texts = parts.map(({ text, gap }, index) => {
    const mustSeparate = isBare(text) && isBare(parts[index + 1]?.text);
    return text + (mustSeparate && gap === '' ? ' ' : gap);
  });
  return { bytes: Buffer.from(texts.join('')), values: parts.map(({ text }) => JSON.parse(text) as unknown) };
});
const cuts = fc.array(fc.nat(), { maxLength: 20 });

/** The input in pieces, cut at the given points (anywhere, also inside a character). */
const cutAt = (input: Uint8Array, points: readonly number[]): Uint8Array[] => {
  const sorted = [
    0,
    ...points.map((point) => point % (input.length + 1)).sort((a, b) => a - b),
    input.length,
  ];
  return sorted.slice(1).map((end, index) => input.subarray(sorted[index], end));
};

describe('properties', () => {
  test('any values, however written and cut, come out as they are', () => {
    fc.assert(
      fc.property(stream, cuts, (input, points) => {
        const reader = new JsonValueReader();
        const results = cutAt(input.bytes, points).flatMap((piece) => [...reader.push(piece)]);
        expect(brief([...results, ...reader.end()])).toEqual(input.values.map((value) => ({ value })));
        expect(reader.pending).toBe(0);
      }),
    );
  });

  test('mutated input never throws, reads the same however cut, and a value after a reset is read', () => {
    const mutation = fc.record({ at: fc.nat(), byte: fc.nat(255), remove: fc.nat(3) });
    const options = { maxValueBytes: 200, maxDepth: 5 };
    fc.assert(
      fc.property(stream, fc.array(mutation, { maxLength: 6 }), cuts, (input, mutations, points) => {
        let mutated: Uint8Array = input.bytes;
        for (const { at, byte, remove } of mutations) {
          const place = at % (mutated.length + 1);
          mutated = bytes(...mutated.subarray(0, place), byte, ...mutated.subarray(place + remove));
        }
        const reader = new JsonValueReader(options);
        const results = cutAt(mutated, points).flatMap((piece) => [...reader.push(piece)]);
        const whole = new JsonValueReader(options).push(mutated);
        const values = (of: readonly JsonReadResult[]): unknown[] =>
          of.filter(({ kind }) => kind === 'value');
        expect(values(results)).toEqual(values(whole));
        expect(results.length).toBeLessThanOrEqual(mutated.length);
        reader.push(bytes(0xff, '\n', 0xff));
        expect(reader.pending).toBe(0);
        expect(brief(reader.push(Buffer.from('{"a":1}')))).toEqual([{ value: { a: 1 } }]);
      }),
    );
  });

  test('an endless value holds no more memory than the limit', () => {
    const reader = new JsonValueReader({ maxValueBytes: 64 * 1024 });
    const before = process.memoryUsage().arrayBuffers;
    reader.push(Buffer.from('{"a":"'));
    const chunk = Buffer.alloc(64 * 1024, 'x');
    const results = Array.from({ length: 1_000 }, () => reader.push(chunk)).flat();
    expect(brief(results)).toEqual(['too-large']);
    expect(reader.pending).toBe(6 + 64 * 1024 * 1_000);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(4 * 1024 * 1024);
  });
});
