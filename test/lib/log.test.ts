import { expect, test, vi } from 'vitest';
import { createLog, silentLog } from '../../lib/log.ts';

test('under the journal each line starts with its syslog priority and is JSON otherwise', () => {
  const lines: string[] = [];
  vi.spyOn(process.stdout, 'write').mockImplementation((chunk) => {
    lines.push(String(chunk));
    return true;
  });
  const log = createLog({ level: 'trace', journal: true });
  log.trace('t');
  log.info('i');
  log.warn({ guest: 'web1' }, 'w');
  log.error('e');
  log.fatal('f');
  vi.restoreAllMocks();
  expect(lines.map((line) => line.slice(0, 3))).toEqual(['<7>', '<6>', '<4>', '<3>', '<2>']);
  expect(JSON.parse(lines[2]?.slice(3) ?? '')).toMatchObject({ level: 40, guest: 'web1', msg: 'w' });
  expect(lines.every((line) => line.endsWith('\n'))).toBe(true);
});

test('what is below the level is not written', () => {
  const lines: string[] = [];
  vi.spyOn(process.stdout, 'write').mockImplementation((chunk) => {
    lines.push(String(chunk));
    return true;
  });
  createLog({ level: 'warn', journal: true }).info('i');
  silentLog().fatal('f');
  vi.restoreAllMocks();
  expect(lines).toEqual([]);
});
