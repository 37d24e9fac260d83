/**
 * The command line of a guest, from data alone: launcher, QEMU, one argument after the other. Golden files under
 * test/golden/qemu hold every form of it.
 *
 * Rules it keeps: no argument names a file that the guest could have chosen; a disk names its whole chain; every
 * device has the address it was pinned to; what QEMU gets to listen on and to log into are descriptors. Paths below
 * the daemon's state directory are relative to the guest's own directory, where QEMU works: looking them up starts
 * there, so that no directory above the state directory need be open to the guest's uid.
 */

import type { BlockSource } from '../../protocol/block-source.ts';
import { SEED_DEVICE } from '../../protocol/cloud-init.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { NetPort } from '../../protocol/net-port.ts';
import type { Launch, PinnedMachine } from '../driver.ts';
import { AGENT_PORT_ID, descriptorNumbers } from '../processes/process-interface.ts';
import {
  blockNodes,
  cdromDevice,
  cdromId,
  diskDevice,
  diskId,
  familyOf,
  filesystemDevice,
  filesystemId,
  type Json,
  netdev,
  nicDevice,
  relativeTo,
  seedDevice,
  virtio,
} from './devices.ts';

export interface LaunchArgsInput {
  readonly launch: Launch;
  readonly launcherPath: string;
  readonly binaryPath: string;
  readonly accel: 'kvm' | 'tcg';
  /** The daemon's state directory, absolute and without symbolic links. */
  readonly stateRoot: string;
  /** Ticks of the host's time stamp counter in a millisecond, which a microVM's kernel is told; see `initArgs`. */
  readonly tscKhz?: number;
  /** Firmware to use instead of QEMU's own choice; needed where that cannot boot a disk. */
  readonly firmwarePath?: string;
  /** Directory of its control group, which who serves it directories is in as well; where `groupArgv` does not see to it. */
  readonly groupDirectory?: string;
  /** Path of what serves directories; needed where the guest has any. */
  readonly virtiofsdPath?: string;
  /** Arguments before its own by which the process gets into its control group, where there are any. */
  readonly groupArgv?: readonly string[];
}

const MEBIBYTE = 1024 * 1024;
/** A guest goes before the daemon and the host's own services when memory runs out. */
const OOM_SCORE_ADJUSTMENT = 200;
/** Descriptors of a guest: user-mode networking takes one for each connection. */
const OPEN_FILES = 16_384;
const PORTS_PER_SLOT = 8;
const FIRST_PORT_SLOT = 0x10;
/** Where the random number generator sits, on each machine. */
const rngPlaces: Readonly<Record<string, Json>> = {
  q35: { bus: 'pcie.0', addr: '0x2' },
  pc: { bus: 'pci.0', addr: '0x3' },
  microvm: { bus: 'virtio-mmio-bus.0' },
};

/** Where the agent's channel sits. On pc it shares a slot, because every other is a disk's or a NIC's. */
const serialPlaces: Readonly<Record<string, Json>> = {
  q35: { bus: 'pcie.0', addr: '0x3' },
  pc: { bus: 'pci.0', addr: '0x3.0x1' },
  microvm: { bus: 'virtio-mmio-bus.23' },
};
/** Ports of the controller: 0 is kept for a console by the specification, 1 is the agent's. */
const SERIAL_PORTS = 4;
/** The name that guests know the port by: QEMU's, and so that of every distribution's udev rule. */
const AGENT_PORT_NAME = 'org.qemu.guest_agent.0';
/** Those of our own init (docs/guest-protocol.md). */
const CONTROL_PORT_NAME = 'org.roost.control.0';
const STREAMS_PORT_NAME = 'org.roost.streams.0';
const STREAMS_PORT_ID = 'streams0';
export const STREAMS_CHARDEV = 'streams';
/** Its host end. */
export const AGENT_CHARDEV = 'agent';

/** The whole command line: what puts it into its control group, the launcher's, then QEMU's. */
export const launchArgs = (input: LaunchArgsInput): readonly string[] => [
  ...(input.groupArgv ?? []),
  input.launcherPath,
  ...launcherOptions(input.launch),
  ...directoryOptions(input),
  '--',
  input.binaryPath,
  ...qemuArgs(input),
];

