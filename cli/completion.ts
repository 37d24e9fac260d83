/**
 * Completion in bash, zsh and fish. Each shell's script only asks `roost __complete -- WORDS…`, the words up to the
 * cursor, the last one unfinished; the answer is a candidate a line, a tab, its description, or `:file` for the shell's
 * own file names. Names come from the daemon, quickly or not at all; nothing here ever fails aloud.
 */
import { deadline } from '../lib/abort.ts';
import type { ImageView } from '../protocol/image.ts';
import { imageLabel } from '../protocol/image-reference.ts';
import { type Client, connect } from './client.ts';
import { commandNames, summaryOf } from './contract.ts';
import { verbSummary } from './contract-texts.ts';
import { type FlagForm, flagForms } from './flags.ts';
import type { Io } from './io.ts';
import { safe } from './print/table.ts';
import { defaultSocketPath } from './run.ts';
import type { Completion, Verb } from './verb.ts';
import { findVerb, groupSummaries, verbs } from './verbs.ts';

/** Longer than this nobody waits for a completion. */
const ANSWER_TIMEOUT_MS = 500;
const MAX_NAMES = 1000;
const FILES = ':file';

interface Candidate {
  readonly text: string;
  readonly description?: string;
}

type Candidates = readonly Candidate[] | typeof FILES;

const bash = `# bash completion for roost
_roost() {
  local candidate
  COMPREPLY=()
  while IFS=$'\\t' read -r candidate _; do
    if [[ $candidate == ${FILES} ]]; then
      compopt -o filenames 2>/dev/null
      mapfile -t COMPREPLY < <(compgen -f -- "\${COMP_WORDS[COMP_CWORD]}")
      return
    fi
    COMPREPLY+=("$candidate")
  done < <("\${COMP_WORDS[0]}" __complete -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _roost roost
`;

const zsh = `#compdef roost
_roost() {
  local entry
  local -a entries candidates
  entries=("\${(@f)$("\${words[1]}" __complete -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}")
  for entry in $entries; do
    if [[ $entry == ${FILES} ]]; then
      _files
      return
    fi
    candidates+=("\${\${entry%%$'\\t'*}//:/\\\\:}:\${entry#*$'\\t'}")
  done
  _describe roost candidates
}
compdef _roost roost
`;

const fish = `# fish completion for roost
function __roost_complete
    set -l words (commandline -opc)
    set -l entries ($words[1] __complete -- $words[2..-1] (commandline -ct) 2>/dev/null)
    if test "$entries[1]" = ${FILES}
        __fish_complete_path (commandline -ct)
    else
        printf '%s\\n' $entries
    end
end
complete -c roost -f -a '(__roost_complete)'
`;

const scripts: Readonly<Record<string, string>> = { bash, zsh, fish };

/** The script of a shell; the shell was checked by the parser. */
export const completionScript = (shell: string): string => scripts[shell] ?? '';

/** The words before the cursor and the unfinished one; `prefix` is what stands before it in the same word. */
interface Line {
  readonly before: readonly string[];
  readonly partial: string;
  readonly prefix: string;
}

/** Bash cuts `--state=run` into three words, and `./site:/www`; the others leave them whole. */
const lineOf = (words: readonly string[]): Line => {
  const split: string[] = [];
  let prefix = '';
  for (const [index, word] of words.entries()) {
    const isLast = index === words.length - 1;
    const [, flag, value] = /^(--[^=]+)=(.*)$/s.exec(word) ?? [];
    if (word === '=' && index > 0) {
      if (isLast) split.push('');
    } else if (index > 0 && (word === ':' || words[index - 1] === ':')) {
      split.push(`${split.pop() ?? ''}${word}`);
    } else if (flag !== undefined && value !== undefined) {
      split.push(flag, value);
      if (isLast) prefix = `${flag}=`;
    } else split.push(word);
  }
  return { before: split.slice(0, -1), partial: split.at(-1) ?? '', prefix };
};

/** A name and its aliases once; versions where there is a choice. */
const imageCandidates =
  (all: readonly ImageView[]) =>
  (image: ImageView): Candidate[] => {
    const isAlone = all.filter(({ name }) => name === image.name).length === 1;
    return [
      ...(image.newest ? [image.name] : []),
      ...image.aliases,
      ...(isAlone ? [] : [imageLabel(image)]),
    ].map((text) => ({ text, description: image.kind }));
  };

const listOf: Readonly<
  Record<
    Exclude<Completion, 'command' | 'file'>,
    (client: Client, signal: AbortSignal) => Promise<Candidate[]>
  >
> = {
  guest: async (client, signal) => {
    const args = { fields: ['name', 'state'], limit: MAX_NAMES };
    const { guests } = await client.call('query-guests', args, { signal });
    return guests.map((guest) => ({ text: guest.name ?? '', description: guest.state ?? '' }));
  },
  image: async (client, signal) => {
    const { images } = await client.call('query-images', { limit: MAX_NAMES }, { signal });
    return images.flatMap(imageCandidates(images));
  },
  network: async (client, signal) => {
    const { networks } = await client.call('query-networks', { limit: MAX_NAMES }, { signal });
    return networks.map((network) => ({ text: network.name, description: network.kind }));
  },
  operation: async (client, signal) => {
    const { operations } = await client.call('query-operations', { limit: 50 }, { signal });
    return operations.map(({ id, kind, subject, state }) => ({
      text: id,
      description: `${kind} ${subject.name}, ${state}`,
    }));
  },
  token: async (client, signal) => {
    const { tokens } = await client.call('query-tokens', {}, { signal });
    return tokens.map((token) => ({ text: token.name, description: token.role }));
  },
};

