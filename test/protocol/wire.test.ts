import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { errorClasses, RoostError } from '../../protocol/errors.ts';
import {
  errorReply,
  eventMessage,
  greeting,
  parseRequest,
  successReply,
  wireTimestamp,
} from '../../protocol/wire.ts';

describe('a request', () => {
  test('is a command with arguments and any id', () => {
    fc.assert(
      fc.property(
        fc.string({ maxLength: 128 }),
        fc.dictionary(fc.string(), fc.jsonValue()),
        fc.jsonValue(),
        (execute, args, id) => {
          const sent = JSON.parse(JSON.stringify({ execute, arguments: args, id }));
          expect(parseRequest(sent)).toEqual({
            kind: 'request',
            request: { execute, arguments: sent.arguments, id: sent.id },
          });
        },
      ),
    );
  });

  test('may leave out its arguments and its id', () => {
    expect(parseRequest({ execute: 'query-version' })).toEqual({
      kind: 'request',
      request: { execute: 'query-version', arguments: {}, id: undefined },
    });
  });

  test.each([
    ['no object', 7],
    ['null', null],
    ['an array', []],
    ['no command', {}],
    ['a command that is no text', { execute: 5 }],
    ['arguments that are no object', { execute: 'x', arguments: [] }],
    ['a member that QMP does not know', { execute: 'x', extra: 1 }],
    ['a command name without end', { execute: 'x'.repeat(129) }],
  ])('with %s is refused in words', (_what, value) => {
    expect(parseRequest(value)).toMatchObject({
      kind: 'refused',
      error: { class: 'InvalidArgument', message: expect.stringContaining('Not a QMP request') },
    });
  });

  test('that is refused gets its id back if it has one', () => {
    expect(parseRequest({ id: { n: [1] }, execute: 5 })).toMatchObject({ kind: 'refused', id: { n: [1] } });
    expect(parseRequest({ execute: 5 })).toMatchObject({ kind: 'refused', id: undefined });
  });

  test('of any value at all is answered, never thrown at', () => {
    fc.assert(
      fc.property(fc.anything(), (value) => {
        expect(['request', 'refused']).toContain(parseRequest(value).kind);
      }),
      { numRuns: 500 },
    );
  });
});

describe('replies', () => {
  test('echo an id, also null, and leave out one that was not sent', () => {
    expect(successReply(1, null)).toEqual({ return: 1, id: null });
    expect(Object.keys(successReply(1, undefined))).toEqual(['return']);
    const wire = new RoostError('NotFound', 'no').toWire();
    expect(errorReply(wire, 'a')).toEqual({ error: { class: 'NotFound', desc: 'no' }, id: 'a' });
    expect(Object.keys(errorReply(wire, undefined))).toEqual(['error']);
  });

  test('the greeting is one that a QMP client knows', () => {
    expect(greeting).toEqual({
      QMP: {
        version: {
          qemu: { major: expect.any(Number), minor: expect.any(Number), micro: expect.any(Number) },
          package: expect.stringMatching(/^roost-/),
        },
        capabilities: [],
      },
    });
  });

  test("an event is QMP's with its sequence besides", () => {
    const timestamp = { seconds: 1, microseconds: 2 };
    expect(eventMessage({ sequence: 9, event: 'GUEST_DELETED', data: { a: 1 }, timestamp })).toEqual({
      event: 'GUEST_DELETED',
      data: { a: 1 },
      timestamp,
      sequence: 9,
    });
  });
});

describe('a time stamp', () => {
  test('has whole seconds and microseconds below a million, within half a microsecond of the moment', () => {
    fc.assert(
      fc.property(fc.double({ min: 0, max: 4e12, noNaN: true }), (atMs) => {
        const { seconds, microseconds } = wireTimestamp(atMs);
        expect(Number.isInteger(seconds) && Number.isInteger(microseconds)).toBe(true);
        expect(microseconds).toBeGreaterThanOrEqual(0);
        expect(microseconds).toBeLessThan(1_000_000);
        expect(Math.abs(seconds * 1000 + microseconds / 1000 - atMs)).toBeLessThan(0.002);
      }),
    );
  });

  test('of a moment just before a second is the second', () => {
    expect(wireTimestamp(1999.9999)).toEqual({ seconds: 2, microseconds: 0 });
  });
});

describe('an error', () => {
  test('is the same again after a way over the wire', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...(Object.keys(errorClasses) as (keyof typeof errorClasses)[])),
        fc.string(),
        fc.option(fc.dictionary(fc.stringMatching(/^[a-z]{1,8}$/), fc.jsonValue()), { nil: undefined }),
        fc.option(fc.string(), { nil: undefined }),
        (errorClass, message, data, hint) => {
          const error = new RoostError(errorClass, message, {
            ...(data === undefined ? {} : { data: data as NonNullable<RoostError['data']> }),
            ...(hint === undefined ? {} : { hint }),
          });
          expect(RoostError.fromWire(error.toWire()).toWire()).toEqual(error.toWire());
        },
      ),
    );
  });
});
