/**
 * The seed of a guest as a file beside its volumes: an ISO 9660 file system with Joliet and Rock Ridge names, which is
 * what cloud-init's NoCloud reads (docs.cloud-init.io, "NoCloud"). It is named for its content, so that the right one is
 * known without being read, and never changed in place: a running guest keeps the one it was started with.
 *
 * With privileges it belongs to the daemon and is only readable for the guest's group.
 */
import { createHash } from 'node:crypto';
import { mkdir, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { runTool } from '../../lib/run-tool.ts';
import { UndoStack } from '../../lib/undo-stack.ts';
import { namesIn, orIfMissing, removeFiles, renameDurably, settleFile } from '../files/durable-files.ts';
import type { SeedSpec } from '../pool.ts';

/** What is half made is called so; whoever does it again removes it. */
export const PARTIAL = '.partial-';
const SEED = /^seed-[0-9a-f]{32}\.iso$/;
const PARTIAL_SEED = `${PARTIAL}seed.iso`;
const PARTIAL_FILES = `${PARTIAL}seed.d`;
const SECTOR = 2048;
const MEBIBYTE = 1024 ** 2;
/** Descriptors, path tables and directories of both name spaces, with room to spare. */
const METADATA_BYTES = MEBIBYTE / 2;

export const seedName = ({ label, files }: Pick<SeedSpec, 'label' | 'files'>): string => {
  const sorted = Object.entries(files).toSorted(([a], [b]) => (a < b ? -1 : 1));
  const digest = createHash('sha256')
    .update(JSON.stringify([label, sorted]))
    .digest('hex');
  return `seed-${digest.slice(0, 32)}.iso`;
};

/** Whole mebibytes, known before the file is there. */
export const seedSizeBytes = ({ files }: Pick<SeedSpec, 'files'>): number => {
  const content = Object.values(files).reduce(
    (sum, text) => sum + Math.ceil(Buffer.byteLength(text) / SECTOR) * SECTOR,
    METADATA_BYTES,
  );
  return Math.ceil(content / MEBIBYTE) * MEBIBYTE;
};

const clearPartial = async (directory: string): Promise<void> => {
  await rm(join(directory, PARTIAL_FILES), { recursive: true, force: true });
  await rm(join(directory, PARTIAL_SEED), { force: true });
};

const makeIso = async (directory: string, seed: SeedSpec, signal: AbortSignal): Promise<void> => {
  const files = join(directory, PARTIAL_FILES);
  const iso = join(directory, PARTIAL_SEED);
  // What is told to a guest is nobody else's: passwords lie in it.
  await mkdir(files, { mode: 0o700 });
  for (const [name, text] of Object.entries(seed.files))
    await writeFile(join(files, name), text, { mode: 0o600 });
  await runTool(
    [
      'xorriso',
      ['-as', 'mkisofs', '-quiet', '-output', iso, '-volid', seed.label],
      ['-joliet', '-rational-rock', '-no-pad', files],
    ].flat() as [string, ...string[]],
    { signal, cwd: '/', env: { LC_ALL: 'C' } },
  );
  await truncate(iso, seedSizeBytes(seed));
};

/** Makes the seed in a guest's directory unless it is there, then takes the older ones away. */
export const writeSeed = async (directory: string, seed: SeedSpec, signal: AbortSignal): Promise<void> => {
  const name = seedName(seed);
  const path = join(directory, name);
  signal.throwIfAborted();
  await clearPartial(directory);
  if ((await orIfMissing(stat(path), undefined)) === undefined) {
    await using undo = new UndoStack();
    undo.add(() => clearPartial(directory));
    await makeIso(directory, seed, signal);
    const { owner } = seed;
    await settleFile(join(directory, PARTIAL_SEED), {
      mode: owner ? 0o440 : 0o400,
      owner: owner && { uid: process.geteuid?.() ?? 0, gid: owner.gid },
    });
    signal.throwIfAborted();
    await renameDurably(join(directory, PARTIAL_SEED), path);
    undo.succeed();
    await clearPartial(directory);
  }
  const older = (await namesIn(directory)).filter((other) => SEED.test(other) && other !== name);
  if (older.length > 0) await removeFiles(directory, older);
};

export const removeSeeds = async (directory: string): Promise<void> => {
  await clearPartial(directory);
  const names = (await namesIn(directory)).filter((name) => SEED.test(name));
  if (names.length > 0) await removeFiles(directory, names);
};
