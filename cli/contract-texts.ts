/** Everything help needs of the contract, in one place that is loaded only when it is wanted. */
import { factsOfMember, summaryOf } from './contract.ts';
import type { Facts } from './facts.ts';
import { flagForms, flagSyntax, globalFlags, helpText } from './flags.ts';
import type { ContractTexts } from './program.ts';
import type { Positional, Verb } from './verb.ts';

export const verbSummary = (verb: Verb): string =>
  verb.summary ?? (verb.command === undefined ? '' : summaryOf(verb.command));

export const positionalDescription = (verb: Verb, positional: Positional): string => {
  const facts: Facts | undefined =
    verb.command === undefined || positional.member === undefined
      ? undefined
      : factsOfMember(verb.command, positional.member);
  return positional.description ?? facts?.description ?? '';
};

export const contractTexts: ContractTexts = {
  flagForms,
  flagSyntax,
  helpText,
  globalFlags,
  summaryOf: verbSummary,
  descriptionOf: positionalDescription,
};
