/** What a build of a Debian image is made of. Pure. */

/** What a build does, in this order. Paths are relative to its directory. */
export type Action =
  /** Runs a tool, confined; `input` is its standard input. */
  | {
      readonly kind: 'run';
      readonly stage: Stage;
      readonly argv: readonly [string, ...string[]];
      readonly input?: string;
    }
  | { readonly kind: 'directory'; readonly path: string }
  | { readonly kind: 'file'; readonly path: string; readonly text: string }
  | { readonly kind: 'link'; readonly path: string; readonly target: string }
  /** Writes a number of 64 bits, little-endian, into a file that is there. */
  | { readonly kind: 'poke'; readonly path: string; readonly offset: number; readonly value: number };

export const stages = {
  packages: 'Fetching and installing packages',
  files: 'Setting up the system',
  boot: 'Making the boot loader',
  disk: 'Writing the disk',
  pack: 'Packing the files',
} as const;
export type Stage = keyof typeof stages;

/** The tree that is built. */
export const ROOT = 'root';

export const run = (stage: Stage, ...argv: readonly [string, ...string[]]): Action => ({
  kind: 'run',
  stage,
  argv,
});
export const inRoot = (stage: Stage, ...argv: readonly string[]): Action =>
  run(stage, 'chroot', ROOT, ...argv);
