/**
 * How the tools of a build are run, as argv. Pure.
 *
 * What is trusted is what Debian signed: the packages' own scripts run as root in a chroot. What they are kept from is
 * the rest of the host by mistake: mounts, processes, host name and shared memory are those of a namespace that goes
 * with the tool, and what has no business in a build (modules, the clock, the network's settings, raw devices) is taken
 * out of the bounding set. A chroot is no wall against root, so this holds off accidents, not attacks.
 *
 * Nothing outlives the daemon: the kernel kills the tool when the daemon's process ends, and with the tool, the first
 * process of its namespace, all that it started.
 */

/** `root`: the daemon is root · `mapped`: a user's, with the ids that /etc/subuid gives to that user. */
export type Privileges = 'root' | 'mapped';

const KEPT_CAPABILITIES = [
  'chown',
  'dac_override',
  'dac_read_search',
  'fowner',
  'fsetid',
  'kill',
  'setgid',
  'setuid',
  'setpcap',
  'sys_chroot',
  'sys_admin',
  'mknod',
  'audit_write',
  'setfcap',
];

export const confined = (privileges: Privileges, argv: readonly string[]): readonly [string, ...string[]] => [
  'setpriv',
  '--pdeathsig',
  'KILL',
  ...(privileges === 'root'
    ? ['--bounding-set', ['-all', ...KEPT_CAPABILITIES.map((name) => `+${name}`)].join(',')]
    : []),
  '--',
  'unshare',
  ...(privileges === 'mapped' ? ['--user', '--map-root-user', '--map-auto'] : []),
  '--mount',
  '--pid',
  '--ipc',
  '--uts',
  '--fork',
  '--kill-child=KILL',
  '--',
  ...argv,
];
