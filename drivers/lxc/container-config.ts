/**
 * The configuration of a container (lxc.container.conf(5)), from data alone. Golden files under test/golden/lxc hold every
 * form of it. What is said to the warden on its command line (docs/warden.md) is not in here: the root file system, the
 * console, the log.
 */
import type { VethPort } from '../../protocol/net-port.ts';
import type { ContainerBoot, GuestPlace } from '../driver.ts';
import { containerGroup, PAYLOAD } from './container-files.ts';
import type { LimitFile } from './limits.ts';

export interface ContainerConfigInput {
  readonly place: Pick<GuestPlace, 'id' | 'instance'>;
  readonly name: string;
  readonly boot: Pick<ContainerBoot, 'idRange' | 'nesting' | 'keepCapabilities' | 'dropCapabilities'>;
  /** Names of the NICs in the guest, as it was pinned: `eth0`. */
  readonly nics: readonly { readonly name: string; readonly link: string; readonly port: VethPort }[];
  readonly limits: readonly LimitFile[];
  /** liblxc's filter of system calls; absent where it is not installed. */
  readonly seccompPath?: string;
  readonly hasAppArmor: boolean;
  /** Where lxcfs serves /proc with the container's limits; absent where it does not run. */
  readonly lxcfsPath?: string;
}

/** What not even root of a container has a use for, unless it asks. */
const DROPPED = ['mac_admin', 'mac_override', 'sys_time', 'sys_module', 'sys_rawio'];

/** Files that tell of the host's CPUs and memory, where nobody serves the container's own. */
const LXCFS_FILES = [
  'proc/cpuinfo',
  'proc/diskstats',
  'proc/loadavg',
  'proc/meminfo',
  'proc/stat',
  'proc/swaps',
  'proc/uptime',
  'sys/devices/system/cpu/online',
];

/** Directories of /sys with the names of the host's disks. */
const HIDDEN = ['sys/block', 'sys/class/block', 'sys/devices/virtual/block'];

type Line = readonly [key: string, value: string | number];

const groupLines = (place: ContainerConfigInput['place']): readonly Line[] => {
  const group = containerGroup(place);
  return [
    ['lxc.cgroup.dir.container', `${group}/${PAYLOAD}`],
    ['lxc.cgroup.dir.container.inner', 'guest'],
    ['lxc.cgroup.dir.monitor', `${group}/monitor`],
    ['lxc.cgroup.dir.monitor.pivot', `${group}/pivot`],
  ];
};

const limitLines = (limits: readonly LimitFile[]): readonly Line[] =>
  limits.map(({ version, controller, file, value }) => [
    `lxc.${version === 2 ? 'cgroup2' : 'cgroup'}.${controller}.${file}`,
    value,
  ]);

const capabilityLines = ({
  keepCapabilities,
  dropCapabilities,
}: Pick<ContainerBoot, 'keepCapabilities' | 'dropCapabilities'>): readonly Line[] => {
  const kept = new Set(keepCapabilities);
  const dropped = [...new Set([...DROPPED.filter((name) => !kept.has(name)), ...dropCapabilities])];
  return dropped.length === 0 ? [] : [['lxc.cap.drop', dropped.join(' ')]];
};

const securityLines = ({
  boot,
  seccompPath,
  hasAppArmor,
}: Pick<ContainerConfigInput, 'boot' | 'seccompPath' | 'hasAppArmor'>): readonly Line[] => [
  ...capabilityLines(boot),
  ...(seccompPath === undefined ? [] : [['lxc.seccomp.profile', seccompPath] as const]),
  ...(hasAppArmor ? [['lxc.apparmor.profile', 'generated'] as const] : []),
  ...(hasAppArmor && boot.nesting ? [['lxc.apparmor.allow_nesting', 1] as const] : []),
];

const mountLines = ({
  boot,
  lxcfsPath,
}: Pick<ContainerConfigInput, 'boot' | 'lxcfsPath'>): readonly Line[] => [
  ['lxc.mount.auto', 'cgroup:mixed proc:mixed sys:mixed'],
  ...HIDDEN.map((path): Line => ['lxc.mount.entry', `tmpfs ${path} tmpfs ro,size=4k,mode=755,optional 0 0`]),
  ...(lxcfsPath === undefined
    ? []
    : LXCFS_FILES.map(
        (file): Line => ['lxc.mount.entry', `${lxcfsPath}/${file} ${file} none bind,optional 0 0`],
      )),
  // Whole ones beside those that are covered in part: the kernel lets nobody mount them again who sees only such.
  ...(boot.nesting
    ? ([
        ['lxc.mount.entry', 'proc dev/.lxc/proc proc create=dir,optional 0 0'],
        ['lxc.mount.entry', 'sys dev/.lxc/sys sysfs create=dir,optional 0 0'],
      ] as const)
    : []),
];

/** Without any it would have those of the host. Of several the first has the way out: there is one default route. */
const nicLines = (nics: ContainerConfigInput['nics']): readonly Line[] => {
  const wayOut = nics.findIndex(({ port }) => port.ipv4?.gateway !== undefined);
  return nics.length === 0
    ? [['lxc.net.0.type', 'empty']]
    : nics.flatMap(({ link, port: { peer, ipv4 } }, index): readonly Line[] => {
        const key = `lxc.net.${index}`;
        return [
          [`${key}.type`, 'phys'],
          [`${key}.link`, peer],
          [`${key}.name`, link],
          [`${key}.flags`, 'up'],
          ...(ipv4 === undefined
            ? []
            : [[`${key}.ipv4.address`, `${ipv4.address}/${ipv4.prefixLength}`] as const]),
          ...(ipv4?.gateway === undefined || index !== wayOut
            ? []
            : [[`${key}.ipv4.gateway`, ipv4.gateway] as const]),
        ];
      });
};

/** The text of the file. */
export const containerConfig = (input: ContainerConfigInput): string => {
  const { place, name, boot, nics, limits } = input;
  const { first, count } = boot.idRange;
  const lines: readonly Line[] = [
    ['lxc.uts.name', name],
    ['lxc.idmap', `u 0 ${first} ${count}`],
    ['lxc.idmap', `g 0 ${first} ${count}`],
    ['lxc.autodev', 1],
    ['lxc.pty.max', 1024],
    ['lxc.tty.max', 0],
    ...mountLines(input),
    ...securityLines(input),
    ...groupLines(place),
    ...limitLines(limits),
    ...nicLines(nics),
  ];
  return [HEAD, ...nics.map(nicComment), ...lines.map(([key, value]) => `${key} = ${value}`), ''].join('\n');
};

const HEAD = '# Written by Roost at each start of the guest: changes made here are lost.';

const nicComment = ({ name, link }: { readonly name: string; readonly link: string }): string =>
  `# NIC ${name}: ${link}`;

/** Names of the NICs in the text that `containerConfig` made. */
export const nicsIn = (config: string): readonly string[] =>
  [...config.matchAll(/^# NIC (\S+): /gm)].map(([, name = '']) => name);

/** Name of the guest in the text that `containerConfig` made. */
export const nameIn = (config: string): string | undefined => /^lxc\.uts\.name = (.+)$/m.exec(config)?.[1];