export const tapLinks = (nics: readonly NetPort[]): readonly string[] =>
  nics.flatMap((nic) => (nic.kind === 'tap' ? [nic.link] : []));

/**
 * Behind what every process inherits come the taps, in the order of the NICs; behind them what the agent's channel listens
 * on, behind that what its memory is made of, and last what it is served directories by.
 */
const agentDescriptor = ({ nics }: Launch): number => descriptorNumbers.further + tapLinks(nics).length;

/** How many channels of the agent are listened on: our own has one for control and one for streams. */
export const agentChannels = ({ agent, ownInit = false }: Pick<Launch, 'agent' | 'ownInit'>): 0 | 1 | 2 =>
  ownInit ? 2 : agent ? 1 : 0;

/** Numbers of the descriptors of memory that is shared with forks, and of the state that a fork begins with. */
export const memoryDescriptors = (launch: Launch): { readonly memory: number; readonly state: number } => {
  const memory = agentDescriptor(launch) + agentChannels(launch);
  return { memory, state: memory + 1 };
};

const firstBehindMemory = (launch: Launch): number => {
  const { memory, state } = memoryDescriptors(launch);
  if (launch.forkOf) return state + 1;
  return launch.forkable ? memory + 1 : memory;
};

/**
 * Number of the locked descriptor that tells who serves directories, which the launcher keeps from QEMU, and of QEMU's line
 * to the first of them; the others follow.
 */
const directoryDescriptors = (launch: Launch): { readonly lock: number; readonly first: number } => {
  const lock = firstBehindMemory(launch);
  return { lock, first: lock + 1 };
};

const descriptorCount = (launch: Launch): number => {
  const { filesystems = [] } = launch;
  if (filesystems.length === 0) return firstBehindMemory(launch);
  return directoryDescriptors(launch).first + filesystems.length;
};

const launcherOptions = (launch: Launch): readonly string[] => {
  const { credentials } = launch.place;
  const identity =
    credentials &&
    [
      ['--uid', String(credentials.uid), '--gid', String(credentials.gid)],
      ['--groups', credentials.groups.join(',')],
      // Without privileges the limit that the daemon has is the limit that a guest gets.
      ['--rlimit', `nofile=${OPEN_FILES}:${OPEN_FILES}`],
    ].flat();
  return [
    ...(identity ?? []),
    ['--rlimit', 'core=0:0'],
    ['--oom-score-adj', String(OOM_SCORE_ADJUSTMENT)],
    ['--umask', '077'],
    ['--keep-fds', String(descriptorCount(launch))],
    ['--pid-fd', String(descriptorNumbers.lock)],
  ].flat();
};

/** The launcher starts what serves them, each in a namespace of its own, while it still may. */
const directoryOptions = ({ launch, virtiofsdPath, groupDirectory }: LaunchArgsInput): readonly string[] => {
  const { filesystems = [] } = launch;
  if (filesystems.length === 0) return [];
  if (virtiofsdPath === undefined) throw new RangeError('nothing serves the directories');
  const { lock, first } = directoryDescriptors(launch);
  return [
    ...(groupDirectory === undefined ? [] : ['--cgroup', groupDirectory]),
    '--virtiofsd',
    virtiofsdPath,
    '--directories-fd',
    String(lock),
    ...filesystems.flatMap(({ source, readOnly }, index) => [
      '--directory',
      `${first + index}:${readOnly ? 'ro' : 'rw'}:${source}`,
    ]),
  ];
};

const qemuArgs = (input: LaunchArgsInput): readonly string[] => {
  const { launch } = input;
  const pathFor = relativeTo(launch.place.stateDirectory, input.stateRoot);
  return [
    ...machineArgs(launch, input.accel),
    ...(input.firmwarePath === undefined ? [] : ['-bios', input.firmwarePath]),
    ...firmwareArgs(launch, pathFor),
    ...bootArgs(input, pathFor),
    ...rngArgs(launch),
    ...rootPortArgs(launch.machine),
    ...launch.disks.flatMap((disk, index) => diskArgs(launch, disk, index, pathFor)),
    ...seedArgs(launch, pathFor),
    ...cdromArgs(launch, pathFor),
    ...nicArgs(launch),
    ...filesystemArgs(launch),
    ...agentArgs(launch),
    ...monitorArgs,
    ...launch.qemu.extraArgs.map(({ argument }) => argument),
  ];
};

