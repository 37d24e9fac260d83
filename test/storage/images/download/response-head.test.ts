import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  continues,
  lastHead,
  type ResponseHead,
  totalBytesOf,
  validatorOf,
} from '../../../../storage/images/download/response-head.ts';

const head = (status: number, fields: Readonly<Record<string, string>>): ResponseHead => ({
  status,
  fields: new Map(Object.entries(fields)),
});

describe('the last head', () => {
  test('is that after all redirects, and only a complete one', () => {
    const text =
      'HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\nHTTP/2 200 \r\nETag: "a"\r\nContent-Length: 7\r\nETag: "b"\r\n\r\n';
    expect(lastHead(text)).toEqual(head(200, { etag: '"b"', 'content-length': '7' }));
    expect(lastHead(`${text}HTTP/1.1 206 Partial\r\nETag`)?.status).toBe(200);
    expect(lastHead('HTTP/1.1 200 OK\r\nETag: "a"')).toBeUndefined();
    expect(lastHead('')).toBeUndefined();
  });

  test('is none or well-formed, whatever was written', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        const found = lastHead(`HTTP/1.1 ${text}`);
        expect(found === undefined || (found.status >= 0 && found.status <= 999)).toBe(true);
      }),
    );
  });
});

test.each([
  [head(200, { 'content-length': '7' }), 7],
  [head(200, { 'content-length': '-7' }), undefined],
  [head(200, {}), undefined],
  [head(206, { 'content-range': 'bytes 3-6/7', 'content-length': '4' }), 7],
  [head(206, { 'content-range': 'bytes 3-6/*', 'content-length': '4' }), undefined],
])('%j has a whole of %j bytes', (response, bytes) => {
  expect(totalBytesOf(response)).toBe(bytes);
});

const date = 'Wed, 25 Nov 2026 12:00:00 GMT';
test.each([
  ['a strong tag', { etag: '"a"' }, '"a"'],
  ['a weak tag', { etag: 'W/"a"' }, undefined],
  ['a tag with a line break in it', { etag: '"a\u0001"' }, undefined],
  ['a tag of any length', { etag: `"${'a'.repeat(600)}"` }, undefined],
  ['a date well before the response', { 'last-modified': date, date: date.replace('12:00', '12:01') }, date],
  ['a date of the very response', { 'last-modified': date, date }, undefined],
  ['a date and no clock', { 'last-modified': date }, undefined],
  ['nothing', {}, undefined],
])('%s is a validator or not', (_what, fields, validator) => {
  expect(validatorOf(head(200, fields as Record<string, string>))).toBe(validator);
});

test('a part continues a file of the same size and tag only', () => {
  const begun = head(200, { 'content-length': '7', etag: '"a"' });
  const part = { 'content-range': 'bytes 3-6/7', etag: '"a"' };
  expect(continues(head(206, part), begun)).toBe(true);
  expect(continues(head(206, { 'content-range': 'bytes 3-6/7' }), begun)).toBe(true);
  expect(continues(head(200, part), begun)).toBe(false);
  expect(continues(head(206, { ...part, etag: '"b"' }), begun)).toBe(false);
  expect(continues(head(206, { ...part, 'content-range': 'bytes 3-6/8' }), begun)).toBe(false);
});
