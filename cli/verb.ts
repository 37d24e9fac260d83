/**
 * The form of a row in the table of verbs: which words a person types, which command of the contract they mean, how
 * positionals and flags fill its arguments, and how the reply is shown. Parsing, help, completion and the reference
 * are all made from these rows.
 */
import type { CommandName, CommandReturn } from '../protocol/commands.ts';
import type { Context } from './io.ts';

/** What can be completed by asking the daemon or the shell. */
export type Completion = 'guest' | 'image' | 'network' | 'operation' | 'token' | 'command' | 'file';

export interface Positional {
  /** As shown in help, upper-case. */
  readonly name: string;
  /** The argument it fills. */
  readonly member?: string;
  readonly optional?: boolean;
  /** One or more; each is a call of its own. */
  readonly variadic?: boolean;
  /** A command with options of its own: nothing behind it is ours. */
  readonly command?: boolean;
  readonly description?: string;
  readonly choices?: readonly string[];
  readonly complete?: Completion;
}

/** A flag. Type, choices, default and, unless given, description come from the contract's member. */
export interface Flag {
  /** Long name without hyphens. */
  readonly name: string;
  readonly short?: string;
  /** Path of the argument it fills, as `cpu.count`; without it the verb reads the flag itself. */
  readonly member?: string;
  readonly description?: string;
  /** Type of a flag that fills no argument; a switch unless given. */
  readonly type?: 'switch' | 'size' | 'duration' | 'integer' | 'string' | 'strings';
  /** Name of its value in help. */
  readonly value?: string;
  /** Of a switch: whether `--no-…` exists as well. */
  readonly negatable?: boolean;
  /** Whether `--no-…` takes away what is given as its value: it is false then. */
  readonly removable?: boolean;
  readonly complete?: Completion;
}

export type Arguments = Readonly<Record<string, unknown>>;

export interface Invocation {
  /** By the positional's name; a variadic one is a list. */
  readonly positionals: Readonly<Record<string, string | readonly string[] | undefined>>;
  /** By the flag's name, only those given. */
  readonly flags: Readonly<Record<string, unknown>>;
}

export interface Verb {
  /** The words typed, as `image import`. */
  readonly words: string;
  readonly aliases?: readonly string[];
  /** The command it mostly calls; its summary is the verb's unless one is given. */
  readonly command?: CommandName;
  /** Further commands that it calls. */
  readonly uses?: readonly CommandName[];
  readonly summary?: string;
  /** More for help, in whole sentences. */
  readonly details?: string;
  readonly positionals: readonly Positional[];
  readonly flags: readonly Flag[];
  /** Whether it changes something and so knows `--no-wait`. */
  readonly changes?: boolean;
  readonly hidden?: boolean;
  /** Does it; resolves with the exit code. Throws CliFailure or Interrupted. */
  readonly run: (invocation: Invocation, context: Context) => Promise<number>;
}

/** Puts a value at a path like `cpu.count`, making the objects on the way. */
export const withMember = (target: Arguments, path: string, value: unknown): Arguments => {
  const [key = '', ...rest] = path.split('.');
  if (rest.length === 0) return { ...target, [key]: value };
  const inner = target[key];
  const object = typeof inner === 'object' && inner !== null ? (inner as Arguments) : {};
  return { ...target, [key]: withMember(object, rest.join('.'), value) };
};

/** The arguments that positionals and flags fill. */
export const argumentsOf = (
  row: Pick<Verb, 'positionals' | 'flags'>,
  invocation: Invocation,
  base: Arguments = {},
): Arguments => {
  let args = base;
  for (const positional of row.positionals) {
    const value = invocation.positionals[positional.name];
    if (positional.member !== undefined && value !== undefined && typeof value === 'string') {
      args = withMember(args, positional.member, value);
    }
  }
  for (const flag of row.flags) {
    const value = invocation.flags[flag.name];
    if (flag.member !== undefined && value !== undefined) args = withMember(args, flag.member, value);
  }
  return args;
};

type Row = Omit<Verb, 'run' | 'positionals' | 'flags' | 'command' | 'changes'> & {
  readonly positionals?: readonly Positional[];
  readonly flags?: readonly Flag[];
};

export type Prepare = (
  args: Arguments,
  invocation: Invocation,
  context: Context,
) => Promise<Arguments> | Arguments;

interface QueryRow<N extends CommandName> extends Row {
  readonly command: N;
  readonly fixed?: Arguments;
  readonly prepare?: Prepare;
  /** Member of the reply that is a list in pages: all pages are fetched and shown as one. */
  readonly pages?: string;
  readonly print: (reply: CommandReturn<N>, invocation: Invocation, context: Context) => readonly string[];
}

/** Entries of a page; large enough for one round trip in all but huge inventories. */
const PAGE_ENTRIES = 1000;

const allPages = async (
  context: Context,
  command: CommandName,
  args: Arguments,
  member: string,
): Promise<Arguments> => {
  const client = await context.client();
  const entries: unknown[] = [];
  let after: unknown;
  for (;;) {
    const request = { ...args, limit: PAGE_ENTRIES, ...(after === undefined ? {} : { after }) };
    const reply = (await client.callAny(command, request, { signal: context.signal })) as Arguments;
    const { next, ...rest } = reply;
    entries.push(...((reply[member] as readonly unknown[] | undefined) ?? []));
    if (next === undefined) return { ...rest, [member]: entries };
    after = next;
  }
};

/** A verb that asks and shows. */
export const query = <N extends CommandName>(row: QueryRow<N>): Verb => {
  const { fixed, prepare, pages, print, positionals = [], flags = [], ...verb } = row;
  return {
    ...verb,
    positionals,
    flags,
    run: async (invocation, context) => {
      const given = argumentsOf({ positionals, flags }, invocation, fixed);
      const args = prepare ? await prepare(given, invocation, context) : given;
      const isPaged = pages !== undefined && args['limit'] === undefined;
      const reply = isPaged
        ? await allPages(context, row.command, args, pages)
        : await (await context.client()).callAny(row.command, args, { signal: context.signal });
      if (context.json) context.printJson(reply);
      else context.print(print(reply as CommandReturn<N>, invocation, context));
      return 0;
    },
  };
};
