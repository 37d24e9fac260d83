/** docs/reference/commands.md: every command of the contract. */
import { factsOfArguments } from '../../cli/contract.ts';
import { type Facts, factsOf } from '../../cli/facts.ts';
import { verbs } from '../../cli/verbs.ts';
import type { CommandDeclaration } from '../../protocol/command.ts';
import { type CommandName, commandNames, findCommand } from '../../protocol/commands.ts';
import { exampleRequest } from './example.ts';
import { anchor, argumentsTable, GENERATED, membersTable, table } from './markdown.ts';

const declarationOf = (name: CommandName): CommandDeclaration => {
  const command = findCommand(name);
  if (!command) throw new Error(`The contract has no command '${name}'`);
  return command;
};

const natures: Readonly<Record<CommandDeclaration['nature'], string>> = {
  query: 'answers at once',
  change: 'answers with an operation',
  session: 'concerns this connection only',
  wait: 'may take long; other commands of the connection go on',
};

const isAccepted = (facts: Facts): boolean => Object.keys(facts.members ?? {}).join() === 'operation,id';

const returnsText = (facts: Facts): string => {
  if (isAccepted(facts)) {
    return 'Returns `operation`, to wait for with [operation-wait](#operation-wait), and the `id` of what it works on.';
  }
  if (facts.type === 'list') return `Returns a list of:\n\n${membersTable(facts.item ?? facts)}`;
  if (facts.type === 'map') return 'Returns an object whose members depend on the request.';
  if (Object.keys(facts.members ?? {}).length === 0) return 'Returns an empty object.';
  return `Returns:\n\n${membersTable(facts)}`;
};

const inCli = (name: CommandName): string => {
  const found =
    verbs.find((verb) => verb.command === name) ?? verbs.find((verb) => verb.uses?.includes(name));
  return found ? ` · \`roost ${found.words}\`` : '';
};

const section = (name: CommandName): string => {
  const command = declarationOf(name);
  const args = factsOfArguments(name);
  const hasArguments = Object.keys(args.members ?? {}).length > 0;
  return [
    `## ${name}`,
    '',
    `${command.summary}.${command.description === undefined ? '' : ` ${command.description}`}`,
    '',
    `Role \`${command.role}\` · ${natures[command.nature]} · since ${command.since}${inCli(name)}`,
    '',
    hasArguments ? `Arguments:\n\n${argumentsTable(args)}` : 'No arguments.',
    '',
    returnsText(factsOf(command.returns, 'output')),
    '',
    '```json',
    JSON.stringify(exampleRequest(name, args)),
    '```',
    '',
  ].join('\n');
};

export const commandsReference = (): string =>
  [
    '# Commands',
    GENERATED,
    '',
    'Every command of the daemon\'s socket. Requests and replies have QMP\'s envelope, `{"execute", "arguments", "id"}`',
    'and `{"return", "id"}` or `{"error", "id"}`; members are camelCase, sizes are bytes, durations milliseconds. Unknown',
    'commands and arguments are refused before anything happens. [Errors](errors.md), [events](events.md) and',
    '[words](types.md) have pages of their own.',
    '',
    table(
      ['Command', 'Role', 'Summary'],
      commandNames.map((name) => {
        const { role, summary } = declarationOf(name);
        return [`[${name}](#${anchor(name)})`, role, summary];
      }),
    ),
    '',
    ...commandNames.map(section),
  ].join('\n');
