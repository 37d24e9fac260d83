/**
 * Control groups for processes that outlive us, one for each. Where systemd is the service manager, a group is a transient
 * scope in a slice of its own, so that systemd knows of it, accounts for it and stops it in order; elsewhere it is a plain
 * directory in a hierarchy that can be written, or there is none. Groups are known by computable names.
 *
 * A scope is made by `systemd-run --scope`, which becomes the program in the same process: whatever the program does
 * is accounted to its scope from the first byte, it waits for systemd's job, and it talks to systemd's own socket, so that
 * no message bus need run. See docs/decisions/0011-scopes-by-systemd-run.md.
 */
import { accessSync, constants, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdir, readdir, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ExecError } from './exec-result.ts';
import { runTool } from './run-tool.ts';

/** A group as it is on the host: a scope by its unit's name, a directory by its path. */
export interface GroupObject {
  readonly kind: 'scope' | 'cgroup';
  readonly name: string;
}

export interface ControlGroups {
  readonly kind: 'scope' | 'cgroup' | 'none';
  /** For people: why these and no better ones. */
  readonly why: string;
  /** The group of this name on the host; undefined where there are none. */
  object(name: string): GroupObject | undefined;
  /** Arguments in front of a program's own, by which its process becomes a member before it runs. */
  argv(name: string, description: string): readonly string[];
  /** Makes what has to be there before the process. May be done again. */
  prepare(name: string): Promise<void>;
  /**
   * Puts a process into the group that was prepared, with all its threads; nothing to do where `argv` does it, or when the
   * process is gone. The kernel may take some milliseconds (a grace period of RCU), in which the process runs on.
   * Errors: ErrnoException.
   */
  join(name: string, pid: number): Promise<void>;
  /** Directory of the group that was prepared, by which a process makes itself a member; undefined where `argv` does. */
  directory(name: string): string | undefined;
  /** Takes the group away once its process is gone. May be done again. Errors: ExecError, ErrnoException. */
  remove(name: string, signal: AbortSignal): Promise<void>;
  /** Groups whose names begin so. */
  list(prefix: string): Promise<readonly GroupObject[]>;
}

export const noGroups = (why: string): ControlGroups => ({
  kind: 'none',
  why,
  object: () => undefined,
  argv: () => [],
  prepare: async () => undefined,
  join: async () => undefined,
  directory: () => undefined,
  remove: async () => undefined,
  list: async () => [],
});

const SLICE = 'roost.slice';
const SYSTEMD_RUN = '/usr/bin/systemd-run';
/** Shuts guests down with the host: it has to stop before what it needs, and before what it shuts down. */
const SHUTDOWN_UNIT = 'roost-guests.service';
/** systemctl(1): the unit is not loaded, so it is gone. */
const NOT_LOADED = 5;
const STOP_TIMEOUT_MS = 30_000;

/** Where systemd keeps its own hierarchy: alone, beside controllers of version 1, or as one of those. */
const systemdHierarchies = ['/sys/fs/cgroup', '/sys/fs/cgroup/unified', '/sys/fs/cgroup/systemd'];

export const systemdScopes = (): ControlGroups => {
  const unit = (name: string): string => `${name}.scope`;
  return {
    kind: 'scope',
    why: `systemd is the service manager: each guest has a scope of its own in ${SLICE}`,
    object: (name) => ({ kind: 'scope', name: unit(name) }),
    argv: (name, description) => [
      SYSTEMD_RUN,
      '--scope',
      '--quiet',
      // Forgotten as soon as it has ended, also when it ended badly, so that the next run finds the name free.
      '--collect',
      `--unit=${unit(name)}`,
      `--slice=${SLICE}`,
      `--description=${description}`,
      `--property=Before=${SHUTDOWN_UNIT}`,
      '--property=TasksMax=infinity',
      '--',
    ],
    prepare: async () => undefined,
    join: async () => undefined,
    directory: () => undefined,
    remove: async (name, signal) => {
      try {
        // Waits until systemd has noticed: a name that is still loaded could not be used again.
        await runTool(['systemctl', 'stop', '--quiet', unit(name)], { signal, timeoutMs: STOP_TIMEOUT_MS });
      } catch (error) {
        if (!(error instanceof ExecError && error.exitCode === NOT_LOADED)) throw error;
      }
    },
    list: async (prefix) => {
      const names = new Set<string>();
      for (const root of systemdHierarchies)
        for (const name of await readdir(join(root, SLICE)).catch(() => []))
          if (name.startsWith(prefix) && name.endsWith('.scope')) names.add(name);
      return [...names].map((name) => ({ kind: 'scope', name }));
    },
  };
};

