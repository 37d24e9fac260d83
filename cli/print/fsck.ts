/** What fsck found, for people. */
import type { Difference, FsckReport } from '../../protocol/fsck.ts';
import { safe } from './table.ts';

const counted = (count: number, one: string, more = `${one}s`): string =>
  `${count} ${count === 1 ? one : more}`;

const subjectOf = ({ object, path, owner }: Difference): string => {
  if (object) return `${object.kind} ${object.name}`;
  return path ?? (owner ? `${owner.kind} ${owner.name ?? owner.id}` : '');
};

/** Each on three lines: what, why, and what is to be done. */
export const printDifferences = (differences: readonly Difference[]): string[] =>
  differences.flatMap((difference) => [
    safe(`${difference.kind}: ${subjectOf(difference)}`),
    safe(`    ${difference.cause}`),
    safe(
      difference.mend.by === 'repair'
        ? `    'roost fsck --repair' ${difference.mend.how}`
        : `    to do: ${difference.mend.how}`,
    ),
    ...(difference.operation === undefined ? [] : [`    see 'roost operation show ${difference.operation}'`]),
  ]);

export const printFsck = (report: FsckReport): string[] => [
  ...printDifferences(report.differences),
  ...report.underWay.map(({ kind, name, why = 'work on it is under way' }) =>
    safe(`not compared: ${kind} ${name}, ${why}`),
  ),
  ...report.foreign.map(({ what, whose }) => safe(`not ours: ${what}, of ${whose}`)),
  report.differences.length === 0
    ? `Ledger and host agree on ${counted(report.compared, 'object')}.`
    : `${counted(report.differences.length, 'difference')}, and ${counted(report.compared, 'object')} agreed on.`,
];
