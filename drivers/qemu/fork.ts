/**
 * Forks: a guest's memory and devices kept as they are, and others begun from there. Memory that is to be forked is a
 * memfd that QEMU maps shared; a fork maps the same memory privately, so that it costs what it changes. The process of
 * the frozen guest holds the memory: it lives as long as there is anything to fork, over every restart of the daemon,
 * and never runs again, because its forks read what it would write.
 *
 * What devices are goes into a file, QEMU's migration stream without the memory (capability x-ignore-shared). Their
 * places on the buses are the same in each fork; what is behind them (files, taps, sockets) is each one's own.
 */
import { close } from 'node:fs';
import { type FileHandle, open, readdir, readlink, rename, rm } from 'node:fs/promises';
import { promisify } from 'node:util';
import { createMemory, sealMemory } from '../../native/index.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { GuestPlace, Launch } from '../driver.ts';
import { forkStatePath, lockPath } from '../processes/guest-files.ts';
import { lockHolder } from '../processes/process-lock.ts';
import { memoryDescriptors } from './launch-args.ts';
import { type MigrationLine, migration, setCapabilities } from './migration.ts';

const closeDescriptor = promisify(close);

const MEMORY_NAME = 'roost-guest-memory';
const STATE_NAME = 'fork-state';

/** Descriptors that a process inherits for its memory, in the order of the command line. */
export interface MemoryDescriptors extends AsyncDisposable {
  readonly descriptors: readonly number[];
}

const none: MemoryDescriptors = { descriptors: [], [Symbol.asyncDispose]: async () => undefined };

/** Errors: FailedPrecondition when the guest to fork is not there any more. */
export const openMemory = async ({ forkable, forkOf, place }: Launch): Promise<MemoryDescriptors> => {
  if (forkOf) return await openFrozen(forkOf);
  if (!forkable) return none;
  // That of an earlier run says nothing of this memory.
  await rm(forkStatePath(place), { force: true });
  const memory = createMemory(MEMORY_NAME);
  return { descriptors: [memory], [Symbol.asyncDispose]: () => closeDescriptor(memory) };
};

const openFrozen = async (place: GuestPlace): Promise<MemoryDescriptors> => {
  const opened: FileHandle[] = [];
  const closeAll = async (): Promise<void> => {
    for (const file of opened.splice(0)) await file.close();
  };
  try {
    const holder = await lockHolder(lockPath(place));
    if (!holder) throw notFrozen(place);
    opened.push(await openMemoryOf(holder.pid, place));
    opened.push(await open(forkStatePath(place), 'r'));
    return { descriptors: opened.map(({ fd }) => fd), [Symbol.asyncDispose]: closeAll };
  } catch (error) {
    await closeAll();
    throw error instanceof RoostError ? error : notFrozen(place, error);
  }
};

/** For writing, because QEMU opens it so, too; it is sealed. */
const openMemoryOf = async (pid: number, place: GuestPlace): Promise<FileHandle> => {
  const paths = (await readdir(`/proc/${pid}/fd`)).map((number) => `/proc/${pid}/fd/${number}`);
  const targets = await Promise.all(paths.map((path) => readlink(path).catch(() => '')));
  const path = paths[targets.findIndex((target) => target.startsWith(`/memfd:${MEMORY_NAME}`))];
  if (path === undefined) throw notFrozen(place);
  return await open(path, 'r+');
};

/** Whether a frozen guest is there to be forked. */
export const isFrozen = async (place: GuestPlace): Promise<boolean> => {
  try {
    await using _memory = await openFrozen(place);
    return true;
  } catch {
    return false;
  }
};

/** Stops the guest for good and keeps it. Done again after it was given up, it goes on; done already, it does nothing. */
export const freeze = async (line: MigrationLine, pid: number, signal: AbortSignal): Promise<void> => {
  const { place, monitor } = line;
  const memory = await openMemoryOf(pid, place).catch(() => {
    throw notForkable(place);
  });
  try {
    const { status } = await monitor.execute('query-status', {}, signal);
    if (status !== 'postmigrate') {
      await monitor.execute('stop', {}, signal);
      await save(line, signal);
    }
    sealMemory(memory.fd);
  } finally {
    await memory.close();
  }
};

const save = async (line: MigrationLine, signal: AbortSignal): Promise<void> => {
  const { place, monitor } = line;
  const path = forkStatePath(place);
  const partial = `${path}.partial`;
  const state = await open(partial, 'w', 0o600);
  try {
    await setCapabilities(monitor, { withMemory: false }, signal);
    await monitor.sendDescriptor(STATE_NAME, state.fd, signal);
    await migration(line, signal, () =>
      monitor.execute('migrate', { uri: `fd:${STATE_NAME}` }, signal).then(() => undefined),
    );
    await rename(partial, path);
  } finally {
    await state.close();
  }
};

/** Gives a process that waits for it the state of the frozen guest's devices. */
export const loadFork = async (line: MigrationLine, launch: Launch, signal: AbortSignal): Promise<void> => {
  const { monitor } = line;
  const { state } = memoryDescriptors(launch);
  await setCapabilities(monitor, { withMemory: false }, signal);
  await migration(line, signal, () =>
    monitor.execute('migrate-incoming', { uri: `fd:${state}` }, signal).then(() => undefined),
  );
};

const notFrozen = (place: GuestPlace, cause?: unknown): RoostError =>
  new RoostError('FailedPrecondition', `The memory of guest ${place.id} is not there to be forked`, {
    cause,
    data: { guest: place.id },
    hint: 'It is gone with its process. Guests that lie on its disks start by booting.',
  });

const notForkable = (place: GuestPlace): RoostError =>
  new RoostError('FailedPrecondition', `Guest ${place.id} was not started to be forked`, {
    data: { guest: place.id },
    hint: 'Its memory is its own. Make a template of it while it is stopped.',
  });
