/** A lock between processes by flock(1), which the kernel drops whatever way its holder ends. */
import { once } from 'node:events';
import { execa } from 'execa';

export interface FileLockOptions {
  /** Made if missing; its directory must be there. */
  readonly path: string;
  readonly signal: AbortSignal;
}

/**
 * Runs `work` while an flock(1) child holds the lock. cat answers only once flock has let it start; it ends, and the
 * lock with it, when its input closes: by us, or by the kernel if we die.
 */
export async function withFileLock<T>({ path, signal }: FileLockOptions, work: () => Promise<T>): Promise<T> {
  const holder = execa('flock', [path, 'cat'], { buffer: false, reject: false, cancelSignal: signal });
  try {
    holder.stdin.write('?');
    await Promise.race([
      once(holder.stdout, 'data'),
      holder.then((result) => {
        signal.throwIfAborted();
        throw new Error(`flock ended before it had the lock ${path}`, { cause: result });
      }),
    ]);
    return await work();
  } finally {
    holder.stdin.end();
    await holder;
  }
}