/** Plain groups, directly below the mount of a hierarchy. */
export const plainGroups = ({
  mount,
  why,
}: {
  readonly mount: string;
  readonly why: string;
}): ControlGroups => {
  const pathOf = (name: string): string => join(mount, name);
  return {
    kind: 'cgroup',
    why,
    object: (name) => ({ kind: 'cgroup', name: pathOf(name) }),
    argv: () => [],
    prepare: async (name) => {
      await mkdir(pathOf(name), { recursive: true });
    },
    join: async (name, pid) => {
      try {
        await writeFile(join(pathOf(name), 'cgroup.procs'), String(pid));
      } catch (error) {
        if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
      }
    },
    directory: pathOf,
    remove: async (name) => {
      try {
        await rmdir(pathOf(name));
      } catch (error) {
        if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error;
      }
    },
    list: async (prefix) =>
      (await readdir(mount).catch(() => []))
        .filter((name) => name.startsWith(prefix))
        .map((name) => ({ kind: 'cgroup', name: pathOf(name) })),
  };
};

export interface Hierarchy {
  readonly mount: string;
  readonly version: 1 | 2;
  /** Of version 1: those that it is mounted with; of version 2: those that it offers. */
  readonly controllers: readonly string[];
}

/** Hierarchies that are mounted for writing, from the text of /proc/self/mountinfo (proc(5)). Pure. */
export const writableHierarchies = (
  mountinfo: string,
  controllersAt: (mount: string) => readonly string[],
): readonly Hierarchy[] =>
  mountinfo.split('\n').flatMap((line): readonly Hierarchy[] => {
    const [before = '', after = ''] = line.split(' - ');
    const [, , , , mount, options = ''] = before.split(' ');
    const [type, , superOptions = ''] = after.split(' ');
    const all = [...options.split(','), ...superOptions.split(',')];
    if (mount === undefined || all.includes('ro')) return [];
    if (type === 'cgroup2') return [{ mount, version: 2, controllers: controllersAt(mount) }];
    if (type === 'cgroup') return [{ mount, version: 1, controllers: superOptions.split(',') }];
    return [];
  });

/** The hierarchy that accounts for memory, or else one that at least tells which processes belong together. Pure. */
export const chooseHierarchy = (hierarchies: readonly Hierarchy[]): Hierarchy | undefined => {
  const accounting = hierarchies.filter(({ controllers }) => controllers.includes('memory'));
  const newestFirst = (a: Hierarchy, b: Hierarchy): number => b.version - a.version;
  return accounting.toSorted(newestFirst)[0] ?? hierarchies.find(({ version }) => version === 2);
};

const controllersOf = (mount: string): readonly string[] => {
  try {
    return readFileSync(join(mount, 'cgroup.controllers'), 'utf8').trim().split(/\s+/).filter(Boolean);
  } catch {
    return [];
  }
};

const canWrite = (path: string): boolean => {
  try {
    accessSync(path, constants.W_OK);
    return true;
  } catch {
    return false;
  }
};

/** Children of the root account for nothing until it is told which controllers they get. */
const delegate = ({ mount, version, controllers }: Hierarchy): void => {
  if (version === 1) return;
  const wanted = ['memory', 'cpu', 'pids'].filter((name) => controllers.includes(name));
  // In a container whose own processes are in its root this is refused; then the groups only tell who belongs together.
  for (const name of wanted) {
    try {
      writeFileSync(join(mount, 'cgroup.subtree_control'), `+${name}`);
    } catch {
      // The others may be given.
    }
  }
};

/** What this host gives. */
export const hostControlGroups = (): ControlGroups => {
  if (process.getuid?.() !== 0) return noGroups('the daemon does not run as root');
  // sd_booted(3)
  if (existsSync('/run/systemd/system') && existsSync(SYSTEMD_RUN)) return systemdScopes();
  const mounted = writableHierarchies(readFileSync('/proc/self/mountinfo', 'utf8'), controllersOf);
  const chosen = chooseHierarchy(mounted.filter(({ mount }) => canWrite(mount)));
  if (chosen === undefined)
    return noGroups('systemd is not the service manager, and no control group hierarchy can be written');
  delegate(chosen);
  const { mount, version, controllers } = chosen;
  const gives = controllers.includes('memory')
    ? 'accounts for memory'
    : 'has no controllers, and only tracks processes';
  return plainGroups({
    mount,
    why: `systemd is not the service manager: plain control groups in ${mount} (version ${version}), which ${gives}`,
  });
};
