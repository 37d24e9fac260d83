/**
 * The smallest system that a container can run: busybox, and an init that is a shell script. An archive of 2 MB, made in
 * a tenth of a second, as an image of kind `root` comes from outside.
 *
 * Its init says `busybox is up` on the console, ends with 0 at SIGPWR and starts anew at SIGINT, as liblxc asks inits that
 * are not systemd. In /bin is what busybox has, `sh`, `ip`, `ping` and `udhcpc` among it; the latter's script is where it is
 * looked for, /etc/udhcpc/default.script, and wants to be named with `-s`.
 */
import { execFileSync } from 'node:child_process';
import { chmod, copyFile, mkdir, symlink, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { tool } from './oci-layout.ts';

export type RootPacking = 'none' | 'gzip' | 'xz' | 'zstd';

export const BUSYBOX_READY = 'busybox is up';

/** A shell waits for its child with its traps at hand; while `sleep` itself ran they would have to wait. */
const INIT = `#!/bin/sh
trap 'echo busybox goes down; exit 0' PWR
trap 'exec /sbin/init' INT
echo ${BUSYBOX_READY}
while :; do
  sleep 3600 &
  wait $!
done
`;

const files: Readonly<Record<string, string>> = {
  'etc/passwd': 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n',
  'etc/group': 'root:x:0:\nnogroup:x:65534:\n',
  'etc/hosts': '127.0.0.1 localhost\n',
};

const directories = ['bin', 'dev', 'etc/udhcpc', 'proc', 'root', 'run', 'sbin', 'sys', 'tmp', 'var'];

const dhcpScript = resolve(
  import.meta.dirname,
  '../../tools/small-image/userland/small/etc/udhcpc/default.script',
);

const packers: Readonly<Record<RootPacking, readonly string[]>> = {
  none: [],
  gzip: ['--gzip'],
  xz: ['--xz'],
  zstd: ['--zstd'],
};

/** Puts the tree into a new directory. */
export const makeBusyboxTree = async (root: string): Promise<void> => {
  await mkdir(root);
  for (const path of directories) await mkdir(join(root, path), { recursive: true });
  const busybox = execFileSync('which', ['busybox'], { encoding: 'utf8' }).trim();
  await copyFile(busybox, join(root, 'bin/busybox'));
  for (const applet of (await tool([busybox, '--list'])).split('\n'))
    if (applet !== '' && applet !== 'busybox') await symlink('busybox', join(root, 'bin', applet));
  for (const [path, text] of Object.entries(files)) await writeFile(join(root, path), text);
  await symlink('../run/resolv.conf', join(root, 'etc/resolv.conf'));
  await copyFile(dhcpScript, join(root, 'etc/udhcpc/default.script'));
  await writeFile(join(root, 'sbin/init'), INIT);
  for (const path of ['etc/udhcpc/default.script', 'sbin/init', 'bin/busybox'])
    await chmod(join(root, path), 0o755);
  await chmod(join(root, 'tmp'), 0o1777);
};

/** Makes the archive in a directory, beside the tree `busybox`, and gives its path. */
export const busyboxRoot = async (directory: string, packing: RootPacking = 'none'): Promise<string> => {
  const root = join(directory, 'busybox');
  await makeBusyboxTree(root);
  const archive = join(directory, packing === 'none' ? 'busybox.tar' : `busybox.tar.${packing}`);
  await tool([
    'tar',
    '--create',
    `--file=${archive}`,
    ...packers[packing],
    '--owner=0',
    '--group=0',
    '--numeric-owner',
    '--sort=name',
    `--directory=${root}`,
    '.',
  ]);
  return archive;
};
