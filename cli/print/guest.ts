/** Guests for people. */
import type { CommandReturn } from '../../protocol/commands.ts';
import type { GuestView } from '../../protocol/guest.ts';
import { formatAge, formatDuration, formatSize } from '../units.ts';
import { forwardText } from './addresses.ts';
import { quoted } from './quoted.ts';
import { renderFields, renderTable } from './table.ts';

type PartialGuest = CommandReturn<'query-guests'>['guests'][number];

/** Members that the table of guests shows, so that nothing else is asked for. */
export const listFields = ['name', 'state', 'reason', 'stale', 'memoryBytes', 'cpu', 'nics', 'process'];
export const wideFields = [...listFields, 'id', 'machine', 'target', 'disks', 'labels'];

/** The state with its reason; a question mark while the daemon has not looked yet. */
const stateText = (guest: PartialGuest): string => {
  const reason = guest.reason === undefined ? '' : ` (${guest.reason})`;
  return `${guest.state ?? 'unknown'}${guest.stale === true ? '?' : ''}${reason}`;
};

/** Longer reasons are for `show`, and for a table that may be wide. */
const REASON_LENGTH = 28;

const briefStateText = (guest: PartialGuest): string => {
  const { reason } = guest;
  if (reason === undefined || reason.length <= REASON_LENGTH) return stateText(guest);
  return stateText({ ...guest, reason: `${reason.slice(0, REASON_LENGTH - 1).trimEnd()}…` });
};

const labelsText = (labels: Readonly<Record<string, string>> | undefined): string =>
  Object.entries(labels ?? {})
    .map(([key, value]) => `${key}=${value}`)
    .join(',');

/** The address kept for it, or the ports of the host that lead to it. */
const nicAddresses = (nic: GuestView['nics'][number]): readonly string[] => [
  ...(nic.ipv4 === undefined ? [] : [nic.ipv4]),
  ...(nic.forwards ?? []).map(forwardText),
];

const addresses = (guest: PartialGuest): string => (guest.nics ?? []).flatMap(nicAddresses).join(',');

const maybeSize = (bytes: number | undefined): string | undefined =>
  bytes === undefined ? undefined : formatSize(bytes);

interface Column {
  readonly heading: string;
  readonly wide?: boolean;
  readonly cell: (guest: PartialGuest, nowMs: number, wide: boolean) => string | number | undefined;
}

const columns: readonly Column[] = [
  { heading: 'name', cell: (guest) => guest.name },
  { heading: 'state', cell: (guest, _nowMs, wide) => (wide ? stateText(guest) : briefStateText(guest)) },
  { heading: 'target', wide: true, cell: (guest) => guest.target },
  { heading: 'cpus', cell: (guest) => guest.cpu?.count },
  { heading: 'memory', cell: (guest) => maybeSize(guest.memoryBytes) },
  { heading: 'address', cell: addresses },
  {
    heading: 'started',
    cell: (guest, nowMs) => guest.process && formatAge(guest.process.startedAt, nowMs),
  },
  { heading: 'machine', wide: true, cell: (guest) => guest.machine },
  { heading: 'accel', wide: true, cell: (guest) => guest.process?.accel },
  { heading: 'pid', wide: true, cell: (guest) => guest.process?.pid },
  {
    heading: 'disks',
    wide: true,
    cell: (guest) => guest.disks?.map((disk) => formatSize(disk.sizeBytes)).join(','),
  },
  { heading: 'labels', wide: true, cell: (guest) => labelsText(guest.labels) },
  { heading: 'id', wide: true, cell: (guest) => guest.id },
];

export const printGuests = (guests: readonly PartialGuest[], nowMs: number, wide: boolean): string[] => {
  const shown = columns.filter((column) => wide || column.wide !== true);
  return renderTable(
    shown.map((column) => column.heading),
    guests.map((guest) => shown.map((column) => column.cell(guest, nowMs, wide))),
  );
};

const bootText = (boot: GuestView['boot']): string => {
  switch (boot.kind) {
    case 'disk':
      return 'disk';
    case 'kernel': {
      const { kernel, initrd, commandLine } = boot;
      const further = [initrd && `initrd ${initrd}`, commandLine && `"${commandLine}"`];
      return [`kernel ${kernel}`, ...further].filter(Boolean).join(', ');
    }
    case 'root': {
      const { image, init, nesting, keepCapabilities, dropCapabilities } = boot;
      const further = [
        init && `init ${init.map(quoted).join(' ')}`,
        nesting && 'nesting',
        ...keepCapabilities.map((capability) => `+${capability}`),
        ...dropCapabilities.map((capability) => `-${capability}`),
      ];
      return [`root ${image}`, ...further].filter(Boolean).join(', ');
    }
  }
};

