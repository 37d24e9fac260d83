/** Names of everything that a guest of QEMU has on the host; no name is made anywhere else. */
import { join } from 'node:path';
import type { HostObject } from '../../protocol/host-object.ts';
import type { GuestPlace } from '../driver.ts';

export const logNames = { console: 'console.log', process: 'qemu.log', events: 'events.log' } as const;
export type LogStream = keyof typeof logNames;

/** Locked by the process as long as it lives; holds its pid, its start and the boot's id. */
export const lockPath = (runDirectory: string): string => join(runDirectory, 'process.lock');
export const monitorPath = (runDirectory: string): string => join(runDirectory, 'qmp.sock');
export const consolePath = (runDirectory: string): string => join(runDirectory, 'console.sock');
/** Written before the process is killed on purpose, so that any later daemon knows that it was. */
export const askedPath = (runDirectory: string): string => join(runDirectory, 'end-asked');

export const runFiles = (runDirectory: string): readonly string[] => [
  monitorPath(runDirectory),
  consolePath(runDirectory),
  askedPath(runDirectory),
  // Last: while it is there, something of the run may be there.
  lockPath(runDirectory),
];

/** Root's alone: the process has descriptors of what it writes in there. */
export const logDirectory = (place: GuestPlace): string => join(place.stateDirectory, 'log');
export const logPath = (place: GuestPlace, stream: LogStream): string =>
  join(logDirectory(place), logNames[stream]);
export const blackBoxInputPath = (place: GuestPlace): string => join(logDirectory(place), 'black-box.input');

/** What a launch makes on the host, in the ledger's words. */
export const runObjects = ({ runDirectory }: Pick<GuestPlace, 'runDirectory'>): readonly HostObject[] => [
  { kind: 'process', name: lockPath(runDirectory) },
  { kind: 'socket', name: monitorPath(runDirectory) },
  { kind: 'socket', name: consolePath(runDirectory) },
];
