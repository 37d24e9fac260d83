/**
 * Writes docs/reference from the contract and the table of verbs; with `--check` it only compares, and fails when a
 * file is not what it would write. The same input gives the same bytes.
 */
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { exitCodes, exitReasonOfClass } from '../cli/exit-codes.ts';
import { errorClasses } from '../protocol/errors.ts';
import { cliReference } from './reference/cli.ts';
import { commandsReference } from './reference/commands.ts';
import { eventsReference } from './reference/events.ts';
import { GENERATED, table } from './reference/markdown.ts';
import { typesReference } from './reference/types.ts';

const directory = join(import.meta.dirname, '../docs/reference');

const errorsReference = (): string =>
  [
    '# Errors',
    GENERATED,
    '',
    'A refused request is answered with `{"error": {"class", "desc", "data", "hint"}}`. The class says what the caller',
    'does next and is all that a program should match on; `desc` and `hint` are for people and may change; `data` holds',
    'facts for machines. `data` and `hint` are beyond QMP.',
    '',
    table(
      ['Class', 'What to do next'],
      Object.entries(errorClasses).map(([name, next]) => [`\`${name}\``, next]),
    ),
  ].join('\n');

const exitCodesReference = (): string => {
  const classesOf = (reason: string): string =>
    Object.entries(exitReasonOfClass)
      .filter(([, of]) => of === reason)
      .map(([name]) => `\`${name}\``)
      .join(', ');
  return [
    '# Exit codes of roost',
    GENERATED,
    '',
    'Of several names the highest code decides. Error classes without a code of their own end with 1.',
    '',
    table(
      ['Code', 'Meaning', 'Error classes'],
      Object.entries(exitCodes).map(([reason, { code, meaning }]) => [
        String(code),
        meaning,
        classesOf(reason),
      ]),
    ),
  ].join('\n');
};

const files: Readonly<Record<string, () => string>> = {
  'cli.md': cliReference,
  'commands.md': commandsReference,
  'errors.md': errorsReference,
  'events.md': eventsReference,
  'exit-codes.md': exitCodesReference,
  'types.md': typesReference,
};

const stored = async (name: string): Promise<string | undefined> => {
  try {
    return await readFile(join(directory, name), 'utf8');
  } catch {
    return undefined;
  }
};

/** Names of the files that are not what they should be. */
const update = async (checkOnly: boolean): Promise<string[]> => {
  await mkdir(directory, { recursive: true });
  const changed: string[] = [];
  for (const [name, make] of Object.entries(files)) {
    const text = `${make().trimEnd()}\n`;
    if ((await stored(name)) === text) continue;
    changed.push(name);
    if (!checkOnly) await writeFile(join(directory, name), text);
  }
  for (const name of await readdir(directory)) {
    if (name in files || !name.endsWith('.md')) continue;
    changed.push(name);
    if (!checkOnly) await rm(join(directory, name));
  }
  return changed;
};

const checkOnly = process.argv.includes('--check');
const changed = await update(checkOnly);
if (checkOnly && changed.length > 0) {
  process.stderr.write(
    `docs/reference is stale (${changed.join(', ')}): run 'npm run docs' and commit the result.\n`,
  );
  process.exitCode = 1;
} else {
  process.stdout.write(
    changed.length > 0 ? `Wrote ${changed.join(', ')}\n` : 'docs/reference is up to date\n',
  );
}
