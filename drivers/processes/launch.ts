/**
 * Makes a guest's process: lock, sockets and logs as descriptors, the launcher, and what runs the guest, standing still.
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
import type { GuestPlace } from '../driver.ts';
import { askedPath, consolePath, lockPath, monitorPath, runFiles } from './guest-files.ts';
import { lastLine, lastWords, openRunLogs } from './guest-logs.ts';
import { GuestProcess } from './guest-process.ts';
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

/** What is launched, and what it inherits besides what every guest's process does. */
export interface ProcessLaunch {
  readonly place: GuestPlace;
  /** Of the guest. */
  readonly name: string;
  /** What runs the guest, for people: `QEMU`. */
  readonly program: string;
  readonly argv: readonly string[];
  readonly group: LaunchGroup;
  /** Descriptors right behind the common ones. The caller's to close, as `last`. */
  readonly first?: readonly number[];
  /** Sockets to listen on for the channels of the agent, behind those. */
  readonly channels: readonly string[];
  /** Behind the channels. */
  readonly last?: readonly number[];
  /** Opens what has to be opened by whoever has the guest's lock, behind all others; closed here. */
  readonly openLast?: () => Promise<readonly number[]>;
  /** Makes what it needs, by whoever has the guest's lock. */
  readonly prepare?: () => Promise<void>;
  /** Takes away what the process left that is none of the common files. May be done again. */
  readonly clear?: () => Promise<void>;
  /** One line for people out of its last words. */
  readonly explain?: (words: string) => string;
}

/** A process on its way to being a guest. */
export interface Launched {
  readonly process: GuestProcess;
  /** Aborts when the process ends. */
  readonly ended: AbortSignal;
}

/**
 * Spawns the process and hands it to `use`, which makes the handle; fails as `use` does, or with the process's own words
 * when it ended meanwhile. After a failure nothing is left.
 */
export const launchProcess = async <T>(
  launch: ProcessLaunch,
  signal: AbortSignal,
  use: (launched: Launched) => Promise<T>,
): Promise<T> => {
  const { argv, group } = launch;
  const { runDirectory } = launch.place;
  signal.throwIfAborted();
  await mkdir(runDirectory, { recursive: true, mode: 0o700 });
  await using undo = new UndoStack();
  const child = await spawnGuest(launch, signal, undo);
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
  if (!process) throw await failure(launch, await over);
  undo.add(() => process.close());
  try {
    // Beside the program's own start, which takes longer; the guest's memory is touched only once it runs.
    await group.join(child.pid);
    const result = await use({ process, ended: ended.signal });
    undo.succeed();
    return result;
  } catch (error) {
    if (signal.aborted) throw abortReason(signal);
    // It closes its monitor when it gives up, and says why; its end follows at once.
    const gaveUp = ended.signal.aborted || isRoostError(error, 'Unavailable');
    if (!gaveUp) throw error;
    using limit = deadline(END_TIMEOUT_MS);
    const status = await waitOrAbort(over, limit.signal).catch(() => undefined);
    throw status ? await failure(launch, status) : error;
  }
};

const spawnGuest = async (launch: ProcessLaunch, signal: AbortSignal, undo: UndoStack): Promise<Child> => {
  const { place, first = [], last = [] } = launch;
  const { runDirectory } = place;
  const lock = takeLock(lockPath(place));
  if (lock === 'held') throw aliveError(launch.name);
  undo.add(() => removeRunFiles(place, launch.clear));
  undo.add(launch.group.remove);
  const ours = [lock];
  const listen = (path: string): number => {
    const listening = listenUnix(path, { mode: 0o600, backlog: BACKLOG });
    ours.push(listening);
    return listening;
  };
  try {
    await rm(askedPath(runDirectory), { force: true });
    await launch.group.prepare();
    await launch.prepare?.();
    const monitor = listen(monitorPath(runDirectory));
    const console = listen(consolePath(runDirectory));
    const channels = launch.channels.map(listen);
    const opened = (await launch.openLast?.()) ?? [];
    ours.push(...opened);
    await using logs = await openRunLogs(place, `${launch.name} (${place.id})`);
    // In the order of `descriptorNumbers`.
    const common = [logs.blackBoxInput, logs.blackBox, logs.processLog, lock, monitor, console];
    signal.throwIfAborted();
    return await spawnOrSay(launch, [...common, logs.consoleLog, ...first, ...channels, ...last, ...opened]);
  } finally {
    await Promise.all(ours.map((descriptor) => closeDescriptor(descriptor)));
  }
};

const spawnOrSay = async (launch: ProcessLaunch, descriptors: readonly number[]): Promise<Child> => {
  const { argv } = launch;
  try {
    const cwd = launch.place.stateDirectory;
    return await spawnChild({ program: argv[0] ?? '', argv, env: environment, cwd, descriptors });
  } catch (error) {
    const said = error instanceof Error ? error.message : String(error);
    throw new RoostError(
      'HostError',
      `${launch.program} of guest ${launch.name} could not be spawned: ${said}`,
      {
        cause: error,
        data: { guest: launch.name, argv: [...argv] },
        hint: `See that ${argv[0] ?? 'the launcher'} and ${launch.place.stateDirectory} are there.`,
      },
    );
  }
};

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
const failure = async (launch: ProcessLaunch, exit: ExitStatus): Promise<RoostError> => {
  const { name, argv, program, explain = lastLine } = launch;
  const words = await lastWords(launch.place).catch(() => '');
  const how =
    exit.signal === null
      ? (launcherFailures[exit.code ?? -1] ?? `ended at once with status ${exit.code ?? 'unknown'}`)
      : `was ended by ${exit.signal}`;
  const line = explain(words);
  return new RoostError('HostError', `${program} of guest ${name} ${how}${line === '' ? '' : `: ${line}`}`, {
    data: { guest: name, exitCode: exit.code, signal: exit.signal, said: words, argv: [...argv] },
    hint: 'The whole of its words is in the log of the process; `guest-plan` shows the command line.',
  });
};

/**
 * Takes away what a process that is gone left: what is its driver's own first, its run directory with what is in there, and
 * its lock.
 */
export const removeRunFiles = async (
  place: GuestPlace,
  clear: () => Promise<void> = () => Promise.resolve(),
): Promise<void> => {
  const { runDirectory } = place;
  await clear();
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