const machineArgs = (launch: Launch, accel: 'kvm' | 'tcg'): readonly string[] => {
  const { machine, cpu, place } = launch;
  const topology = cpu.topology ?? { sockets: 1, cores: cpu.count, threads: 1 };
  const { sockets, cores, threads } = topology;
  const memory = namesMemory(launch) ? [`memory-backend=${memoryId(launch)}`] : [];
  return [
    ['-name', `guest=${launch.name},debug-threads=on`],
    ['-uuid', place.id],
    ['-machine', [machine.type, ...(machine.firmware ? [flash] : []), ...memory].join(',')],
    accel === 'kvm' ? ['-enable-kvm'] : ['-accel', 'tcg'],
    ['-cpu', machine.cpuModel],
    ['-smp', `cpus=${cpu.count},sockets=${sockets},cores=${cores},threads=${threads}`],
    ['-m', `size=${launch.memoryBytes / MEBIBYTE}M`],
    memoryArgs(launch),
    ['-nodefaults', '-no-user-config'],
    ['-display', 'none'],
    ['-S'],
    ['-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny'],
    ['-msg', 'timestamp=on'],
    ['-rtc', 'base=utc'],
  ].flat();
};

/** What QEMU itself calls memory that nobody has named; migration knows memory by its name. */
const ownMemoryIds: Readonly<Record<string, string>> = {
  q35: 'pc.ram',
  pc: 'pc.ram',
  microvm: 'microvm.ram',
};

/** The same in every process that the guest may go on in. */
const memoryId = ({ machine, ownInit }: Launch): string =>
  (ownInit ? undefined : ownMemoryIds[familyOf(machine)]) ?? 'memory0';

const isShared = ({ forkable, forkOf }: Launch): boolean => forkable === true || forkOf !== undefined;

const namesMemory = (launch: Launch): boolean =>
  isShared(launch) || launch.ownInit === true || (launch.filesystems ?? []).length > 0;

/** Memory that is to be forked is shared; a fork maps it privately. What comes from elsewhere is waited for. */
const memoryArgs = (launch: Launch): readonly string[] => {
  if (!namesMemory(launch)) return [];
  const id = memoryId(launch);
  const size = `${launch.memoryBytes / MEBIBYTE}M`;
  if (!isShared(launch)) {
    // What serves directories reads and writes in it.
    const kind = launch.filesystems?.length ? 'memfd,share=on' : 'ram';
    return ['-object', `memory-backend-${kind},id=${id},size=${size}`];
  }
  const { memory } = memoryDescriptors(launch);
  const share = launch.forkOf ? 'off' : 'on';
  return [
    '-object',
    `memory-backend-file,id=${id},size=${size},mem-path=/proc/self/fd/${memory},share=${share}`,
    ...(launch.forkOf || launch.receives ? ['-incoming', 'defer'] : []),
  ];
};

/** Nodes of UEFI firmware: its code, shared and never written, and the guest's own variables. */
const FIRMWARE_CODE = 'firmware-code';
const FIRMWARE_VARIABLES = 'firmware-variables';
const flash = `pflash0=${FIRMWARE_CODE},pflash1=${FIRMWARE_VARIABLES}`;

const firmwareArgs = (launch: Launch, pathFor: (path: string) => string): readonly string[] => {
  const { machine, firmwareVariablesPath } = launch;
  if (!machine.firmware || firmwareVariablesPath === undefined) return [];
  const node = (name: string, path: string, readOnly: boolean): readonly string[] => [
    '-blockdev',
    JSON.stringify({
      'node-name': name,
      driver: 'raw',
      'read-only': readOnly,
      file: { driver: 'file', filename: pathFor(path), 'read-only': readOnly },
    }),
  ];
  return [
    ...node(FIRMWARE_CODE, machine.firmware.codePath, true),
    ...node(FIRMWARE_VARIABLES, firmwareVariablesPath, false),
  ];
};

/** Refused when the guest was made. */
const noMachine = (name: string): RoostError =>
  new RoostError('Internal', `Guest ${name} is a container, and no machine of QEMU`);

