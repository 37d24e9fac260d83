/**
 * The floor of a start: the same command line, spawned by a small Node program that does nothing else. That program runs
 * in a process of its own, bundled like roostd, because the time of a spawn grows with the memory of who spawns.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { build, stop } from 'esbuild';
import { addonPath } from '../native/index.ts';

/** Everything by name; the program makes what has to be there beforehand, outside of the time it takes. */
export interface StartByHand {
  readonly argv: readonly string[];
  readonly workingDirectory: string;
  /** An empty place for sockets, lock and logs; it is empty again afterwards. */
  readonly directory: string;
  readonly taps: readonly { readonly link: string; readonly bridge: string }[];
}

export type Request = { readonly kind: 'start'; readonly start: StartByHand } | { readonly kind: 'end' };

export type Answer = { readonly ms: number } | { readonly failure: string };

export interface ByHand {
  /** Milliseconds from the spawn until `cont` is answered. One at a time. */
  start(request: StartByHand): Promise<number>;
  /** Kills what was started; the process is gone when this resolves. */
  end(): Promise<void>;
  close(): Promise<void>;
}

export const openByHand = async (scratchDirectory: string): Promise<ByHand> => {
  const program = join(scratchDirectory, 'by-hand.mjs');
  await build({
    entryPoints: [join(import.meta.dirname, 'by-hand.entry.ts')],
    outfile: program,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20.19',
    logLevel: 'error',
  });
  // Its own process has nothing to do while others are timed.
  await stop();
  const child = fork(program, {
    execArgv: [],
    // As roostd: it has to take its guest away when the bench is interrupted.
    detached: true,
    env: { ...process.env, ROOST_NATIVE: addonPath() },
  });
  const exited = once(child, 'exit');
  return {
    start: (start) => ask(child, exited, { kind: 'start', start }),
    end: async () => void (await ask(child, exited, { kind: 'end' })),
    close: async () => {
      if (child.connected) child.disconnect();
      await exited;
    },
  };
};

const ask = async (child: ChildProcess, exited: Promise<unknown>, request: Request): Promise<number> => {
  const answered = once(child, 'message') as Promise<[Answer]>;
  child.send(request);
  const answer = await Promise.race([
    answered.then(([answer]) => answer),
    exited.then((): Answer => ({ failure: 'the program that starts by hand ended' })),
  ]);
  if ('failure' in answer) throw new Error(`Start by hand: ${answer.failure}`);
  return answer.ms;
};