/** Asks the daemon; without an answer in time there are no candidates. */
const fromDaemon = async (
  kind: Exclude<Completion, 'command' | 'file'>,
  socketPath: string,
  parent: AbortSignal,
): Promise<Candidate[]> => {
  using limit = deadline(ANSWER_TIMEOUT_MS, parent);
  let client: Client | undefined;
  try {
    client = await connect({ socketPath, signal: limit.signal });
    return await listOf[kind](client, limit.signal);
  } catch {
    return [];
  } finally {
    client?.close();
  }
};

const firstWords = (): Candidate[] => {
  const seen = new Map<string, string>();
  for (const verb of verbs) {
    const [first = '', second] = verb.words.split(' ');
    seen.set(first, second === undefined ? verbSummary(verb) : (groupSummaries[first] ?? ''));
  }
  return [...seen].map(([text, description]) => ({ text, description }));
};

const secondWords = (group: string): Candidate[] =>
  verbs
    .filter((verb) => verb.words.startsWith(`${group} `))
    .map((verb) => ({ text: verb.words.slice(group.length + 1), description: verbSummary(verb) }));

const globalCandidates: readonly Candidate[] = [
  { text: '--json', description: 'Print replies and errors as JSON' },
  { text: '--socket', description: 'Socket of the daemon' },
  { text: '--help', description: 'Show help' },
];

const flagCandidates = (forms: readonly FlagForm[], given: readonly string[]): Candidate[] => [
  ...forms
    .filter(({ flag, repeatable }) => repeatable || !given.includes(flag.name))
    .map(({ flag, description }) => ({ text: `--${flag.name}`, description })),
  ...globalCandidates,
];

/** What the words of a verb that stand already mean. */
interface Given {
  readonly flags: readonly string[];
  readonly positionals: readonly string[];
  /** The flag whose value the cursor is at. */
  readonly open: FlagForm | undefined;
}

const readGiven = (words: readonly string[], forms: readonly FlagForm[]): Given => {
  const flags: string[] = [];
  const positionals: string[] = [];
  let open: FlagForm | undefined;
  for (const word of words) {
    if (open) open = undefined;
    else if (word.startsWith('-') && word !== '-') {
      const form = forms.find(({ flag }) => word === `--${flag.name}` || word === `-${flag.short}`);
      if (form) flags.push(form.flag.name);
      open = form?.value === undefined ? undefined : form;
    } else positionals.push(word);
  }
  return { flags, positionals, open };
};

type Ask = (kind: Completion) => Promise<Candidates>;

const positionalCandidates = async (verb: Verb, given: Given, ask: Ask): Promise<Candidates> => {
  const { positionals } = verb;
  const positional = positionals[given.positionals.length] ?? positionals.find(({ variadic }) => variadic);
  if (positional?.choices) return positional.choices.map((text) => ({ text }));
  if (positional?.complete === undefined) return [];
  const all = await ask(positional.complete);
  return all === FILES ? all : all.filter(({ text }) => !given.positionals.includes(text));
};

const verbCandidates = async (
  verb: Verb,
  words: readonly string[],
  partial: string,
  ask: Ask,
): Promise<Candidates> => {
  const forms = flagForms(verb);
  const given = readGiven(words, forms);
  if (given.open) {
    const { flag, choices } = given.open;
    if (choices) return choices.map((text) => ({ text }));
    // Behind a colon it is a path in the guest.
    if (flag.complete === undefined || (flag.complete === 'file' && partial.includes(':'))) return [];
    return ask(flag.complete);
  }
  if (partial.startsWith('-')) return flagCandidates(forms, given.flags);
  return positionalCandidates(verb, given, ask);
};

const candidatesFor = async (line: Line, io: Io): Promise<Candidates> => {
  const words: string[] = [];
  let socketPath = defaultSocketPath(io);
  for (let index = 0; index < line.before.length; index += 1) {
    const word = line.before[index] ?? '';
    if (word === '--socket') {
      const path = line.before[(index += 1)];
      if (path === undefined) return FILES;
      socketPath = path;
    } else if (word !== '--json') words.push(word);
  }
  const ask: Ask = async (kind) => {
    if (kind === 'file') return FILES;
    if (kind === 'command') return commandNames.map((text) => ({ text, description: summaryOf(text) }));
    return fromDaemon(kind, socketPath, io.signal);
  };
  const verb = findVerb(words);
  if (verb) return verbCandidates(verb, words.slice(verb.words.split(' ').length), line.partial, ask);
  const [first] = words;
  if (first === undefined) return line.partial.startsWith('-') ? globalCandidates : firstWords();
  return words.length === 1 && first in groupSummaries ? secondWords(first) : [];
};

/** Prints the candidates for the last of the words. Always 0. */
export const complete = async (words: readonly string[], io: Io): Promise<number> => {
  const line = lineOf(words);
  const candidates = await candidatesFor(line, io);
  if (candidates === FILES) {
    io.stdout.write(`${FILES}\n`);
    return 0;
  }
  const lines = candidates
    .filter(({ text }) => text.startsWith(line.partial))
    .map(({ text, description = '' }) => `${line.prefix}${text}\t${safe(description)}\n`);
  io.stdout.write(lines.join(''));
  return 0;
};
