/** What the contract says of commands and their arguments. Import it only when flags or help are wanted. */
import type { CommandName } from '../protocol/commands.ts';
import { commandFacts } from './contract-facts.ts';
import type { Facts } from './facts.ts';

/** Facts of a command's arguments. */
export const factsOfArguments = (name: CommandName): Facts => commandFacts[name].arguments;

/** Facts of one argument by its path, as `restartPolicy.when`. Throws when the contract has no such argument. */
export const factsOfMember = (name: CommandName, path: string): Facts => {
  let facts: Facts | undefined = factsOfArguments(name);
  for (const key of path.split('.')) facts = facts?.members?.[key];
  if (!facts) throw new Error(`Command '${name}' has no argument '${path}'`);
  return facts;
};

/** All commands, in the order of the reference. */
export const commandNames = Object.keys(commandFacts) as readonly CommandName[];

export const summaryOf = (name: CommandName): string => commandFacts[name].summary;
