/**
 * What is run and written in a Linux guest so that a fork of it becomes itself: from data alone, one argument after the
 * other and no shell. test/golden/full-forks holds all of it.
 */
import type { ForkIdentity } from '../../driver.ts';

/** A program in the guest, found in its PATH. */
export interface GuestProgram {
  readonly argv: readonly [string, ...string[]];
  readonly input?: Buffer;
}

export interface GuestText {
  readonly path: string;
  /** By a mode of fopen(3): `r+` where only what is there is written over. */
  readonly mode: 'w' | 'r+';
  readonly text: string;
}

type Link = ForkIdentity['links'][number];

/** In memory: whoever has it has the memory of the template. */
export const TOKEN_DIRECTORY = '/run';
export const TOKEN_PATH = `${TOKEN_DIRECTORY}/roost-fork-token`;
export const MOUNTS_PATH = '/proc/mounts';
export const MACHINE_ID_PATH = '/etc/machine-id';

/** Commands of the agent that all of this takes. */
export const neededCommands = [
  'guest-exec',
  'guest-exec-status',
  'guest-file-open',
  'guest-file-read',
  'guest-file-write',
  'guest-file-close',
  'guest-get-time',
  'guest-network-get-interfaces',
  'guest-set-time',
] as const;

/**
 * linux/random.h: RNDADDENTROPY credits bytes, RNDRESEEDCRNG lets the generator take them at once. A write to
 * /dev/urandom alone would count with its next reseeding, a minute later.
 */
const PERL = [
  'binmode STDIN',
  'local $/',
  'my $seed = <STDIN>',
  'open(my $random, ">", "/dev/urandom") or die "$!\\n"',
  'ioctl($random, 0x40085203, pack("ii", 8 * length $seed, length $seed) . $seed) or die "$!\\n"',
  'ioctl($random, 0x5207, 0) or die "$!\\n"',
].join('; ');
const PYTHON = [
  'import fcntl, struct, sys',
  'seed = sys.stdin.buffer.read()',
  'random = open("/dev/urandom", "wb", 0)',
  'fcntl.ioctl(random, 0x40085203, struct.pack("ii", 8 * len(seed), len(seed)) + seed)',
  'fcntl.ioctl(random, 0x5207)',
].join('; ');

/** Each does the whole of it; a guest has one or the other. */
export const reseedPrograms = (seed: Buffer): readonly GuestProgram[] => [
  { argv: ['perl', '-e', PERL], input: seed },
  { argv: ['python3', '-c', PYTHON], input: seed },
];

export const hostnameTexts = ({ hostname }: Pick<ForkIdentity, 'hostname'>): readonly GuestText[] => [
  { path: '/proc/sys/kernel/hostname', mode: 'w', text: hostname },
  { path: '/etc/hostname', mode: 'w', text: `${hostname}\n` },
];

export const machineIdText = ({ machineId }: Pick<ForkIdentity, 'machineId'>): GuestText => ({
  path: MACHINE_ID_PATH,
  mode: 'r+',
  text: `${machineId}\n`,
});

/** Down for a moment, so that the kernel makes another link-local address of it. */
export const macPrograms = (name: string, { mac }: Pick<Link, 'mac'>): readonly GuestProgram[] => [
  { argv: ['ip', 'link', 'set', 'dev', name, 'down', 'address', mac] },
  { argv: ['ip', 'link', 'set', 'dev', name, 'up'] },
];

/**
 * Those that keep the machine-id, or what a network has given the template, as long as they run. Of others nothing is
 * done, and whoever has none of them goes without.
 */
export const restartServices: GuestProgram = {
  argv: [
    'systemctl',
    '--no-block',
    'try-restart',
    'systemd-journald.service',
    'systemd-networkd.service',
    'NetworkManager.service',
    'networking.service',
  ],
};

/** For an interface that nobody in the guest gives its addresses. */
export const addressPrograms = (name: string, { addresses, gateway }: Link): readonly GuestProgram[] => [
  { argv: ['ip', '-4', 'address', 'flush', 'dev', name, 'scope', 'global'] },
  ...addresses.map((address): GuestProgram => ({ argv: ['ip', 'address', 'add', address, 'dev', name] })),
  ...(gateway === undefined
    ? []
    : [{ argv: ['ip', 'route', 'replace', 'default', 'via', gateway, 'dev', name] } satisfies GuestProgram]),
];

/** Whether what lies in a directory lies in memory alone, by the guest's own table of mounts (proc(5)). */
export const isInMemory = (directory: string, mounts: string): boolean =>
  mounts
    .split('\n')
    .map((line) => line.split(' '))
    .findLast(([, where]) => where === directory)?.[2] === 'tmpfs';
