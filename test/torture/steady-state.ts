/** What a process keeps: its heap after everything that can be collected was collected, and its open descriptors. */
import { readdirSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

export interface Keeping {
  readonly heapBytes: number;
  readonly descriptors: number;
}

/** Of this process, now. */
export const keepingNow = async (): Promise<Keeping> => {
  // What a first collection finds finalizers for, a second one takes.
  for (let round = 0; round < 3; round += 1) {
    collect();
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
  return { heapBytes: process.memoryUsage().heapUsed, descriptors: readdirSync('/proc/self/fd').length };
};
