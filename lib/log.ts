/**
 * Log of the daemon: JSON lines on standard output. Under systemd each line starts with its priority as `<N>`
 * (sd-daemon(3)), so that the journal files it rightly.
 */
import { fstatSync } from 'node:fs';
import pino from 'pino';

export type Log = pino.Logger;
export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'silent';

const SYSLOG_PRIORITY: Readonly<Record<number, number>> = { 10: 7, 20: 7, 30: 6, 40: 4, 50: 3, 60: 2 };

const priorityOf = (line: string): number => {
  const level = /"level":(\d+)/.exec(line)?.[1];
  return SYSLOG_PRIORITY[Number(level)] ?? 6;
};

/**
 * Whether what is written to a descriptor goes to the journal: `JOURNAL_STREAM` names device and inode of that stream
 * (systemd.exec(5)), and is inherited by those whose output goes elsewhere.
 */
export const isJournal = (env: Readonly<Record<string, string | undefined>>, descriptor: number): boolean => {
  const stream = env['JOURNAL_STREAM'];
  if (stream === undefined) return false;
  try {
    const { dev, ino } = fstatSync(descriptor);
    return stream === `${dev}:${ino}`;
  } catch {
    return false;
  }
};

export const createLog = (options: { level: LogLevel; journal: boolean }): Log =>
  options.journal
    ? pino(
        { level: options.level, base: null },
        { write: (line: string) => process.stdout.write(`<${priorityOf(line)}>${line}`) },
      )
    : pino({ level: options.level, base: null });

export const silentLog = (): Log => pino({ level: 'silent' });
