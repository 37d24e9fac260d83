/**
 * What a test needs of the machine. A test whose need is not met is skipped aloud: the reason stands in its title, so
 * that every report has it.
 */
import { accessSync, constants, existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { describe } from 'vitest';

const isRoot = process.getuid?.() === 0;

function canOpen(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin'];
const hasProgram = (name: string): boolean => folders.some((folder) => existsSync(join(folder, name)));
const program = (name: string) => (): string | undefined =>
  hasProgram(name) ? undefined : `${name} is not installed`;

/** Each gives the reason why it is not met, or undefined. */
const needs = {
  root: () => (isRoot ? undefined : `needs root, this is uid ${process.getuid?.()}`),
  'no-root': () => (isRoot ? 'needs a user who is not root' : undefined),
  kvm: () => (canOpen('/dev/kvm') ? undefined : '/dev/kvm cannot be opened'),
  tun: () => (existsSync('/dev/net/tun') ? undefined : 'there is no /dev/net/tun'),
  ovmf: () => (existsSync('/usr/share/OVMF/OVMF_CODE_4M.fd') ? undefined : 'ovmf is not installed'),
  qemu: program('qemu-system-x86_64'),
  'qemu-img': program('qemu-img'),
  'qemu-storage-daemon': program('qemu-storage-daemon'),
  virtiofsd: () =>
    existsSync('/usr/lib/qemu/virtiofsd') ? undefined : '/usr/lib/qemu/virtiofsd is not installed',
  fuse: () => (canOpen('/dev/fuse') ? undefined : '/dev/fuse cannot be opened'),
  nft: program('nft'),
  ip: program('ip'),
  dnsmasq: program('dnsmasq'),
  mmdebstrap: program('mmdebstrap'),
  ssh: program('ssh'),
  'systemd-analyze': program('systemd-analyze'),
  'dpkg-deb': program('dpkg-deb'),
  umoci: program('umoci'),
  sqfstar: program('sqfstar'),
  lxc: program('lxc-start'),
  lxcfs: program('lxcfs'),
  skopeo: program('skopeo'),
  'docker-registry': program('docker-registry'),
} as const satisfies Record<string, () => string | undefined>;

export type Need = keyof typeof needs;

/** Why the machine lacks one of the needs; undefined when it has them all. */
export function unmet(...wanted: readonly Need[]): string | undefined {
  for (const need of wanted) {
    const reason = needs[need]();
    if (reason !== undefined) return reason;
  }
  return undefined;
}

/** `describe`, skipped with the reason in its title when a need is not met. */
export function describeWith(wanted: readonly Need[], title: string, body: () => void): void {
  const reason = unmet(...wanted);
  // oxlint-disable-next-line vitest/valid-describe-callback, vitest/valid-title -- this is a wrapper of it
  describe.skipIf(reason !== undefined)(reason === undefined ? title : `${title} (skipped: ${reason})`, body);
}