const cpuText = ({ count, topology, model }: GuestView['cpu']): string => {
  const arranged = topology
    ? ` (${topology.sockets} sockets × ${topology.cores} cores × ${topology.threads} threads)`
    : '';
  return `${count}${arranged}, model ${model}`;
};

const limitsText = (limits: NonNullable<GuestView['limits']>): string => {
  const { processes, readBytesPerSecond: read, writeBytesPerSecond: write } = limits;
  return [
    processes !== undefined && `${processes} processes`,
    read !== undefined && `reads ${formatSize(read)}/s`,
    write !== undefined && `writes ${formatSize(write)}/s`,
  ]
    .filter(Boolean)
    .join(', ');
};

const idsText = ({ first, count }: NonNullable<GuestView['idRange']>): string =>
  `${first} to ${first + count - 1} of the host`;

/** What a machine is made of, and what a container has instead. */
const bodyFields = (guest: GuestView): [string, string | undefined][] =>
  guest.boot.kind === 'root'
    ? [
        ['CPUs', String(guest.cpu.count)],
        ['Memory', formatSize(guest.memoryBytes)],
        ['Limits', guest.limits && limitsText(guest.limits)],
        ['Boot', bootText(guest.boot)],
        ['Ids', guest.idRange && idsText(guest.idRange)],
      ]
    : [
        ['CPUs', cpuText(guest.cpu)],
        ['Memory', formatSize(guest.memoryBytes)],
        ['Firmware', guest.firmware],
        ['Boot', bootText(guest.boot)],
      ];

const restartText = (guest: GuestView, nowMs: number): string => {
  const { when } = guest.restartPolicy;
  const next = guest.restarts.nextAt === undefined ? '' : `, next ${formatAge(guest.restarts.nextAt, nowMs)}`;
  return when === 'never' ? when : `${when} (${guest.restarts.count} restarts${next})`;
};

const autostartText = ({ enabled, order, delayMs }: GuestView['autostart']): string =>
  enabled ? `yes, order ${order}${delayMs > 0 ? `, then ${formatDuration(delayMs)} pause` : ''}` : 'no';

const exitText = (exit: NonNullable<GuestView['lastExit']>, nowMs: number): string =>
  `${exit.cause}, ${formatAge(exit.at, nowMs)}${exit.detail === undefined ? '' : `: ${exit.detail}`}`;

const agentText = ({ agent, process }: GuestView, nowMs: number): string => {
  if (!agent.enabled) return 'no channel';
  if (process === undefined) return 'has a channel';
  const version = agent.version === undefined ? '' : `, version ${agent.version}`;
  return `${agent.state}${version}${agent.since === undefined ? '' : `, ${formatAge(agent.since, nowMs)}`}`;
};

const frozenText = ({ since, thawAt, error }: NonNullable<GuestView['frozen']>, nowMs: number): string =>
  `${formatAge(since, nowMs)}, thawed ${formatAge(thawAt, nowMs)}${error === undefined ? '' : `; the last try failed: ${error}`}`;

const statusFields = (guest: GuestView, nowMs: number): [string, string | undefined][] => [
  ['Name', guest.name],
  ['Id', guest.id],
  ['State', `${stateText(guest)}, seen ${formatAge(guest.observedAt, nowMs)}`],
  ['Silent since', guest.silentSince === undefined ? undefined : formatAge(guest.silentSince, nowMs)],
  [
    'Ready',
    guest.ready &&
      `${[guest.ready.kind, guest.ready.address].filter(Boolean).join(', ')}, ${formatAge(guest.ready.at, nowMs)}`,
  ],
  ['Target', `${guest.target}, by ${guest.targetActor}`],
  [
    'Operation',
    guest.operation && `${guest.operation.kind} ${guest.operation.id}, ${guest.operation.queued} behind it`,
  ],
  [
    'Process',
    guest.process &&
      `${guest.process.pid}, ${guest.process.accel}, started ${formatAge(guest.process.startedAt, nowMs)}`,
  ],
  ['Agent', agentText(guest, nowMs)],
  ['Frozen', guest.frozen && frozenText(guest.frozen, nowMs)],
  ['Last exit', guest.lastExit && exitText(guest.lastExit, nowMs)],
  ['Pending', guest.pendingChanges.join(', ')],
  ['Tainted', guest.tainted.join(', ')],
];

