import { describe, expect, test } from 'vitest';
import { verdictOn } from '../../../../storage/images/download/verdict.ts';

const on = (exitCode: number, status = 0, hasBytes = false): string => {
  const verdict = verdictOn({ exitCode, status, message: 'curl says why' }, hasBytes, 'http://h/x');
  return verdict.kind === 'give-up' ? verdict.error.class : verdict.kind;
};

describe('the verdict on an attempt', () => {
  test.each([
    ['a complete response', 0, 200, true, 'complete'],
    ['a body cut short', 18, 200, true, 'again'],
    ['silence', 28, 200, true, 'again'],
    ['a server that ignores Range', 33, 200, true, 'anew'],
    ['a range beyond the end', 22, 416, true, 'anew'],
    ['a range beyond the end that nobody asked for', 22, 416, false, 'InvalidArgument'],
    ['a server that is busy', 22, 503, false, 'again'],
    ['a file that is not there', 22, 404, true, 'NotFound'],
    ['a password that is wrong', 22, 401, false, 'InvalidArgument'],
    ['a host that nobody knows', 6, 0, false, 'Unavailable'],
    ['the same in the middle of a download', 6, 0, true, 'again'],
    ['a certificate that nobody signed', 60, 0, false, 'InvalidArgument'],
    ['a file that is too large', 63, 200, false, 'ResourceExhausted'],
    ['a disk that cannot be written', 23, 200, true, 'HostError'],
    ['an exit code of tomorrow', 119, 0, true, 'Unavailable'],
  ])('%s', (_what, exitCode, status, hasBytes, expected) => {
    expect(on(exitCode, status, hasBytes)).toBe(expected);
  });
});
