/** What a recovery came to, for people. */
import type { RecoveryReport } from '../../protocol/recovery.ts';

const counted = (count: number, one: string): string => `${count} ${one}${count === 1 ? '' : 's'}`;

/** Names may be a stranger's by now: what a terminal would take for a command is not shown. */
const safe = (text: string): string => text.replace(/\p{Cc}/gu, '?');

const listed = (title: string, lines: readonly string[]): readonly string[] =>
  lines.length === 0 ? [] : ['', title, ...lines.map((line) => `  - ${safe(line)}`)];

export const reportText = (report: RecoveryReport): string => {
  const { database, guests, networks, images, leftOut, changed, unknown, history } = report;
  const running = guests.filter(({ pid }) => pid !== undefined).length;
  const lines = [
    safe(`The inventory ${database.path} ${database.why}.`),
    ...database.movedTo.map((path) => safe(`Kept as ${path}.`)),
    `${report.dryRun ? 'It would be rebuilt' : 'Rebuilt'} from the records: ${counted(guests.length, 'guest')} (${running} running), ${counted(networks.length, 'network')}, ${counted(images.length, 'image')}.`,
    ...(history === undefined ? [] : [safe(`Earlier operations are those of ${history}.`)]),
    ...listed('Taken over otherwise than recorded:', changed),
    ...listed(
      'Left out, with its files and its process untouched:',
      leftOut.map(({ what, path, why }) => `${what}${path === undefined ? '' : ` ${path}`}: ${why}`),
    ),
    ...listed('Not known:', unknown),
    '',
    report.dryRun
      ? 'Nothing was changed.'
      : "Running guests are taken back when the daemon starts; 'roost fsck' then tells whether all is there.",
  ];
  return `${lines.join('\n')}\n`;
};
