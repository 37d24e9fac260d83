/**
 * One run of `roost`: finds the verb, parses, calls it, and turns whatever happens into lines and an exit code. What the
 * contract says is loaded only if the command line has flags or asks for help.
 */
import { join } from 'node:path';
import { CommanderError } from 'commander';
import { defaultDirectories, SOCKET_FILE } from '../lib/default-directories.ts';
import { setCommandApart } from './command-apart.ts';
import { Connection } from './connection.ts';
import { type CliFailure, failureLines, Interrupted, toFailure, usageFailure } from './failure.ts';
import { createContext, type Io } from './io.ts';
import { buildProgram } from './program.ts';
import type { Invocation, Verb } from './verb.ts';
import { findVerb, verbs } from './verbs.ts';

interface Scanned {
  /** Everything that is no global flag. */
  readonly rest: readonly string[];
  readonly socket: string | undefined;
  readonly json: boolean;
}

/** Global flags, wherever they stand, found before anything is parsed. */
const scan = (argv: readonly string[]): Scanned => {
  const rest: string[] = [];
  let socket: string | undefined;
  let json = false;
  for (let index = 0; index < argv.length; index += 1) {
    const word = argv[index] ?? '';
    if (word === '--') {
      rest.push(...argv.slice(index));
      break;
    }
    if (word === '--json') json = true;
    else if (word === '--socket') socket = argv[(index += 1)];
    else if (word.startsWith('--socket=')) socket = word.slice('--socket='.length);
    else rest.push(word);
  }
  return { rest: helpWanted(rest), socket, json };
};

/** `help image import` as `image import --help`: the parser's own help knows first words only. */
const helpWanted = (words: readonly string[]): readonly string[] => {
  const [first, ...named] = words;
  return first === 'help' && findVerb(named) ? [...named, '--help'] : words;
};

export const defaultSocketPath = (io: Pick<Io, 'env' | 'uid'>): string => {
  const named = io.env['ROOST_SOCKET'];
  return named === undefined || named === '' ? join(defaultDirectories(io).runDirectory, SOCKET_FILE) : named;
};

/** What commander says, in our form. */
const fromCommander = (error: CommanderError, verb: Verb | undefined): CliFailure => {
  const [first = '', ...more] = error.message.replace(/^error: (command-argument value )?/, '').split('\n');
  const suggestion = more.join(' ').replace(/^\(|\)$/g, '');
  const help = `See 'roost ${verb === undefined ? '' : `${verb.words} `}--help'.`;
  return usageFailure(first, suggestion === '' ? help : `${suggestion} ${help}`);
};

const reportFailure = (error: unknown, io: Io, { json, rest }: Scanned): number => {
  if (error instanceof Interrupted) return error.exitCode;
  const failure = toFailure(error);
  const plain = rest[0] === 'api';
  const lines = json ? [JSON.stringify({ error: failure.wire })] : failureLines(failure, { plain });
  io.stderr.write(`${lines.join('\n')}\n`);
  return failure.exitCode;
};

/** As little as the command line needs. */
const whatToBuild = (
  verb: Verb | undefined,
  words: readonly string[],
): { readonly offered: readonly Verb[]; readonly needsContract: boolean } => {
  // Whatever follows, only the version is printed.
  if (words[0] === '--version' || words[0] === '-V') return { offered: [], needsContract: false };
  if (verb === undefined) return { offered: verbs, needsContract: true };
  return { offered: [verb], needsContract: words.some((word) => word.startsWith('-') && word !== '-') };
};

const parseAndRun = async (io: Io, scanned: Scanned): Promise<number> => {
  const verb = findVerb(scanned.rest);
  const { needsContract, offered } = whatToBuild(verb, scanned.rest);
  const contract = needsContract ? (await import('./contract-texts.ts')).contractTexts : undefined;
  let code = 0;
  const onVerb = async (chosen: Verb, invocation: Invocation, wait: boolean): Promise<void> => {
    const socketPath = scanned.socket ?? defaultSocketPath(io);
    const connection = new Connection(io, socketPath);
    try {
      const { json } = scanned;
      code = await chosen.run(
        invocation,
        createContext({
          io,
          json,
          wait,
          socketPath,
          client: connection.get,
          anotherClient: connection.another,
          again: connection.again,
        }),
      );
    } finally {
      await connection.close();
    }
  };
  const program = buildProgram({
    verbs: offered,
    contract,
    out: (text) => void io.stdout.write(text),
    error: (text) => void io.stderr.write(text),
    onVerb,
  });
  try {
    await program.parseAsync([...scanned.rest], { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.code === 'commander.help') return usageFailure('').exitCode;
    if (error.exitCode !== 0) throw fromCommander(error, verb);
  }
  return code;
};

/** Runs `roost` with its arguments; resolves with the exit code and never rejects. */
export const run = async (argv: readonly string[], io: Io): Promise<number> => {
  if (argv[0] === '__complete') {
    const { complete } = await import('./completion.ts');
    return complete(argv.slice(argv[1] === '--' ? 2 : 1), io);
  }
  const scanned = scan(setCommandApart(argv, findVerb(argv.filter((word) => !word.startsWith('-')))));
  try {
    if (scanned.socket === '') throw usageFailure('--socket needs a path');
    return await parseAndRun(io, scanned);
  } catch (error) {
    return reportFailure(error, io, scanned);
  }
};
