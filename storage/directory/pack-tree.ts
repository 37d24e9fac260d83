/**
 * mksquashfs, as it packs a tree into one squashfs: options, progress, the room that it may take, and what it says it left
 * out. Who it runs as, and what it is shown, is each caller's own.
 */
import { constants } from 'node:fs';
import { access, statfs } from 'node:fs/promises';
import { runTool } from '../../lib/run-tool.ts';
import type { Work } from '../../lib/work.ts';
import { RoostError } from '../../protocol/errors.ts';

const MKSQUASHFS = '/usr/bin/mksquashfs';
const MAX_PART_OF_FREE_SPACE = 0.9;
/** It says a line for each attribute that it leaves out, and a tree may have very many. */
const MAX_OUTPUT_BYTES = 64 * 1024 * 1024;

/** As roots are packed, see storage/oci/tree/merge.ts; what cannot be read ends it: a tree that lacks a file would be told of nowhere. */
const packOptions = ['-comp', 'lz4', '-noappend', '-no-recovery', '-mem', '256M', '-exit-on-error'] as const;

/** Further options of roots: their inodes are read often. */
export const uncompressedInodes = ['-noI', '-noId'] as const;

/** The command line that packs the tree to the file `tree` in its working directory. Pure. */
export const mksquashfs = (from: string, further: readonly string[] = []): [string, ...string[]] => [
  MKSQUASHFS,
  from,
  'tree',
  ...packOptions,
  ...further,
  '-quiet',
  '-progress',
];

/** Errors: Unsupported with what is missing; `what` cannot be done then. */
export const requireMksquashfs = async (what: string): Promise<void> => {
  try {
    await access(MKSQUASHFS, constants.X_OK);
  } catch (cause) {
    throw new RoostError('Unsupported', `${what}: mksquashfs is missing`, {
      data: { packages: ['squashfs-tools'] },
      hint: 'On Debian: apt-get install squashfs-tools',
      cause,
    });
  }
};

/** Bytes that a file may have there, at most `sizeBytes`. */
export const roomIn = async (directory: string, sizeBytes = Infinity): Promise<number> => {
  const { bavail, bsize } = await statfs(directory);
  return Math.max(Math.min(sizeBytes, Math.floor(bavail * bsize * MAX_PART_OF_FREE_SPACE)), 1);
};

const percentages = /(\d{1,3})%/g;

/** The last percentage of the bar, `[=====  ] 120/240  50%`. */
const lastPercentage = (text: string): number | undefined => {
  const last = [...text.matchAll(percentages)].at(-1)?.[1];
  return last === undefined ? undefined : Math.min(Number(last), 100);
};

const leftOut = /^Unrecognised xattr prefix (\S+)$/gm;

/** What mksquashfs has said that it left out, in words. Pure. */
export const lossesIn = (stderr: string): string | undefined => {
  const names = [...stderr.matchAll(leftOut)].map(([, name]) => String(name));
  if (names.length === 0) return undefined;
  const kinds = [...new Set(names)].join(', ');
  return `Left out: ${names.length} attributes of files that no squashfs can hold (${kinds}). Access control lists are such; owners, modes and capabilities of files are kept`;
};

/** Runs it; `message` says what is done. Warns of what is left out. Errors: those of the tool. */
export const packTree = async (
  argv: readonly [string, ...string[]],
  { message, cwd, work }: { readonly message: string; readonly cwd?: string; readonly work: Work },
): Promise<void> => {
  let heard = '';
  const tell = (done = 0): void => work.progress({ done, total: 100, unit: 'percent', message });
  tell();
  const { stderr } = await runTool(argv, {
    signal: work.signal,
    ...(cwd === undefined ? {} : { cwd }),
    env: { LC_ALL: 'C', PATH: '/usr/bin:/bin' },
    timeoutMs: 0,
    maxOutputBytes: MAX_OUTPUT_BYTES,
    onStdout: (text) => {
      heard = (heard + text).slice(-64);
      tell(lastPercentage(heard));
    },
  });
  const losses = lossesIn(stderr);
  if (losses !== undefined) work.warn?.(losses);
};
