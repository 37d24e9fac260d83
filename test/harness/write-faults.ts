/** Writes of a daemon to its database that fail on purpose: what preloads the daemon, and what tells it which ones. */
import { execFile } from 'node:child_process';
import { open } from 'node:fs/promises';
import { constants } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { onTestFinished } from 'vitest';
import { testDirectory } from './test-directory.ts';

const run = promisify(execFile);
const source = join(import.meta.dirname, '../fault/write-faults.c');

export interface WriteFault {
  readonly errno: 'ENOSPC' | 'EIO' | 'EROFS';
  /** The first write that fails, counted from now on; 1 is the next. */
  readonly from: number;
  /** Whether all that come after it fail as well, until `disarm`. */
  readonly lasting: boolean;
}

export interface WriteFaults {
  /** For `StartOptions.within`. */
  readonly within: readonly string[];
  arm(fault: WriteFault): Promise<void>;
  /** From now on nothing fails. Gives how many writes there were since the last `arm`. */
  disarm(): Promise<number>;
}

/** Form of `struct control` in write-faults.c. */
const FIELDS = 4;
const controlOf = (...[from = 0, count = 0, error = 0]: readonly number[]): Buffer => {
  const bytes = Buffer.alloc(FIELDS * 8);
  for (const [index, value] of [0, from, count, error].entries())
    bytes.writeBigUInt64LE(BigInt(value), index * 8);
  return bytes;
};

/** For the running test. `word` is in the path of the files that are concerned. */
export const writeFaults = async (word: string): Promise<WriteFaults> => {
  const directory = await testDirectory('faults');
  const [library, controlPath] = [join(directory, 'write-faults.so'), join(directory, 'control')];
  await run('gcc', ['-shared', '-fPIC', '-O2', '-Wall', '-Werror', '-o', library, source]);
  const control = await open(controlPath, 'w+');
  onTestFinished(() => control.close());
  await control.write(controlOf(), 0, FIELDS * 8, 0);
  return {
    within: [
      'env',
      `LD_PRELOAD=${library}`,
      `ROOST_FAULT_CONTROL=${controlPath}`,
      `ROOST_FAULT_FILE=${word}`,
    ],
    arm: async ({ errno, from, lasting }) => {
      const count = lasting ? Number.MAX_SAFE_INTEGER : 1;
      await control.write(controlOf(from, count, constants.errno[errno]), 0, FIELDS * 8, 0);
    },
    disarm: async () => {
      const { buffer } = await control.read(Buffer.alloc(8), 0, 8, 0);
      await control.write(controlOf(), 0, FIELDS * 8, 0);
      return Number(buffer.readBigUInt64LE());
    },
  };
};
