/** What is put into the tree of packages, and taken out of it again. Pure. */
import { type Action, inRoot, ROOT, run } from './actions.ts';

const OVERLAY = 'overlay';

export interface Settings {
  /** Text of each file, by its path in the tree. */
  readonly files: Readonly<Record<string, string>>;
  /** Directories besides those of the files. */
  readonly directories?: readonly string[];
  readonly enabledUnits?: readonly string[];
  readonly disabledUnits: readonly string[];
  /** Absolute paths in the tree. */
  readonly removed: readonly string[];
}

/** Lines of sources.list(5) for the system itself. */
export const guestSources = (suite: string): string =>
  [
    `deb http://deb.debian.org/debian ${suite} main`,
    `deb http://deb.debian.org/debian ${suite}-updates main`,
    `deb http://deb.debian.org/debian-security ${suite}-security main`,
    '',
  ].join('\n');

const parents = (paths: readonly string[]): readonly string[] => {
  const all = paths.flatMap((path) =>
    path
      .split('/')
      .slice(0, -1)
      .map((_, index, parts) => parts.slice(0, index + 1).join('/')),
  );
  return [...new Set(all)].sort();
};

/** What mmdebstrap, apt and the packages' scripts left that is of this build alone, or would be the same in each guest. */
const remains = [
  '/overlay.tar',
  // Of the host: systemd-resolved puts aside what mmdebstrap had copied.
  '/etc/.resolv.conf.systemd-resolved.bak',
  '/etc/apt/apt.conf.d/99mmdebstrap',
  '/etc/dpkg/dpkg.cfg.d/99mmdebstrap',
  '/var/lib/dbus/machine-id',
  '/var/lib/systemd/random-seed',
  '/var/log/apt',
  '/var/log/dpkg.log',
  '/var/log/alternatives.log',
] as const;

/**
 * The files get in through a tar(1) that runs in the chroot: a name there may be a link that leads out of it, seen
 * from outside.
 */
export const settings = ({
  files,
  directories = [],
  enabledUnits = [],
  disabledUnits,
  removed,
}: Settings): readonly Action[] => [
  ...[
    OVERLAY,
    ...parents([...Object.keys(files), ...directories.map((path) => `${path}/.`)]).map(
      (path) => `${OVERLAY}/${path}`,
    ),
  ].map((path): Action => ({ kind: 'directory', path })),
  ...Object.entries(files).map(
    ([path, text]): Action => ({ kind: 'file', path: `${OVERLAY}/${path}`, text }),
  ),
  { kind: 'link', path: `${OVERLAY}/etc/resolv.conf`, target: '../run/systemd/resolve/stub-resolv.conf' },
  // Whatever the daemon's umask.
  run(
    'files',
    'tar',
    '--create',
    `--file=${ROOT}/overlay.tar`,
    '--mode=u=rwX,go=rX',
    `--directory=${OVERLAY}`,
    '.',
  ),
  inRoot('files', 'tar', '--extract', '--file=/overlay.tar', '--directory=/', '--no-same-owner'),
  ...(enabledUnits.length === 0 ? [] : [inRoot('files', 'systemctl', '--quiet', 'enable', ...enabledUnits)]),
  inRoot('files', 'systemctl', '--quiet', 'disable', ...disabledUnits),
  inRoot('files', 'rm', '--recursive', '--force', ...remains, ...removed),
];