const bootArgs = (input: LaunchArgsInput, pathFor: (path: string) => string): readonly string[] => {
  const { launch } = input;
  const { boot } = launch;
  // Only what has a boot index is tried.
  const always = ['-boot', 'strict=on'];
  if (boot.kind === 'disk') return always;
  if (boot.kind === 'root') throw noMachine(launch.name);
  const { kernelPath, initrdPath } = boot;
  const commandLine = launch.ownInit ? initCommandLine(input, boot.commandLine) : boot.commandLine;
  return [
    always,
    ['-kernel', pathFor(kernelPath)],
    initrdPath === undefined ? [] : ['-initrd', pathFor(initrdPath)],
    commandLine === '' ? [] : ['-append', commandLine],
    // A guest without its channels resets, and one that panics: that is its end. The second word is for virtiofs.
    launch.ownInit ? ['-no-reboot'] : [],
    launch.ownInit && familyOf(launch.machine) === 'microvm'
      ? ['-global', 'virtio-mmio.force-legacy=false']
      : [],
  ].flat();
};

/**
 * What our init reads (docs/guest-protocol.md), after what shortens the kernel's own start. A microvm has no other clock
 * to measure its processor's by: without `tsc_early_khz` it hangs now and then under TCG. Without `tsc=reliable` the
 * kernel compares that clock with its own ticks, and where the host was busy, which takes ticks away, it holds the ticks
 * for right: it then counts time by them for good, loses time, and wakes 250 times a second to do nothing.
 */
const initCommandLine = ({ launch, tscKhz }: LaunchArgsInput, more: string): string => {
  const [root, upper] = launch.machine.disks;
  if (!root || !upper) throw new RangeError('a guest with our init has two disks');
  return [
    'console=ttyS0 quiet panic=-1 cryptomgr.notests no_timer_check lsm=',
    ...(tscKhz === undefined ? [] : [`tsc_early_khz=${tscKhz} tsc=reliable`]),
    `roost.root=serial:${root.serial} roost.upper=serial:${upper.serial}`,
    ...(more === '' ? [] : [more]),
  ].join(' ');
};

const rngArgs = ({ machine, agent }: Launch): readonly string[] => [
  '-object',
  'rng-random,id=rng0-source,filename=/dev/urandom',
  ...deviceArgs({
    driver: virtio('rng', machine),
    id: 'rng0',
    rng: 'rng0-source',
    ...rngPlaces[familyOf(machine)],
    ...(familyOf(machine) === 'pc' && agent ? { multifunction: true } : {}),
  }),
];

/** One port for each device, and spare ones: PCI Express takes hot-plugged devices nowhere else. */
const rootPortArgs = (machine: PinnedMachine): readonly string[] => {
  const count = familyOf(machine) === 'q35' ? Number(machine.settings['ports']) : 0;
  return Array.from({ length: count }, (_, index) => {
    const slot = FIRST_PORT_SLOT + Math.floor(index / PORTS_PER_SLOT);
    const fn = index % PORTS_PER_SLOT;
    return deviceArgs({
      driver: 'pcie-root-port',
      id: `port${index}`,
      bus: 'pcie.0',
      addr: `${hex(slot)}.${hex(fn)}`,
      ...(fn === 0 ? { multifunction: true } : {}),
      chassis: index + 1,
      port: index,
    });
  }).flat();
};

const diskArgs = (
  launch: Launch,
  source: BlockSource,
  index: number,
  pathFor: (path: string) => string,
): readonly string[] => {
  const pinned = entry(launch.machine.disks, index, 'disk');
  return [
    ...blockNodes(diskId(pinned.name), source, pathFor).flatMap((node) => [
      '-blockdev',
      JSON.stringify(node),
    ]),
    ...deviceArgs(
      diskDevice(launch.machine, pinned, launch.boot.kind === 'disk' ? { bootindex: index + 1 } : {}),
    ),
  ];
};

const seedArgs = ({ seed, machine }: Launch, pathFor: (path: string) => string): readonly string[] =>
  seed === undefined
    ? []
    : [
        ...blockNodes(SEED_DEVICE, seed, pathFor).flatMap((node) => ['-blockdev', JSON.stringify(node)]),
        ...deviceArgs(seedDevice(machine)),
      ];

