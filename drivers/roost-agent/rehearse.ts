/** A program's start and its end in a guest before it is kept: what both need is at hand when they are wanted. */
import { finished } from 'node:stream/promises';
import { isRoostError } from '../../protocol/errors.ts';
import type { GuestSetup } from '../driver.ts';
import type { MicrovmAgent } from './microvm-agent.ts';

/** The init's own program, which as any other than PID 1 says how it is used and ends. */
const HARMLESS = '/proc/1/exe';

/**
 * `number`: one that no program has; `like`: whose user and directory are looked up, where it is to be like another. A
 * guest that cannot do it is none the worse.
 */
export const rehearse = async (
  agent: MicrovmAgent,
  number: number,
  signal: AbortSignal,
  like: Pick<GuestSetup['program'], 'user' | 'workingDirectory'> = {},
): Promise<void> => {
  try {
    const program = await agent.exec(
      {
        process: number,
        argv: [HARMLESS],
        environment: [],
        ...(like.user === undefined ? {} : { user: like.user }),
        ...(like.workingDirectory === undefined ? {} : { directory: like.workingDirectory }),
        stdin: false,
        stdout: true,
        stderr: true,
      },
      signal,
    );
    const outputs = [program.stdout, program.stderr].flatMap((output) => output?.resume() ?? []);
    await Promise.all([
      program.wait(signal),
      ...outputs.map((output) => finished(output, { signal, writable: false })),
    ]);
    await program.release(signal);
  } catch (error) {
    signal.throwIfAborted();
    if (!isRoostError(error)) throw error;
  }
};
