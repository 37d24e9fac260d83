import fc from 'fast-check';
import { expect, it } from 'vitest';
import { commandOf, parseStat } from '../../../drivers/roost-agent/process-list.ts';

const stat = (name: string): string =>
  `42 (${name}) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 1234 10000000 300 18446744073709551615 1 1 0 0 0`;

it.each(['sh', 'a b', ') S 9 (', '((', 'tab\there'])('reads a process that is called %s', (name) => {
  expect(parseStat(stat(name))).toMatchObject({
    pid: 42,
    parentPid: 1,
    state: 'S',
    cpuTimeMs: 3000,
    residentBytes: 300 * 4096,
  });
});

it.each(['', 'x', '42 (sh)', '42 (sh) S', '(sh) S 1', '42 (sh) SS 1 2 3'])(
  'takes %j for no process',
  (text) => {
    expect(parseStat(text)).toBeUndefined();
  },
);

it('reads anything without failing', () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      const read = parseStat(text);
      expect(read === undefined || read.pid >= 0).toBe(true);
    }),
  );
});

it('shows arguments with spaces between them, and a name where there are none', () => {
  expect(commandOf('nginx\0-g\0daemon off;\0', 'nginx')).toBe('nginx -g daemon off;');
  expect(commandOf('', 'sh')).toBe('[sh]');
});
