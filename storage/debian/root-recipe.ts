/**
 * The recipe of the root file system of a container: a Debian without kernel, boot loader and clock, whose systemd asks
 * for an address on eth0. Pure; test/golden/debian holds the whole of it.
 *
 * No name and no machine id are in it: systemd would prefer the image's to those that the container is given.
 */
import { type Action, inRoot, ROOT, run } from './actions.ts';
import { bootstrap, type RecipeInput } from './bootstrap.ts';
import { guestSources, settings } from './settings.ts';

export const ROOT_FILE = 'root.squashfs';

export const rootPackages = [
  'systemd-sysv',
  'systemd-resolved',
  'libnss-resolve',
  'dbus',
  'iproute2',
  'iputils-ping',
  'ca-certificates',
  'less',
  'nano',
] as const;

/** By its MAC address, as Roost's networks know it; the client identifier of systemd-networkd is another for each guest. */
const NETWORK = `[Match]
Name=eth0

[Network]
DHCP=yes

[DHCPv4]
ClientIdentifier=mac
`;

/** Neighbours are known by their bare names to the network's own DNS, which has to be asked for them. */
const RESOLVED_CONFIG = `[Resolve]
ResolveUnicastSingleLabel=yes
`;

const HOSTS = `127.0.0.1 localhost
::1 localhost ip6-localhost ip6-loopback
`;

const filesOf = (suite: string): Readonly<Record<string, string>> => ({
  'etc/default/locale': 'LANG=C.UTF-8\n',
  'etc/apt/sources.list': guestSources(suite),
  'etc/hosts': HOSTS,
  'etc/systemd/network/80-eth0.network': NETWORK,
  'etc/systemd/resolved.conf.d/90-roost.conf': RESOLVED_CONFIG,
  // Present and empty: systemd makes one at the first boot.
  'etc/machine-id': '',
});

/** An access control list is on it, which a squashfs cannot keep; systemd gives it one again. */
const JOURNAL = 'var/log/journal';

/** As disks of containers are packed; see storage/oci/tree/merge.ts. */
const pack: readonly Action[] = [
  inRoot('pack', 'find', '/dev', '-mindepth', '1', '-delete'),
  run(
    'pack',
    'mksquashfs',
    ROOT,
    ROOT_FILE,
    '-noappend',
    '-comp',
    'lz4',
    '-noI',
    '-noId',
    '-mem',
    '256M',
    '-no-progress',
    '-quiet',
    '-exit-on-error',
  ),
];

export const rootRecipe = (input: RecipeInput): readonly Action[] => [
  bootstrap(input, rootPackages),
  inRoot('files', 'rm', '--recursive', '--force', `/${JOURNAL}`),
  ...settings({
    files: filesOf(input.suite),
    directories: [JOURNAL],
    enabledUnits: ['systemd-networkd.service'],
    disabledUnits: ['apt-daily.timer', 'apt-daily-upgrade.timer'],
    removed: ['/etc/hostname'],
  }),
  ...pack,
];
