/** What becomes of figures: a plain table, bench/results.json, docs/SPECIFICATION.md. */
import { readFile, writeFile } from 'node:fs/promises';
import { arch, availableParallelism, cpus, release, totalmem } from 'node:os';
import { join } from 'node:path';
import type { HostView } from '../protocol/host.ts';
import type { Figure, Row, Spread } from './measure.ts';
import { type RowText, rowGroups, rowNames } from './rows.ts';

const root = join(import.meta.dirname, '..');
const resultsPath = join(root, 'bench/results.json');
const specificationPath = join(root, 'docs/SPECIFICATION.md');

/** Lines for a terminal. */
export const tableOf = (figures: readonly Figure[]): string => {
  const lines = [
    ['row', 'unit', 'roost', '(p10–p90)', 'peer', '(p10–p90)', 'ratio', 'samples'],
    ...figures.map(({ row, spread }) => [
      row.name,
      row.unit,
      String(row.roost),
      spreadText(spread.roost),
      String(row.peer ?? ''),
      spread.peer ? spreadText(spread.peer) : '',
      String(row.ratio ?? ''),
      String(row.samples),
    ]),
  ];
  const widths = lines[0]?.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)));
  return lines
    .map((line) =>
      line
        .map((cell, column) => cell.padEnd(widths?.[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
};

const spreadText = ({ p10, p90 }: Spread): string => (p10 === p90 ? '' : `${p10}–${p90}`);

/** A row as it is kept: with the spread of each side. */
type KeptRow = Row & { readonly spread?: Figure['spread'] };

/** Replaces the rows that were measured, and gives them with the others, in the order of the rows. */
export const writeResults = async (figures: readonly Figure[]): Promise<readonly Figure[]> => {
  const kept = new Map((await readResults()).map((row) => [row.name, row]));
  for (const { row, spread } of figures) kept.set(row.name, { ...row, spread });
  const rows = rowNames.flatMap((name) => kept.get(name) ?? []);
  await writeFile(resultsPath, `${JSON.stringify(rows, undefined, 2)}\n`);
  return rows.map(({ spread, ...row }) => ({
    row,
    spread: spread ?? { roost: { p10: row.roost, p90: row.roost } },
  }));
};

const readResults = async (): Promise<readonly KeptRow[]> => {
  try {
    return JSON.parse(await readFile(resultsPath, 'utf8')) as KeptRow[];
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return [];
    throw error;
  }
};

export const writeSpecification = async (figures: readonly Figure[], host: HostView): Promise<void> => {
  await writeFile(specificationPath, specificationOf(figures, host));
};

const specificationOf = (figures: readonly Figure[], host: HostView): string => {
  const texts = rowGroups.flatMap(({ rows }) => rows);
  const withFigure = (text: RowText): readonly (readonly [RowText, Figure])[] => {
    const figure = figures.find(({ row }) => row.name === text.name);
    return figure ? [[text, figure]] : [];
  };
  const measured = texts.flatMap(withFigure);
  const promised = measured.filter(([text]) => text.promise !== undefined);
  const others = measured.filter(([text]) => text.promise === undefined);
  return [
    '# Specification',
    '',
    'What Roost promises of its speed, with the command that measures it. Only ratios are promises: both sides run on the',
    'same machine, in the same run, in turn, and do the same work. Times and sizes are for information.',
    'Written by `make bench` and `bench/run`, each row with its last figure; do not edit.',
    '',
    '## Promises',
    '',
    '| row | promise | last ratio | Roost | peer | measured by |',
    '|---|---|---|---|---|---|',
    ...promised.map(
      ([text, { row, spread }]) =>
        `| ${row.name} | at most ${text.promise} times | ${row.ratio} | ${valueText(row.roost, row.unit, spread.roost)} | ${valueText(row.peer, row.unit, spread.peer)} | \`bench/run ${row.name}\` |`,
    ),
    '',
    ...promised.map(([text, { row }]) => `- **${row.name}**: ${text.what}. Peer: ${row.peerName}.`),
    '',
    'By hand means: a Node program that has its sockets, lock, logs and tap ready, spawns the command line that `guest-plan`',
    'gives (same launcher, user and sandbox), waits for the greeting of the monitor, and has sent `qmp_capabilities` and',
    '`cont` answered.',
    '',
    '## For information',
    '',
    '| row | what | Roost | peer | ratio | measured by |',
    '|---|---|---|---|---|---|',
    ...others.map(
      ([text, { row, spread }]) =>
        `| ${row.name} | ${text.what} | ${valueText(row.roost, row.unit, spread.roost)} | ${row.peerName === null ? '' : `${valueText(row.peer, row.unit, spread.peer)}, \`${row.peerName}\``} | ${row.ratio ?? ''} | \`bench/run ${row.name}\` |`,
    ),
    '',
    'Figures are medians, with the 10th and 90th percentile where there is more than one sample.',
    '',
    '## The machine',
    '',
    ...machineLines(host).map((line) => `- ${line}`),
    '',
  ].join('\n');
};

const valueText = (value: number | null, unit: string, spread: Spread | undefined): string => {
  const range = spread && spreadText(spread);
  return `${value} ${unit}${range ? ` (${range})` : ''}`;
};

const machineLines = (host: HostView): readonly string[] => [
  `${availableParallelism()} processors: ${cpus()[0]?.model.trim() ?? arch()}`,
  `${Math.round(totalmem() / 1024 ** 3)} GiB of memory`,
  `Linux ${release()}, Node ${process.version.slice(1)}, ${host.qemuBinaries
    .map(({ version }) => `QEMU ${version ?? '?'}`)
    .join(', ')}`,
  `Guests ran under ${host.accelerator.auto}: ${host.accelerator.why}`,
];