/** Drives are tried after the disks: an installer comes from a drive when the disk is empty, and only then. */
const cdromArgs = (launch: Launch, pathFor: (path: string) => string): readonly string[] =>
  (launch.machine.cdroms ?? []).flatMap((pinned, index) => {
    const medium = launch.cdroms?.[index];
    const nodes = medium === undefined ? [] : blockNodes(cdromId(pinned.name), medium, pathFor);
    const bootindex = launch.disks.length + index + 1;
    return [
      ...nodes.flatMap((node) => ['-blockdev', JSON.stringify(node)]),
      ...deviceArgs(
        cdromDevice(launch.machine, pinned, medium, launch.boot.kind === 'disk' ? { bootindex } : {}),
      ),
    ];
  });

const nicArgs = (launch: Launch): readonly string[] => {
  const links = tapLinks(launch.nics);
  return launch.nics.flatMap((port, index) => {
    const pinned = entry(launch.machine.nics, index, 'NIC');
    const descriptor =
      port.kind === 'tap' ? String(descriptorNumbers.further + links.indexOf(port.link)) : '';
    return [
      '-netdev',
      JSON.stringify(netdev(pinned.name, port, descriptor)),
      ...deviceArgs(nicDevice(launch.machine, pinned)),
    ];
  });
};

const filesystemArgs = (launch: Launch): readonly string[] => {
  const { machine, filesystems = [] } = launch;
  const { first } = directoryDescriptors(launch);
  return filesystems.flatMap((_, index) => {
    const pinned = entry(machine.filesystems ?? [], index, 'file system');
    return [
      '-chardev',
      `socket,id=${filesystemId(pinned.name)},fd=${first + index}`,
      ...deviceArgs(filesystemDevice(machine, pinned)),
    ];
  });
};

/** Virtio ports, their host ends sockets that the daemon alone can connect to. */
const agentArgs = (launch: Launch): readonly string[] => {
  const { machine, ownInit } = launch;
  const channels = agentChannels(launch);
  if (channels === 0) return [];
  const ports = ownInit
    ? [
        { id: AGENT_PORT_ID, chardev: AGENT_CHARDEV, name: CONTROL_PORT_NAME },
        { id: STREAMS_PORT_ID, chardev: STREAMS_CHARDEV, name: STREAMS_PORT_NAME },
      ]
    : [{ id: AGENT_PORT_ID, chardev: AGENT_CHARDEV, name: AGENT_PORT_NAME }];
  const first = agentDescriptor(launch);
  return [
    ...ports.flatMap(({ chardev }, index) => [
      '-chardev',
      `socket,id=${chardev},fd=${first + index},server=on,wait=off`,
    ]),
    ...deviceArgs({
      driver: virtio('serial', machine),
      id: 'serial0',
      max_ports: SERIAL_PORTS,
      ...serialPlaces[familyOf(machine)],
    }),
    ...ports.flatMap(({ id, chardev, name }, index) =>
      deviceArgs({ driver: 'virtserialport', id, bus: 'serial0.0', nr: index + 1, chardev, name }),
    ),
  ];
};

/**
 * The black box comes last: QEMU tells each event to its monitors in the reverse order of their making, so that an
 * event is in the black box before it rings on the daemon's monitor.
 */
const monitorArgs: readonly string[] = [
  ['-chardev', `socket,id=qmp,fd=${descriptorNumbers.monitor},server=on,wait=off`],
  ['-mon', 'chardev=qmp,mode=control'],
  ['-add-fd', `fd=${descriptorNumbers.consoleLog},set=1`],
  [
    '-chardev',
    `socket,id=console,fd=${descriptorNumbers.console},server=on,wait=off,logfile=/dev/fdset/1,logappend=on`,
  ],
  ['-serial', 'chardev:console'],
  ['-chardev', 'stdio,id=blackbox,signal=off'],
  ['-mon', 'chardev=blackbox,mode=control'],
].flat();

const deviceArgs = (device: Json): readonly string[] => ['-device', JSON.stringify(device)];

const entry = <T>(list: readonly T[], index: number, kind: string): T => {
  const found = list[index];
  if (found === undefined) throw new RangeError(`the machine has no ${kind} ${index}`);
  return found;
};

const hex = (value: number): string => `0x${value.toString(16)}`;
