/** Names of what a container has on the host besides what every guest's process has; no name is made anywhere else. */
import { dirname, join } from 'node:path';
import type { GuestPlace } from '../driver.ts';
import { groupName, logDirectory } from '../processes/guest-files.ts';

/** Path of all containers, as `-P` of liblxc's programs: they call a container by its guest's id. */
export const lxcPath = ({ stateDirectory }: Pick<GuestPlace, 'stateDirectory'>): string =>
  dirname(stateDirectory);

/** Written at each launch; root's, and readable for people. */
export const configPath = ({ stateDirectory }: Pick<GuestPlace, 'stateDirectory'>): string =>
  join(stateDirectory, 'config');

export const lxcLogPath = (place: GuestPlace): string => join(logDirectory(place), 'lxc.log');

/** The group, below the root of every hierarchy, that all groups of the container are in. */
export const containerGroup = (place: Pick<GuestPlace, 'instance' | 'id'>): string => groupName(place);

/** Where the limits of a container are, below its group. */
export const PAYLOAD = 'payload';
