/** A program in a microVM as the contract wants it: with its streams, until both it and they have ended. */
import type { Readable } from 'node:stream';
import { finished } from 'node:stream/promises';
import type { ProgramRequest } from '../../protocol/agent.ts';
import type { ProgramEnd, ProgramLine } from '../driver.ts';
import type { AgentProcess, ProcessEnd } from './agent-process.ts';
import type { MicrovmAgent } from './microvm-agent.ts';

export const programEnd = ({ exitCode, signal }: ProcessEnd): ProgramEnd => ({
  ...(exitCode === undefined ? {} : { exitCode }),
  ...(signal === undefined ? {} : { signal }),
});

/** Resolves when no more comes from it, whatever the reason. */
const over = async (stream: Readable | undefined): Promise<void> => {
  if (stream) await finished(stream, { writable: false }).catch(() => undefined);
};

/**
 * Starts a program by a number that is nobody's. `environment`: where the request names none. Errors: those of
 * `MicrovmAgent.exec`.
 */
export const openProgramLine = async (
  agent: MicrovmAgent,
  number: number,
  request: ProgramRequest & { readonly environment: readonly string[] },
  signal: AbortSignal,
): Promise<ProgramLine> => {
  const { terminal, workingDirectory, user } = request;
  const program = await agent.exec(
    {
      process: number,
      argv: [request.path, ...request.arg],
      environment: request.env ?? request.environment,
      ...(workingDirectory === undefined ? {} : { directory: workingDirectory }),
      ...(user === undefined ? {} : { user }),
      ...(terminal === undefined ? {} : { terminal }),
      stdin: request.interactive,
      stdout: true,
      stderr: terminal === undefined,
    },
    signal,
  );
  const ended = program.wait(agent.broken).then(programEnd);
  void forgetAtEnd(agent, program, ended);
  return lineOf(program, ended, terminal !== undefined);
};

const lineOf = (program: AgentProcess, ended: Promise<ProgramEnd>, hasTerminal: boolean): ProgramLine => {
  const { stdin, stdout, stderr } = program;
  return {
    stdin,
    stdout,
    stderr,
    ended,
    kill: (number, signal) => program.kill(number, signal, { all: hasTerminal }),
    resize: (size, signal) => program.resize(size, signal),
    release: () => {
      stdin?.end();
      // Read all the same: a program whose output is closed would die of its next word.
      for (const stream of [stdout, stderr]) stream?.removeAllListeners('data').resume();
    },
  };
};

/** The agent keeps a program that has ended until it is told that nobody wants what is left in its pipes. */
const forgetAtEnd = async (
  agent: MicrovmAgent,
  program: AgentProcess,
  ended: Promise<ProgramEnd>,
): Promise<void> => {
  try {
    await ended;
    await Promise.all([over(program.stdout), over(program.stderr)]);
    await program.release(agent.broken);
  } catch {
    // The session broke: the next one knows nothing of this program.
  }
};
