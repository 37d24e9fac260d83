/**
 * Command lines of tools that read what strangers wrote: behind the launcher, as an identity that owns nothing, under
 * limits, and dead as soon as the daemon is, so that none goes on writing where the next daemon works.
 */

/** An identity that owns nothing. */
export interface Identity {
  readonly uid: number;
  readonly gid: number;
}

export interface Confinement {
  /** Path of roost-launcher. */
  readonly launcherPath: string;
  /** Absent where the daemon has no privileges: then the tool runs as the daemon. */
  readonly identity?: Identity | undefined;
}

/**
 * `tool` is a path, for the launcher searches none. Longest file that the tool may write in bytes, and its address space where
 * that is bounded; `options`: further ones of the launcher.
 */
export const confined = (
  tool: readonly [string, ...string[]],
  { launcherPath, identity }: Confinement,
  maxFileBytes: number,
  {
    maxMemoryBytes,
    options = [],
  }: { readonly maxMemoryBytes?: number | undefined; readonly options?: readonly string[] } = {},
): [string, ...string[]] => {
  const identityOptions =
    identity === undefined
      ? []
      : ['--uid', `${identity.uid}`, '--gid', `${identity.gid}`, '--groups', `${identity.gid}`];
  // No core, few descriptors; threads count against nproc, and qemu-img's pool may have 64. Without an identity of its
  // own the tool shares nproc with all else of its user.
  const limits = [
    'core=0:0',
    'nofile=256:256',
    `fsize=${maxFileBytes}:${maxFileBytes}`,
    ...(maxMemoryBytes === undefined ? [] : [`as=${maxMemoryBytes}:${maxMemoryBytes}`]),
    ...(identity === undefined ? [] : ['nproc=128:128']),
  ];
  return [
    launcherPath,
    ...identityOptions,
    ...limits.flatMap((limit) => ['--rlimit', limit]),
    ...options,
    '--die-with',
    `${process.pid}`,
    '--',
    ...tool,
  ];
};
