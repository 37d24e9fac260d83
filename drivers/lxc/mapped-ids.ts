/**
 * Where the kernel gives a container's root its range of ids: a squashfs (since Linux 6.2), and file systems with directories, one
 * by one. It is found by trying, in a mount namespace of the warden's own that ends with it.
 */
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { ExecError } from '../../lib/exec-result.ts';
import { runTool } from '../../lib/run-tool.ts';

/** Absolute paths of directories, which may not be there yet. */
export interface RootPlaces {
  /** Where images are. */
  readonly images: string;
  /** Where it is that containers write. */
  readonly pool: string;
}

export interface MappedIds {
  readonly squashfs: boolean;
  readonly images: boolean;
  readonly pool: boolean;
  /** What the kernel said where it did not. */
  readonly words: readonly string[];
}

const PROBE_TIMEOUT_MS = 30_000;
const PREFIX = /^roost-warden: /;

/** What is there of a path. */
const existing = (path: string): string => (existsSync(path) ? path : existing(dirname(path)));

/** Nothing is mapped where nothing can be tried, as without privileges. */
export const tryMappedIds = async (
  wardenPath: string,
  places: RootPlaces,
  signal: AbortSignal,
): Promise<MappedIds> => {
  const images = existing(places.images);
  const pool = existing(places.pool);
  const argv = [wardenPath, '--probe', ...new Set([images, pool])] as const;
  const said = await runTool(argv, { signal, timeoutMs: PROBE_TIMEOUT_MS }).catch((error: unknown) => {
    if (error instanceof ExecError) return error;
    throw error;
  });
  const found = new Set(said.stdout.split('\n'));
  return {
    squashfs: found.has('squashfs'),
    images: found.has(images),
    pool: found.has(pool),
    // What holds for all of them is said of each.
    words: [...new Set(said.stderr.split('\n').filter(Boolean))].map((line) => line.replace(PREFIX, '')),
  };
};

/** What a container's root lies on: an image as it is, or its tree. */
export type Lower = 'image' | 'tree';

/** Undefined where neither does. Pure. */
export const chooseLower = ({ squashfs, images, pool }: MappedIds): Lower | undefined => {
  if (!pool) return undefined;
  if (squashfs) return 'image';
  return images ? 'tree' : undefined;
};

/** For people: why there is none. Pure. */
export const whyNoLower = ({ pool, words }: MappedIds, places: RootPlaces): string => {
  const what = pool
    ? `neither a squashfs nor the file system of ${places.images}, where images are,`
    : `the file system of ${places.pool}, where containers write,`;
  const verb = pool ? 'takes' : 'does not take';
  const said = words.length === 0 ? '' : `: ${words.join('; ')}`;
  return `${what} ${verb} a container's range of ids${said}`;
};
