/** A program's start and its end in a guest that is to wait: the code of both is at hand when it is wanted. */
import { finished } from 'node:stream/promises';
import { isRoostError } from '../../../protocol/errors.ts';
import type { MicrovmAgent } from './microvm-agent.ts';

/** The init's own program, which as any other than PID 1 says how it is used and ends. */
const HARMLESS = '/proc/1/exe';

/** `number`: one that no program has. A guest that cannot do it is none the worse. */
export const rehearse = async (agent: MicrovmAgent, number: number, signal: AbortSignal): Promise<void> => {
  try {
    const program = await agent.exec(
      { process: number, argv: [HARMLESS], environment: [], stdin: false, stdout: true, stderr: true },
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
