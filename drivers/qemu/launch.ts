/**
 * Makes a guest's process: lock, sockets and logs as descriptors, the launcher, QEMU with its CPUs standing still.
 * From the spawn on the process is nobody's child in any sense that matters: no signal of an operation reaches it, no
 * pipe ties it to the daemon. Until a launch has succeeded, whatever it made is taken away again when it fails.
 */
import { close } from 'node:fs';
import { mkdir, rm, rmdir } from 'node:fs/promises';
import { promisify } from 'node:util';
import { abortReason, deadline, waitOrAbort } from '../../lib/abort.ts';
import { enter } from '../../lib/account.ts';
import { type Child, type ExitStatus, spawnChild } from '../../lib/child.ts';
import { UndoStack } from '../../lib/undo-stack.ts';
import { listenUnix } from '../../native/index.ts';
import { isRoostError, RoostError } from '../../protocol/errors.ts';
import type { GuestPlace, Launch, LaunchContext } from '../driver.ts';
import { endDirectoryServers, takeDirectoriesLock } from './directory-servers.ts';
import {
  agentPath,
  askedPath,
  consolePath,
  lockPath,
  monitorPath,
  runFiles,
  streamsPath,
} from './guest-files.ts';
import { lastLine, lastLineOfOthers, lastWords, openRunLogs } from './guest-logs.ts';
import { GuestProcess } from './guest-process.ts';
import { agentChannels, tapLinks } from './launch-args.ts';
import { takeLock } from './process-lock.ts';

const closeDescriptor = promisify(close);

/** Nothing of the daemon's own environment is a guest's business. */
const environment = ['PATH=/usr/sbin:/usr/bin:/sbin:/bin', 'LC_ALL=C.UTF-8'] as const;

const BACKLOG = 4;
/** How long a process that has closed its monitor may take to end by itself. */
const END_TIMEOUT_MS = 5_000;

/** The guest's control group, around the life of its process. */
export interface LaunchGroup {
  readonly prepare: () => Promise<void>;
  /** Puts the process in, unless its command line does. */
  readonly join: (pid: number) => Promise<void>;
  /** Once the process is gone. */
  readonly remove: () => Promise<void>;
}

/** With the descriptors of memory that is shared, behind all others. */
export interface SpawnContext extends LaunchContext {
  readonly memory: readonly number[];
}

/** A process on its way to being a guest. */
export interface Launched {
  readonly process: GuestProcess;
  /** Aborts when the process ends. */
  readonly ended: AbortSignal;
}

/**
 * Spawns the process and hands it to `use`, which makes the handle; fails as `use` does, or with QEMU's own words
 * when the process ended meanwhile. After a failure nothing is left.
 */
export const launchProcess = async <T>(
  launch: Launch,
  argv: readonly string[],
  group: LaunchGroup,
  context: SpawnContext,
  use: (launched: Launched) => Promise<T>,
): Promise<T> => {
  const { runDirectory } = launch.place;
  context.signal.throwIfAborted();
  await mkdir(runDirectory, { recursive: true, mode: 0o700 });
  await using undo = new UndoStack();
  undo.add(group.remove);
  await group.prepare();
  const child = await spawnGuest(launch, argv, context, undo);
  const ended = new AbortController();
  const over = child.exit.then((status) => {
    ended.abort(new Error('the process ended'));
    return status;
  });
  undo.add(async () => {
    child.kill();
    await over;
  });

  enter({ kind: 'process', argv, pid: child.pid });
  const process = await GuestProcess.ofChild(child, runDirectory);
  if (!process) throw await failure(launch, argv, await over);
  undo.add(() => process.close());
  try {
    // Beside QEMU's own start, which takes longer; the guest's memory is touched only once it runs.
    await group.join(child.pid);
    const result = await use({ process, ended: ended.signal });
    undo.succeed();
    return result;
  } catch (error) {
    if (context.signal.aborted) throw abortReason(context.signal);
    // QEMU closes its monitor when it gives up, and says why; its end follows at once.
    const gaveUp = ended.signal.aborted || isRoostError(error, 'Unavailable');
    if (!gaveUp) throw error;
    using limit = deadline(END_TIMEOUT_MS);
    const status = await waitOrAbort(over, limit.signal).catch(() => undefined);
    throw status ? await failure(launch, argv, status) : error;
  }
};

