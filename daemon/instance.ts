/** One daemon with its state directory: the lock that keeps it alone, its short id, the boot of the host it runs in. */
import { createHash } from 'node:crypto';
import { chmodSync, ftruncateSync, mkdirSync, readFileSync, realpathSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { lockFile } from '../native/index.ts';
import { RoostError } from '../protocol/errors.ts';
import type { InstanceId } from '../protocol/types.ts';
import type { MetaTable } from './inventory/meta-table.ts';

const ID_LENGTH = 5;

/** Makes the directories. Guests of other uids pass through them; they can read nothing there. Errors: HostError. */
export const prepareDirectories = (stateDirectory: string, runDirectory: string): void => {
  for (const directory of [
    stateDirectory,
    runDirectory,
    join(stateDirectory, 'guests'),
    join(runDirectory, 'guests'),
  ]) {
    prepareDirectory(directory, 0o711);
  }
  prepareDirectory(runDirectory, 0o755);
};

const prepareDirectory = (directory: string, mode: number): void => {
  try {
    mkdirSync(directory, { recursive: true });
    chmodSync(directory, mode);
  } catch (error) {
    const said = error instanceof Error ? error.message : String(error);
    throw new RoostError('HostError', `The directory ${directory} cannot be used: ${said}`, {
      cause: error,
      data: { directory },
      hint: 'See that the daemon may make it and write there, or name others with --state-dir and --run-dir.',
    });
  }
};

const holderOf = (path: string): string => {
  try {
    const pid = readFileSync(path, 'utf8').trim();
    return pid === '' ? 'another roostd' : `roostd with pid ${pid}`;
  } catch {
    return 'another roostd';
  }
};

const lockedDirectories = {
  state: { words: 'state directory', option: '--state-dir' },
  run: { words: 'run directory', option: '--run-dir' },
} as const;

/**
 * Takes a directory for this process alone: the state, and the place of its socket, which another daemon would take
 * from it without a word. Errors: FailedPrecondition saying who holds it.
 */
export const takeLock = (directory: string, use: keyof typeof lockedDirectories): number => {
  const path = join(directory, 'lock');
  const lock = lockFile(path, { mode: 0o600 });
  if (lock === 'held') {
    const holder = holderOf(path);
    const { words, option } = lockedDirectories[use];
    throw new RoostError('FailedPrecondition', `The ${words} ${directory} is held by ${holder}`, {
      data: { directory, holder },
      hint: `Stop that daemon, or give this one another ${option}.`,
    });
  }
  ftruncateSync(lock, 0);
  writeSync(lock, `${process.pid}\n`, 0);
  return lock;
};

/** The id as recorded, or made once from where the state lies: the same place gives the same names, also after a loss. */
export const instanceIdOf = (meta: MetaTable, stateDirectory: string): InstanceId => {
  const recorded = meta.get('instance');
  if (recorded !== undefined) return recorded as InstanceId;
  const digest = createHash('sha256').update(realpathSync(stateDirectory)).digest();
  const id = BigInt(`0x${digest.subarray(0, 8).toString('hex')}`)
    .toString(36)
    .slice(-ID_LENGTH)
    .padStart(ID_LENGTH, '0');
  meta.set('instance', id);
  return id as InstanceId;
};

export const readBootId = (): string => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();

/** Uids that one instance uses; two instances on one host take different slices of the range. */
const UIDS_PER_INSTANCE = 65_536;
const SLICES = 4_096;

export const guestUidBase = (firstUid: number, instance: InstanceId): number =>
  firstUid + (Number.parseInt(instance, 36) % SLICES) * UIDS_PER_INSTANCE;

/** Group that may read images, unless the host has one called roost-images. */
export const imagesGidOf = (base: number): number => base;

/** Uid and gid that read strangers' images; no guest has them, and they may read nothing of ours. */
export const importerUidOf = (base: number): number => base + UIDS_PER_INSTANCE - 1;

/** Guest numbers are never used again, so a uid comes round only after 65,534 guests. */
export const guestUid = (base: number, guestNumber: number): number =>
  base + 1 + ((guestNumber - 1) % (UIDS_PER_INSTANCE - 2));
