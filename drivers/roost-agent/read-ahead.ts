/** Files that a fork will want, brought into its template's memory. */
import { finished } from 'node:stream/promises';
import { isRoostError } from '../../protocol/errors.ts';
import type { GuestSetup } from '../driver.ts';
import type { MicrovmAgent } from './microvm-agent.ts';

/** Where a program is found by its name, and what most programs are linked with. */
export const likelyFiles = ({ argv: [name = ''], environment }: GuestSetup['program']): readonly string[] => {
  const path = environment.findLast((variable) => variable.startsWith('PATH='))?.slice('PATH='.length) ?? '';
  const programs = name.includes('/') ? [name] : path.split(':').map((directory) => `${directory}/${name}`);
  return [...programs, ...LIBRARIES, ...ACCOUNTS];
};

const LIBRARIES = [
  '/lib64/ld-linux-x86-64.so.2',
  '/lib/x86_64-linux-gnu/libc.so.6',
  '/lib/ld-musl-x86_64.so.1',
] as const;

const ACCOUNTS = ['/etc/passwd', '/etc/group'] as const;

/** Reads a file, so that the guest has it in memory; one that is not there is none the less. */
export const readAhead = async (agent: MicrovmAgent, path: string, signal: AbortSignal): Promise<void> => {
  try {
    const { content } = await agent.readFile(path, signal);
    await finished(content.resume(), { signal });
  } catch (error) {
    signal.throwIfAborted();
    if (!isRoostError(error)) throw error;
  }
};
