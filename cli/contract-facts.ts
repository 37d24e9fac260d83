/**
 * What `roost` needs of the contract, as plain data. Here it is made of the schemas; the build does that once and puts what
 * came of it in the place of this file (tools/build.mjs), so that no run of the program loads a schema. Exports nothing
 * that JSON could not hold.
 */
import { type CommandName, commandNames, findCommand } from '../protocol/commands.ts';
import { type EventName, eventNames as namesOfEvents } from '../protocol/events.ts';
import { type Facts, factsOf } from './facts.ts';

export interface CommandFacts {
  readonly summary: string;
  readonly arguments: Facts;
}

const entryOf = (name: CommandName): readonly [CommandName, CommandFacts] => {
  const command = findCommand(name);
  if (!command) throw new Error(`The contract has no command '${name}'`);
  return [name, { summary: command.summary, arguments: factsOf(command.arguments, 'input') }];
};

export const commandFacts = Object.fromEntries(commandNames.map(entryOf)) as Readonly<
  Record<CommandName, CommandFacts>
>;

export const eventNames: readonly EventName[] = [...namesOfEvents];
