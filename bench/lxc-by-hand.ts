/**
 * A container as one would run it by liblxc's own programs: the configuration that Roost wrote for an equal one, with the
 * same files as its root, in a directory. Only the groups are its own.
 */
import { execFile } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { wardenPath } from '../native/index.ts';
import { makeBusyboxTree } from '../test/harness/busybox-root.ts';

const run = promisify(execFile);
const NAME = 'by-hand';
const GROUP = 'roost-bench-by-hand';
/** Where liblxc's programs keep their own locks; in the bench it is thrown away with the bench. */
const LIBLXC_RUN = '/run/lxc';

export interface LxcByHand {
  /** `lxc-start`, which is over when the container runs. */
  start(): Promise<void>;
  /** `lxc-attach … -- true`. */
  attach(): Promise<void>;
  /** `lxc-stop -k`. */
  stop(): Promise<void>;
  close(): Promise<void>;
}

/** `configuration`: of a container that Roost has run, which is stopped; `group`: what its groups are below. */
export const prepareByHand = async (
  scratch: string,
  { configuration, group }: { readonly configuration: string; readonly group: string },
): Promise<LxcByHand> => {
  const path = join(scratch, 'lxc');
  const tree = join(path, 'root');
  await mkdir(join(path, NAME), { recursive: true });
  await makeBusyboxTree(tree);
  const written = await readFile(configuration, 'utf8');
  const own = [`lxc.rootfs.path = dir:${tree}`, 'lxc.rootfs.options = idmap=container', ''].join('\n');
  await writeFile(join(path, NAME, 'config'), written.replaceAll(group, GROUP) + own);
  await mkdir(LIBLXC_RUN, { recursive: true });
  await run('mount', ['-t', 'tmpfs', 'none', LIBLXC_RUN]);
  const program = async (name: string, ...args: readonly string[]): Promise<void> => {
    await run(name, ['-P', path, '-n', NAME, ...args]);
  };
  return {
    start: () => program('lxc-start'),
    attach: () => program('lxc-attach', '--clear-env', '--', '/bin/true'),
    stop: () => program('lxc-stop', '-k'),
    // liblxc leaves a group in each hierarchy.
    close: async () => {
      await run(wardenPath(), ['--clear', '--cgroup', GROUP]);
      await run('umount', [LIBLXC_RUN]);
    },
  };
};