const spawnGuest = async (
  launch: Launch,
  argv: readonly string[],
  context: SpawnContext,
  undo: UndoStack,
): Promise<Child> => {
  const { place } = launch;
  const { runDirectory } = place;
  const taps = tapDescriptors(launch, context);
  const lock = takeLock(lockPath(place));
  if (lock === 'held') throw aliveError(launch.name);
  undo.add(() => removeRunFiles(place));
  const ours = [lock];
  try {
    await rm(askedPath(runDirectory), { force: true });
    const monitor = listenUnix(monitorPath(runDirectory), { mode: 0o600, backlog: BACKLOG });
    ours.push(monitor);
    const console = listenUnix(consolePath(runDirectory), { mode: 0o600, backlog: BACKLOG });
    ours.push(console);
    const channels = [agentPath(runDirectory), streamsPath(runDirectory)].slice(0, agentChannels(launch));
    const agent: number[] = [];
    for (const path of channels) {
      const listening = listenUnix(path, { mode: 0o600, backlog: BACKLOG });
      agent.push(listening);
      ours.push(listening);
    }
    const directories = launch.filesystems?.length ? [await takeDirectoriesLock(place)] : [];
    ours.push(...directories);
    await using logs = await openRunLogs(place, `${launch.name} (${place.id})`);
    // In the order of `descriptorNumbers`.
    const descriptors = [logs.blackBoxInput, logs.blackBox, logs.processLog, lock, monitor, console];
    context.signal.throwIfAborted();
    return await spawnOrSay(launch, argv, [
      ...descriptors,
      logs.consoleLog,
      ...taps,
      ...agent,
      ...context.memory,
      ...directories,
    ]);
  } finally {
    await Promise.all(ours.map((descriptor) => closeDescriptor(descriptor)));
  }
};

const spawnOrSay = async (
  launch: Launch,
  argv: readonly string[],
  descriptors: readonly number[],
): Promise<Child> => {
  try {
    const cwd = launch.place.stateDirectory;
    return await spawnChild({ program: argv[0] ?? '', argv, env: environment, cwd, descriptors });
  } catch (error) {
    const said = error instanceof Error ? error.message : String(error);
    throw new RoostError('HostError', `QEMU of guest ${launch.name} could not be spawned: ${said}`, {
      cause: error,
      data: { guest: launch.name, argv: [...argv] },
      hint: `See that ${argv[0] ?? 'the launcher'} and ${launch.place.stateDirectory} are there.`,
    });
  }
};

const tapDescriptors = ({ name, nics }: Launch, { descriptors }: LaunchContext): readonly number[] =>
  tapLinks(nics).map((link) => {
    const descriptor = descriptors.get(link);
    if (descriptor !== undefined) return descriptor;
    throw new RoostError('Internal', `Guest ${name} was given no descriptor of its tap ${link}`);
  });

export const aliveError = (name: string): RoostError =>
  new RoostError('FailedPrecondition', `Guest ${name} has a live process already`, {
    data: { guest: name },
    hint: 'Stop it first.',
  });

/** What the launcher's exit codes mean; see launcher/options.h. */
const launcherFailures: Readonly<Record<number, string>> = {
  125: 'could not be prepared',
  126: 'could not be executed',
  127: 'was not found',
};

/** The error of a process that ended before it was a guest, in its own words. */
const failure = async (launch: Launch, argv: readonly string[], exit: ExitStatus): Promise<RoostError> => {
  const words = await lastWords(launch.place).catch(() => '');
  const how =
    exit.signal === null
      ? (launcherFailures[exit.code ?? -1] ?? `ended at once with status ${exit.code ?? 'unknown'}`)
      : `was ended by ${exit.signal}`;
  const line = whatFailed(launch, words);
  return new RoostError('HostError', `QEMU of guest ${launch.name} ${how}${line === '' ? '' : `: ${line}`}`, {
    data: { guest: launch.name, exitCode: exit.code, signal: exit.signal, said: words, argv: [...argv] },
    hint: 'The whole of its words is in the log of the process; `guest-plan` shows the command line.',
  });
};

/** QEMU gives up where nobody serves it a directory, and does not know why. */
const whatFailed = ({ filesystems = [] }: Launch, words: string): string => {
  const line = lastLine(words);
  if (filesystems.length === 0 || !line.includes('vhost')) return line;
  return `nobody serves its directories: ${lastLineOfOthers(words) ?? 'virtiofsd ended without a word'}`;
};

/** Takes away what a process that is gone left: who served it, its run directory with what is in there, and its lock. */
export const removeRunFiles = async (place: GuestPlace): Promise<void> => {
  const { runDirectory } = place;
  await endDirectoryServers(place);
  for (const path of runFiles(runDirectory)) await rm(path, { force: true });
  await removeIfEmpty(runDirectory);
  // Last: while it is there, something of the run may be there.
  await rm(lockPath(place), { force: true });
};

const removeIfEmpty = async (runDirectory: string): Promise<void> => {
  try {
    await rmdir(runDirectory);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code !== 'ENOENT' && code !== 'ENOTEMPTY') throw error;
  }
};