const cloudInitText = (told: NonNullable<GuestView['cloudInit']>): string =>
  [
    `host name ${told.hostname}`,
    told.user && `user ${told.user}`,
    told.sshKeys.length > 0 && `${told.sshKeys.length} SSH ${told.sshKeys.length === 1 ? 'key' : 'keys'}`,
    told.hasPassword && 'a password',
    told.userDataBytes !== undefined && `user-data of ${formatSize(told.userDataBytes)}`,
    told.metaDataBytes !== undefined && `meta-data of ${formatSize(told.metaDataBytes)}`,
    told.networkConfigBytes !== undefined && `network-config of ${formatSize(told.networkConfigBytes)}`,
    `instance ${told.instanceId}`,
  ]
    .filter(Boolean)
    .join(', ');

const templateText = ({ madeAt, waiting = 0 }: NonNullable<GuestView['template']>, nowMs: number): string => {
  const waits = waiting === 0 ? 'no fork waits' : `${waiting} ${waiting === 1 ? 'fork waits' : 'forks wait'}`;
  return `made ${formatAge(madeAt, nowMs)}, ${waits}`;
};

const settingFields = (guest: GuestView, nowMs: number): [string, string | undefined][] => [
  ['Description', guest.description],
  ['Labels', labelsText(guest.labels)],
  ['Driver', guest.driver],
  ['Machine', guest.machine],
  ...bodyFields(guest),
  ['Template', guest.template && templateText(guest.template, nowMs)],
  ['Fork of', guest.forkOf],
  ['Cloud-init', guest.cloudInit && cloudInitText(guest.cloudInit)],
  ['Accel', guest.boot.kind === 'root' ? undefined : guest.qemu.accel],
  ['Autostart', autostartText(guest.autostart)],
  ['Restart', restartText(guest, nowMs)],
  ['Stop timeout', formatDuration(guest.stopTimeoutMs)],
  ['Protected', guest.deleteProtection ? 'yes' : 'no'],
  ['Created', formatAge(guest.createdAt, nowMs)],
];

const indented = (lines: readonly string[]): string[] => lines.map((line) => `  ${line}`);

const diskTable = (title: string, disks: GuestView['disks'] | GuestView['keptDisks']): string[] =>
  disks.length === 0
    ? []
    : [
        title,
        ...indented(
          renderTable(
            ['name', 'size', 'image', 'mode', 'serial'],
            disks.map((disk) => [
              disk.name,
              formatSize(disk.sizeBytes),
              disk.image,
              disk.readOnly ? 'read-only' : 'read-write',
              disk.serial,
            ]),
          ),
        ),
      ];

export const printGuest = (guest: GuestView, nowMs: number): string[] => [
  ...renderFields([...statusFields(guest, nowMs), ...settingFields(guest, nowMs)]),
  ...diskTable('Disks:', guest.disks),
  ...filesystemTable(guest, nowMs),
  ...diskTable('Disks put aside:', guest.keptDisks),
  ...(guest.cdroms.length === 0
    ? []
    : [
        'CD-ROM drives:',
        ...indented(
          renderTable(
            ['name', 'image'],
            guest.cdroms.map((cdrom) => [cdrom.name, cdrom.image]),
          ),
        ),
      ]),
  ...(guest.nics.length === 0
    ? []
    : [
        'NICs:',
        ...indented(
          renderTable(
            ['name', 'network', 'mac', 'address'],
            guest.nics.map((nic) => [nic.name, nic.network, nic.mac, nicAddresses(nic).join(', ')]),
          ),
        ),
      ]),
];

/** Those that a guest has, or is to have. */
const filesystemTable = ({ filesystems = [] }: GuestView, nowMs: number): string[] =>
  filesystems.length === 0
    ? []
    : [
        'Directories of the host:',
        ...indented(
          renderTable(
            ['name', 'source', 'target', 'mode', 'given as', 'lost'],
            filesystems.map(({ name, source, target, readOnly, mode, lostAt }) => [
              name,
              source,
              target,
              readOnly ? 'read-only' : 'read-write',
              mode === 'copy' ? 'a copy: what is written does not come back' : 'shared',
              lostAt === undefined ? undefined : formatAge(lostAt, nowMs),
            ]),
          ),
        ),
      ];

/** Every argument on its own line, then what would be made on the host. */
export const printPlan = (plan: CommandReturn<'guest-plan'>): string[] => [
  ...plan.argv,
  '',
  ...renderTable(
    ['makes', 'name'],
    plan.objects.map((object) => [object.kind, object.name]),
  ),
];

/** The files of a seed one after the other, each under its name. */
export const printSeed = (files: CommandReturn<'query-guest-cloud-init'>): string[] =>
  Object.entries(files).flatMap(([name, text]) => [
    `==> ${name} <==`,
    ...String(text).trimEnd().split('\n'),
    '',
  ]);
