/** The command line of a container's warden (docs/warden.md), from data alone. */
import { RoostError } from '../../protocol/errors.ts';
import type { ContainerBoot, GuestPlace } from '../driver.ts';
import { descriptorNumbers } from '../processes/process-interface.ts';
import { containerGroup, lxcLogPath, lxcPath } from './container-files.ts';
import type { Lower } from './mapped-ids.ts';

export interface WardenArgsInput {
  readonly place: GuestPlace;
  readonly boot: ContainerBoot;
  readonly lower: Lower;
  /** What puts the process into its scope; empty where there is none. */
  readonly groupArgv?: readonly string[];
  /** Whether the kernel does not end the container with its warden. */
  readonly guard?: boolean;
  readonly wardenPath: string;
  /** Our init, which is the agent in the container. */
  readonly agentPath: string;
  /** Whether the container has the agent. */
  readonly agent: boolean;
}

/** The channels of the agent are the first that a container's process inherits besides what every process does. */
const AGENT_DESCRIPTORS = `${descriptorNumbers.further}:${descriptorNumbers.further + 1}`;

const below = ({ root }: ContainerBoot, lower: Lower): readonly string[] => {
  if (lower === 'image') return ['--image', root.image.path];
  if (root.tree !== undefined) return ['--lower', root.tree];
  throw new RoostError(
    'Internal',
    `The image of a root in ${root.directory} was to be unpacked, and is said to be nowhere`,
  );
};

export const wardenArgs = ({
  place,
  boot,
  lower,
  groupArgv = [],
  guard = false,
  wardenPath,
  agentPath,
  agent,
}: WardenArgsInput): readonly string[] => {
  const options = [
    ['--lxcpath', lxcPath(place)],
    ['--name', place.id],
    ['--run', place.runDirectory],
    below(boot, lower),
    ['--upper', boot.root.directory],
    ['--ids', `${boot.idRange.first}:${boot.idRange.count}`],
    ['--cgroup', containerGroup(place)],
    ['--lxc-log', lxcLogPath(place)],
    ...(guard ? [['--guard', 'yes'] as const] : []),
    ...(agent ? [['--agent', agentPath] as const, ['--agent-fds', AGENT_DESCRIPTORS] as const] : []),
  ];
  return [
    ...groupArgv,
    wardenPath,
    ...options.flat(),
    ...(boot.init === undefined ? [] : ['--', ...boot.init]),
  ];
};
