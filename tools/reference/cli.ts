/** docs/reference/cli.md: every verb of `roost`. */
import { positionalDescription, verbSummary } from '../../cli/contract-texts.ts';
import { flagForms, flagSyntax, globalFlags, helpText } from '../../cli/flags.ts';
import type { Positional, Verb } from '../../cli/verb.ts';
import { verbs } from '../../cli/verbs.ts';
import { anchor, GENERATED, table } from './markdown.ts';

const usageOf = ({ name, optional, variadic }: Positional): string => {
  const word = `${name}${variadic === true ? '...' : ''}`;
  return optional === true ? `[${word}]` : `<${word}>`;
};

const callsText = (verb: Verb): string => {
  const commands = [verb.command, ...(verb.uses ?? [])].filter((name) => name !== undefined);
  if (commands.length === 0) return '';
  return `Calls ${commands.map((name) => `[${name}](commands.md#${anchor(name)})`).join(', ')}.`;
};

const section = (verb: Verb): string => {
  const usage = ['roost', verb.words, ...verb.positionals.map(usageOf)].join(' ');
  const rows = [
    ...verb.positionals.map((positional) => [
      `\`${positional.name}\``,
      `${positionalDescription(verb, positional)}${positional.choices ? ` (${positional.choices.join(', ')})` : ''}`,
    ]),
    ...flagForms(verb).map((form) => [`\`${flagSyntax(form)}\``, helpText(form)]),
  ];
  return [
    `## roost ${verb.words}`,
    '',
    '```',
    `${usage}${verb.flags.length > 0 || verb.changes === true ? ' [options]' : ''}`,
    '```',
    '',
    [`${verbSummary(verb)}.`, verb.details, callsText(verb)].filter(Boolean).join(' '),
    ...(verb.aliases === undefined
      ? []
      : ['', `Also: ${verb.aliases.map((alias) => `\`roost ${alias}\``).join(', ')}.`]),
    ...(rows.length === 0 ? [] : ['', table(['Argument', 'Meaning'], rows)]),
    '',
  ].join('\n');
};

export const cliReference = (): string =>
  [
    '# roost',
    GENERATED,
    '',
    'Sizes are typed as `512MiB` or `4GiB` (powers of 1024), `4GB` (powers of 1000) or bare bytes; durations as `30s`,',
    '`2m`, `1h30m` or `500ms`. Commands that change something wait for their operation and say how it ended; `--no-wait`',
    'prints its id instead. Of several names each is reported. [Exit codes](exit-codes.md) have a page of their own.',
    '',
    'The socket is that of `--socket`, else of `ROOST_SOCKET`, else `/run/roost/roost.sock` for root and',
    '`$XDG_RUNTIME_DIR/roost/roost.sock` for everyone else.',
    '',
    table(
      ['Global flag', 'Meaning'],
      globalFlags.map(({ syntax, description }) => [`\`${syntax}\``, description]),
    ),
    '',
    table(
      ['Command', 'Summary'],
      verbs.map((verb) => [`[roost ${verb.words}](#${anchor(`roost ${verb.words}`)})`, verbSummary(verb)]),
    ),
    '',
    ...verbs.map(section),
  ].join('\n');
