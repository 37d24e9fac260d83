/** The transcript of a guest's monitor in lines. */
import type { QmpLogEntry, QmpLogKind, UnansweredCommand } from '../../protocol/qmp-log.ts';
import { formatDuration, formatSize } from '../units.ts';
import { safe } from './table.ts';

const marks: Readonly<Record<QmpLogKind, string>> = {
  session: '-',
  command: '>',
  reply: '<',
  error: '!',
  event: '*',
  skipped: '-',
};

/** `NUMBER TIME MARK NAME text (took)` on one line. */
export const printQmpLogEntry = ({ number, at, kind, name, text, ms, bytes }: QmpLogEntry): string => {
  const cut = bytes === undefined ? undefined : `… (${formatSize(bytes)} in all)`;
  const words = [name, kind === 'skipped' ? `${text} are missing` : text, cut].filter(Boolean).join(' ');
  const took = ms === undefined ? '' : ` (${ms} ms)`;
  return safe(`${number}  ${new Date(at).toISOString()}  ${marks[kind]} ${words}${took}`);
};

export const printUnanswered = ({ name, ageMs }: UnansweredCommand): string =>
  safe(`${name} has not been answered for ${formatDuration(ageMs)}`);
