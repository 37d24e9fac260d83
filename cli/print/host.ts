/** The host and the daemon for people. */
import type { DaemonView, HostView } from '../../protocol/host.ts';
import { formatAge, formatSize } from '../units.ts';
import { renderFields, renderTable } from './table.ts';

const binaryRow = (binary: HostView['qemuBinaries'][number]): (string | undefined)[] => [
  binary.name,
  binary.version ?? binary.problem,
  binary.path,
  binary.machines.length > 6 ? `${binary.machines.slice(0, 6).join(' ')} …` : binary.machines.join(' '),
];

const containersText = (containers: NonNullable<HostView['containers']>): string => {
  const {
    available,
    why = 'it is not said why',
    liblxc,
    cgroups,
    lxcfs,
    apparmor,
    idmappedSquashfs,
  } = containers;
  if (!available) return `no: ${why}`;
  const has = (what: string, isThere: boolean): string => (isThere ? what : `no ${what}`);
  const parts = [
    `control groups ${cgroups}`,
    has('lxcfs', lxcfs),
    has('AppArmor', apparmor),
    ...(idmappedSquashfs ? [] : ['images are unpacked']),
  ];
  return `yes: liblxc ${liblxc ?? 'of an unknown version'}, ${parts.join(', ')}`;
};

export const printHost = (host: HostView): string[] => [
  ...renderFields([
    ['Host', host.hostname],
    ['Kernel', host.kernel],
    ['CPUs', host.cpus],
    [
      'Memory',
      `${formatSize(host.memory.totalBytes)}, ${formatSize(host.memory.availableBytes)} available, ${formatSize(host.memory.committedBytes)} promised to guests`,
    ],
    ['Accelerator', `${host.accelerator.auto}: ${host.accelerator.why}`],
    ['Control groups', `${host.controlGroups.kind}: ${host.controlGroups.why}`],
    ['Privileged', `${host.privileged ? 'yes' : 'no'}: ${host.privilegedWhy}`],
    ['Containers', host.containers && containersText(host.containers)],
    ['Drivers', host.drivers.map((driver) => driver.name).join(', ')],
  ]),
  ...host.foreignFirewalls.flatMap(({ who, chain, hint }) => [
    `${who} drops what networks of kind nat forward (chain ${chain}). To let them pass:`,
    `  ${hint}`,
  ]),
  'QEMU:',
  ...renderTable(['name', 'version', 'path', 'machines'], host.qemuBinaries.map(binaryRow)).map(
    (line) => `  ${line}`,
  ),
];

const spread = ({ p50, p99, max }: DaemonView['commitMs']): string =>
  `median ${p50.toFixed(1)} ms, 99 % ${p99.toFixed(1)} ms, most ${max.toFixed(1)} ms`;

/** The worst ones by their names; nothing when there was none. */
const standstills = ({ count, worst }: DaemonView['eventLoopBlocks']): [string, string][] =>
  count === 0
    ? []
    : [
        [
          'Loop stood still',
          `${count} times for 20 ms or more: ${worst
            .slice(0, 3)
            .map(
              ({ ms, cpuMs, work }) => `${work} ${Math.round(ms)} ms (${Math.round(cpuMs)} ms of computing)`,
            )
            .join(', ')}`,
        ],
      ];

export const printDaemon = (daemon: DaemonView, nowMs: number): string[] =>
  renderFields([
    ['Version', daemon.version],
    ['Ready', daemon.ready ? 'yes' : 'no: still looking at its guests'],
    ['Pid', daemon.pid],
    ['Started', formatAge(daemon.startedAt, nowMs)],
    ['Instance', daemon.instance],
    ['State in', daemon.stateDirectory],
    ['Runs in', daemon.runDirectory],
    ['Memory', formatSize(daemon.memoryBytes)],
    ['Guests', daemon.guests],
    ['Connections', daemon.connections],
    ['Loop lag', spread(daemon.eventLoopLagMs)],
    ...standstills(daemon.eventLoopBlocks),
    ['Commits', spread(daemon.commitMs)],
    ['Last event', daemon.lastEventSequence],
  ]);
