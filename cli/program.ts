/**
 * The parser: the table of verbs as a commander program. Flags are known only when the contract was loaded; a command
 * line without any needs neither.
 */
import { Argument, Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { versionText } from '../protocol/version.ts';
import type { FlagForm } from './flags.ts';
import type { Invocation, Positional, Verb } from './verb.ts';
import { groupSummaries } from './verbs.ts';

/** What help and flags need of the contract. */
export interface ContractTexts {
  readonly flagForms: (verb: Verb) => readonly FlagForm[];
  readonly flagSyntax: (form: FlagForm) => string;
  readonly helpText: (form: FlagForm) => string;
  readonly globalFlags: readonly { readonly syntax: string; readonly description: string }[];
  readonly summaryOf: (verb: Verb) => string;
  readonly descriptionOf: (verb: Verb, positional: Positional) => string;
}

export interface ProgramOptions {
  readonly verbs: readonly Verb[];
  readonly contract: ContractTexts | undefined;
  readonly out: (text: string) => void;
  readonly error: (text: string) => void;
  readonly onVerb: (verb: Verb, invocation: Invocation, wait: boolean) => Promise<void>;
}

const parserOf =
  (form: FlagForm) =>
  (text: string, previous: unknown): unknown => {
    try {
      return form.parse(text, previous);
    } catch (error) {
      if (error instanceof CommanderError) throw error;
      throw new InvalidArgumentError(error instanceof Error ? error.message : String(error));
    }
  };

const opposite = ({ flag }: FlagForm): Option => new Option(`--no-${flag.name}`, 'The opposite').hideHelp();

const optionsOf = (form: FlagForm, contract: ContractTexts): Option[] => {
  const option = new Option(contract.flagSyntax(form), contract.helpText(form));
  if (form.value !== undefined) {
    // commander keeps the previous value of the same option only for a parser of its own.
    option.argParser(parserOf(form));
    return form.flag.removable === true ? [option, opposite(form)] : [option];
  }
  return form.flag.negatable === true ? [option, opposite(form)] : [option];
};

const argumentOf = (verb: Verb, positional: Positional, contract: ContractTexts | undefined): Argument => {
  const name = `${positional.name}${positional.variadic === true ? '...' : ''}`;
  const syntax = positional.optional === true ? `[${name}]` : `<${name}>`;
  const argument = new Argument(syntax, contract?.descriptionOf(verb, positional) ?? '');
  return positional.choices ? argument.choices(positional.choices) : argument;
};

const invocationOf = (verb: Verb, command: Command, forms: readonly FlagForm[]): Invocation => {
  const given = command.opts<Record<string, unknown>>();
  const flags: Record<string, unknown> = {};
  for (const { flag } of forms) {
    const attribute = flag.name.replace(/-([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
    if (given[attribute] !== undefined) flags[flag.name] = given[attribute];
  }
  const positionals = Object.fromEntries(
    verb.positionals.map((positional, index) => [
      positional.name,
      command.processedArgs[index] as string | string[] | undefined,
    ]),
  );
  return { positionals, flags };
};

const addVerb = (parent: Command, name: string, verb: Verb, options: ProgramOptions): void => {
  const { contract } = options;
  const command = parent.command(name).summary(contract?.summaryOf(verb) ?? '');
  const forms = contract?.flagForms(verb) ?? [];
  const summary = contract?.summaryOf(verb) ?? '';
  command.description(verb.details === undefined ? summary : `${summary}\n\n${verb.details}`);
  for (const alias of verb.aliases ?? []) command.alias(alias.split(' ').at(-1) ?? alias);
  for (const positional of verb.positionals) command.addArgument(argumentOf(verb, positional, contract));
  for (const form of forms) {
    if (contract) for (const option of optionsOf(form, contract)) command.addOption(option);
  }
  command.action(async () => {
    const wait = command.opts<{ wait?: boolean }>().wait !== false;
    await options.onVerb(verb, invocationOf(verb, command, forms), wait);
  });
};

const createRoot = (options: ProgramOptions): Command => {
  const program = new Command('roost')
    .description('Manage guests of this host: virtual machines, microVMs and containers.')
    .version(versionText, '-V, --version', 'Print the version of roost')
    .exitOverride()
    .configureOutput({ writeOut: options.out, writeErr: options.error, outputError: () => undefined })
    .configureHelp({ optionDescription: (option) => option.description })
    .helpOption('-h, --help', 'Show help');
  program.helpCommand('help [command]', 'Show help for a command');
  const [socket, json] = options.contract?.globalFlags ?? [];
  program.addOption(new Option('--socket <path>', socket?.description));
  program.addOption(new Option('--json', json?.description));
  return program;
};

export const buildProgram = (options: ProgramOptions): Command => {
  const program = createRoot(options);
  const groups = new Map<string, Command>();
  for (const verb of options.verbs) {
    const [first = '', second] = verb.words.split(' ');
    if (second === undefined) {
      addVerb(program, first, verb, options);
      continue;
    }
    const group = groups.get(first) ?? program.command(first).description(groupSummaries[first] ?? '');
    group.helpCommand(false);
    groups.set(first, group);
    addVerb(group, second, verb, options);
  }
  return program;
};
