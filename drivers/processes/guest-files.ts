/** Names of everything that a guest's process has on the host; what only some have, their drivers name. */
import { join } from 'node:path';
import type { HostObject } from '../../protocol/host-object.ts';
import type { InstanceId } from '../../protocol/types.ts';
import type { GuestPlace, Launch } from '../driver.ts';

export const logNames = {
  console: 'console.log',
  process: 'process.log',
  events: 'events.log',
  program: 'program.log',
} as const;
export type LogStream = keyof typeof logNames;

const LOCK_SUFFIX = '.lock';
const DIRECTORIES_LOCK_SUFFIX = '.directories.lock';
/**
 * Locked by the process as long as it lives; holds its pid, its start and the boot's id. It lies with the state, so
 * that a guest is not forgotten when somebody empties the run directory under it, and beside the guest's directory,
 * because what is in there the guest's own uid could rename.
 */
export const lockPath = ({ stateDirectory }: Pick<GuestPlace, 'stateDirectory'>): string =>
  `${stateDirectory}${LOCK_SUFFIX}`;
/** Whether a name among the guests' directories is that of a lock. */
export const isLockName = (name: string): boolean => name.endsWith(LOCK_SUFFIX);
/**
 * Locked as long as anybody serves the guest directories, and root's alone. It lies with the state, too: nothing else tells
 * of them when the process that they end with is gone.
 */
export const directoriesLockPath = ({ stateDirectory }: Pick<GuestPlace, 'stateDirectory'>): string =>
  `${stateDirectory}${DIRECTORIES_LOCK_SUFFIX}`;
/** The lock of the guest's process, by that of its directories; undefined for every other. */
export const lockBeside = (path: string): string | undefined =>
  path.endsWith(DIRECTORIES_LOCK_SUFFIX)
    ? `${path.slice(0, -DIRECTORIES_LOCK_SUFFIX.length)}${LOCK_SUFFIX}`
    : undefined;
export const monitorPath = (runDirectory: string): string => join(runDirectory, 'qmp.sock');
export const consolePath = (runDirectory: string): string => join(runDirectory, 'console.sock');
/** The host end of the channel to the guest's agent; there only where the machine has the channel. */
export const agentPath = (runDirectory: string): string => join(runDirectory, 'agent.sock');
/** The host end of the channel for the bytes of programs and files; there only where the guest has our init. */
export const streamsPath = (runDirectory: string): string => join(runDirectory, 'streams.sock');
/** Written before the process is killed on purpose, so that any later daemon knows that it was. */
export const askedPath = (runDirectory: string): string => join(runDirectory, 'end-asked');

/** What control groups of an instance begin with. */
export const groupPrefix = (instance: InstanceId): string => `roost-${instance}-`;
/** The control group of a guest's process; as a scope of systemd it has a suffix. */
export const groupName = ({ instance, id }: Pick<GuestPlace, 'instance' | 'id'>): string =>
  `${groupPrefix(instance)}${id}`;
/** Whether a group is a guest's and not that of a network's server. */
export const isGuestGroup = (name: string): boolean =>
  /-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?:\.scope)?$/.test(name);

export const runFiles = (runDirectory: string): readonly string[] => [
  monitorPath(runDirectory),
  consolePath(runDirectory),
  agentPath(runDirectory),
  streamsPath(runDirectory),
  askedPath(runDirectory),
];

/** Devices of a guest that is kept for forks; root's alone. */
export const forkStatePath = ({ stateDirectory }: Pick<GuestPlace, 'stateDirectory'>): string =>
  join(stateDirectory, 'fork.state');

/** Root's alone: the process has descriptors of what it writes in there. */
export const logDirectory = (place: GuestPlace): string => join(place.stateDirectory, 'log');
/** What the log of the process was called by daemons that knew of QEMU alone. */
export const oldProcessLogPath = (place: GuestPlace): string => join(logDirectory(place), 'qemu.log');
export const logPath = (place: GuestPlace, stream: LogStream): string =>
  join(logDirectory(place), logNames[stream]);
/** Written by the daemon, in two files in turn; see transcript.ts. */
export const transcriptPath = (place: GuestPlace): string => join(logDirectory(place), 'qmp.log');
export const blackBoxInputPath = (place: GuestPlace): string => join(logDirectory(place), 'black-box.input');

/** What a launch makes on the host, in the ledger's words. */
export const runObjects = (
  place: Pick<GuestPlace, 'stateDirectory' | 'runDirectory'>,
  { agent, ownInit = false, filesystems = [] }: Pick<Launch, 'agent' | 'ownInit' | 'filesystems'>,
): readonly HostObject[] => [
  { kind: 'process', name: lockPath(place) },
  ...(filesystems.length > 0 ? [{ kind: 'process', name: directoriesLockPath(place) } as const] : []),
  { kind: 'socket', name: monitorPath(place.runDirectory) },
  { kind: 'socket', name: consolePath(place.runDirectory) },
  ...(agent || ownInit ? [{ kind: 'socket', name: agentPath(place.runDirectory) } as const] : []),
  ...(ownInit ? [{ kind: 'socket', name: streamsPath(place.runDirectory) } as const] : []),
];
