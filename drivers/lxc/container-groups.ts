/**
 * The control groups of a container, in every hierarchy of the host: listed, limited, and removed with what is in them. Where
 * systemd is the service manager its warden has a scope besides, as every guest's process; the container's own groups are
 * liblxc's, at the root of the hierarchy, which systemd leaves alone.
 */
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type ControlGroups, noGroups } from '../../lib/control-groups.ts';
import { ExecError } from '../../lib/exec-result.ts';
import { runTool } from '../../lib/run-tool.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { HostObject } from '../../protocol/host-object.ts';
import type { InstanceId } from '../../protocol/types.ts';
import type { GuestPlace, Launch } from '../driver.ts';
import { groupPrefix, isGuestGroup } from '../processes/guest-files.ts';
import { GuestGroups } from '../processes/guest-groups.ts';
import type { ProcessGroups } from '../processes/process-driver.ts';
import { removeProfiles } from './apparmor-profiles.ts';
import { containerGroup, PAYLOAD } from './container-files.ts';
import { hierarchies } from './host-facts.ts';
import { inOrder, type LimitFile } from './limits.ts';

/** Processes that were killed may have to let go of their memory first. */
const CLEAR_TIMEOUT_MS = 60_000;

export class ContainerGroups implements ProcessGroups {
  readonly #wardenPath: string;
  readonly #scopes: GuestGroups;

  /** Of `groups` only scopes are used: plain ones would be the container's own. */
  constructor(wardenPath: string, groups: ControlGroups | undefined) {
    this.#wardenPath = wardenPath;
    this.#scopes = new GuestGroups(groups?.kind === 'scope' ? groups : noGroups('systemd has none'));
  }

  objects(place: GuestPlace): readonly HostObject[] {
    const name = containerGroup(place);
    return [
      ...hierarchies().map(({ mount }): HostObject => ({ kind: 'cgroup', name: join(mount, name) })),
      ...this.#scopes.objects(place),
    ];
  }

  /** What stands before the warden on its command line. */
  argv(launch: Pick<Launch, 'place' | 'name'>): readonly string[] {
    return this.#scopes.membership(launch).groupArgv;
  }

  /** What is below them is liblxc's to make. */
  around(place: GuestPlace): ReturnType<ProcessGroups['around']> {
    return {
      prepare: () => this.#prepare(place),
      join: async () => undefined,
      remove: () => this.remove(place),
    };
  }

  /**
   * Thaws the container and ends all that is in it, if there is anything, then removes the groups, and what held those who
   * were in them. May be done again.
   * Errors: HostError while something is left.
   */
  async remove(place: GuestPlace): Promise<void> {
    // Nobody is in groups that are not there; an end is followed by another look, which mostly finds nothing.
    if (this.objects(place).some((group) => existsSync(group.name))) await this.#clear(place);
    await this.#scopes.remove(place);
    await removeProfiles(place.id);
  }

  async #clear(place: GuestPlace): Promise<void> {
    const name = containerGroup(place);
    try {
      const argv = [this.#wardenPath, '--clear', '--cgroup', name] as const;
      // Bounded by itself, and what it belongs to cannot be given up.
      await runTool(argv, { signal: new AbortController().signal, timeoutMs: CLEAR_TIMEOUT_MS });
    } catch (error) {
      const said = error instanceof ExecError ? error.stderr.trim() : String(error);
      throw new RoostError('HostError', `The control groups ${name} could not be removed: ${said}`, {
        cause: error,
        data: { guest: place.id },
        hint: 'See which processes are in them; fsck-repair removes them once they are empty.',
      });
    }
  }

  async list(instance: InstanceId): Promise<readonly HostObject[]> {
    const prefix = groupPrefix(instance);
    const found = hierarchies().map(async ({ mount }) =>
      (await readdir(mount).catch(() => []))
        .filter((name) => name.startsWith(prefix) && isGuestGroup(name))
        .map((name): HostObject => ({ kind: 'cgroup', name: join(mount, name) })),
    );
    return [...(await Promise.all(found)).flat(), ...(await this.#scopes.list(instance))];
  }

  /** Errors: ResourceExhausted where more is used already and cannot be given back, HostError. */
  async limit(place: GuestPlace, files: readonly LimitFile[], memoryBytes: number): Promise<void> {
    const pathOf = ({ version, controller, file }: LimitFile): string | undefined => {
      const found = hierarchies().find(
        (each) => each.version === version && each.controllers.includes(controller),
      );
      return found && join(found.mount, containerGroup(place), PAYLOAD, `${controller}.${file}`);
    };
    const memory = files.find(({ controller }) => controller === 'memory');
    const path = memory && pathOf(memory);
    const before = path === undefined ? undefined : Number(await readFile(path, 'utf8').catch(() => 'NaN'));
    if (memory?.version === 2 && path !== undefined) refuseUsed(path, memoryBytes);
    for (const file of inOrder(files, before !== undefined && before < memoryBytes)) {
      const at = pathOf(file);
      if (at !== undefined) await write(at, file);
    }
  }

  async #prepare(place: GuestPlace): Promise<void> {
    const made = hierarchies().map(async ({ mount, version, controllers }) => {
      const group = join(mount, containerGroup(place));
      await mkdir(group, { recursive: true });
      if (version === 1 && controllers.includes('cpuset')) await inheritCpus(mount, group);
    });
    // All of them have come to an end before they may be taken away again.
    for (const one of await Promise.allSettled(made)) if (one.status === 'rejected') throw one.reason;
  }

  /** Number of the container's init on the host; undefined while it has none. */
  async initOf(place: GuestPlace): Promise<number | undefined> {
    for (const { mount } of hierarchies()) {
      const group = join(mount, containerGroup(place), PAYLOAD);
      for (const directory of ['guest/init.scope', 'guest']) {
        const text = await readFile(join(group, directory, 'cgroup.procs'), 'utf8').catch(() => '');
        for (const pid of text.split('\n').filter(Boolean)) if (await isInit(pid)) return Number(pid);
      }
    }
    return undefined;
  }
}

/** In version 1 a new group of cpuset has neither CPUs nor memory, and no process can be in it. */
const inheritCpus = async (from: string, group: string): Promise<void> => {
  for (const name of ['cpuset.cpus', 'cpuset.mems'])
    await writeFile(join(group, name), await readFile(join(from, name), 'utf8'));
};

/** By NSpid of proc(5): its number is 1 in the namespace below the host's. */
const isInit = async (pid: string): Promise<boolean> => {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
  return /^NSpid:\t\d+\t1$/m.test(status);
};

/** Version 2 sets a limit below what is used, and kills for it. */
const refuseUsed = (path: string, memoryBytes: number): void => {
  const used = Number(readFileSync(path.replace(/max$/, 'current'), 'utf8'));
  if (used > memoryBytes) throw inUse(memoryBytes);
};

const inUse = (memoryBytes: number, cause?: unknown): RoostError =>
  new RoostError('ResourceExhausted', `The container uses more than ${memoryBytes} bytes of memory`, {
    cause,
    data: { memoryBytes },
    hint: 'Ask for more, or end some of what runs in it.',
  });

const write = async (path: string, { value, file }: LimitFile): Promise<void> => {
  try {
    await writeFile(path, value);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    // A kernel that does not account for swap has no such file.
    if (code === 'ENOENT' && file.includes('sw')) return;
    if (code === 'EBUSY') throw inUse(Number(value), error);
    throw new RoostError('HostError', `The limit ${value} could not be set in ${path}`, {
      cause: error,
      data: { path, value },
      hint: 'See whether the container runs, and who else manages control groups on this host.',
    });
  }
};
