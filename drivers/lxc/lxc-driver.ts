/** The driver of containers: liblxc's `lxc-start` under a warden of ours (docs/warden.md), which speaks as QEMU does. */
import { readFileSync } from 'node:fs';
import { chmod, stat, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { ControlGroups } from '../../lib/control-groups.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { GuestSpec } from '../../protocol/guest.ts';
import type { HostObject } from '../../protocol/host-object.ts';
import { guestId, MEBIBYTE } from '../../protocol/types.ts';
import type {
  ContainerBoot,
  Driver,
  FoundProcess,
  GuestHandle,
  GuestLimits,
  GuestPlace,
  Launch,
  LaunchContext,
  LaunchPlan,
  PinnedMachine,
} from '../driver.ts';
import { commandLineOf, findProcesses, type Identify, valueAfter } from '../processes/find-processes.ts';
import { agentPath, lockPath, logPath, runObjects, streamsPath } from '../processes/guest-files.ts';
import { launchProcess } from '../processes/launch.ts';
import { type OpenedProcess, ProcessDriver, type ProcessDriverOptions } from '../processes/process-driver.ts';
import { whenFree } from '../processes/process-lock.ts';
import { ContainerAgent } from './container-agent.ts';
import { containerConfig, nameIn } from './container-config.ts';
import { configPath } from './container-files.ts';
import { ContainerGroups } from './container-groups.ts';
import { pinContainer } from './container-machine.ts';
import {
  controllersIn,
  diskOf,
  hasLiblxc,
  hasSecurityModule,
  hierarchies,
  protections,
} from './host-facts.ts';
import { wardenArgs } from './launch-args.ts';
import { type Controllers, limitFiles } from './limits.ts';
import { LxcGuest, lxcVerbs } from './lxc-guest.ts';
import { chooseLower, type Lower, type RootPlaces, tryMappedIds, whyNoLower } from './mapped-ids.ts';

export interface LxcDriverOptions extends ProcessDriverOptions {
  readonly wardenPath: string;
  /** Path of our init, which is the agent in each container. */
  readonly agentPath: string;
  readonly places: RootPlaces;
  /** Of the host; see `ContainerGroups`. */
  readonly groups?: ControlGroups;
  /** What roots lie on; found by trying unless given. */
  readonly lower?: Lower;
}

/** The warden, lxc-start, the agent, and what the kernel has for them. */
const OVERHEAD_BYTES = 16 * MEBIBYTE;
const ACCEL = 'lxc';
const NEEDED_CONTROLLERS = ['memory', 'cpu', 'pids'] as const;

export const lxcDriver = (options: LxcDriverOptions): Driver => new DriverOfLxc(options);

class DriverOfLxc extends ProcessDriver implements Driver {
  readonly name = 'lxc';
  readonly verbs = lxcVerbs;
  readonly nicEnd = 'veth';
  protected readonly program = 'roost-warden';
  protected readonly groups: ContainerGroups;
  readonly #options: LxcDriverOptions;
  /** Once it was found: a kernel stays what it is. */
  #lower: Lower | undefined;

  constructor(options: LxcDriverOptions) {
    super(options);
    this.#options = options;
    this.groups = new ContainerGroups(options.wardenPath, options.groups);
    this.#lower = options.lower;
  }

  async pin(spec: GuestSpec, _id: string, signal: AbortSignal): Promise<PinnedMachine> {
    signal.throwIfAborted();
    requireLiblxc();
    return pinContainer(spec);
  }

  async repin(spec: GuestSpec, machine: PinnedMachine, signal: AbortSignal): Promise<PinnedMachine> {
    signal.throwIfAborted();
    return pinContainer(spec, machine);
  }

  async needsTree(signal: AbortSignal): Promise<boolean> {
    return (await this.#findLower(signal)) === 'tree';
  }

  hotplugs(): boolean {
    return false;
  }

  overheadBytes(): number {
    return OVERHEAD_BYTES;
  }

  runObjects(place: GuestPlace, { agent }: Parameters<Driver['runObjects']>[1]): readonly HostObject[] {
    return [...runObjects(place, { agent, ownInit: agent }), ...this.groups.objects(place)];
  }

  async plan(launch: Launch, signal: AbortSignal): Promise<LaunchPlan> {
    signal.throwIfAborted();
    return {
      argv: await this.#commandLine(launch, bootOf(launch), signal),
      objects: this.runObjects(launch.place, launch),
    };
  }

  async launch(launch: Launch, { signal, observe }: LaunchContext): Promise<GuestHandle> {
    requireLiblxc();
    const { place, name } = launch;
    const boot = bootOf(launch);
    const transcript = this.transcripts.of(place);
    const spawning = {
      place,
      name,
      program: this.program,
      argv: await this.#commandLine(launch, boot, signal),
      group: this.groups.around(place),
      prepare: async () => {
        await letPass(dirname(place.runDirectory));
        await this.#writeConfig(launch, boot);
      },
      channels: launch.agent ? [agentPath(place.runDirectory), streamsPath(place.runDirectory)] : [],
    };
    const launched = launchProcess(spawning, signal, async ({ process, ended }) => {
      transcript.note(`launched as process ${process.identity.pid}`);
      const agent = this.#agentAt(place);
      const events = this.eventsOf(place, 0, agent.listening(observe));
      const waiting = AbortSignal.any([signal, ended]);
      const opened = await this.openProcess({ place, process, events, agent, observe }, waiting);
      return this.remember(place, this.#handle(opened, launch.agent));
    });
    try {
      return await launched;
    } catch (error) {
      await transcript.flush();
      throw error;
    }
  }

  override async destroy(place: GuestPlace, signal: AbortSignal): Promise<void> {
    await super.destroy(place, signal);
    await whenFree(lockPath(place));
  }

  processes(): Promise<readonly FoundProcess[]> {
    return findProcesses(identify, this.#options.stateRoot);
  }

  protected async agentOf(place: GuestPlace): Promise<ContainerAgent> {
    return this.#agentAt(place);
  }

  /** Errors: those of the monitor; the monitor is closed then. */
  protected async take(opened: OpenedProcess, signal: AbortSignal): Promise<GuestHandle> {
    const { monitor, agent, events } = opened;
    try {
      const [chardevs] = await Promise.all([monitor.execute('query-chardev', {}, signal), events.read()]);
      const channel = chardevs.find(({ label }) => label === 'agent');
      if (channel) agent?.portChanged(channel['frontend-open']);
      return this.#handle(opened, channel !== undefined);
    } catch (error) {
      await monitor.close();
      throw error;
    }
  }

  /** Its groups are the only thing besides. */
  protected async clearRest(): Promise<void> {}

  #handle({ agent, ...opened }: OpenedProcess, hasAgent: boolean): LxcGuest {
    const { place } = opened;
    return new LxcGuest({
      ...opened,
      accel: ACCEL,
      agent: hasAgent ? agent : undefined,
      endRest: () => this.groups.remove(place),
      setLimits: (limits) => this.#limit(opened, limits),
    });
  }

  #agentAt(place: GuestPlace): ContainerAgent {
    const { runDirectory } = place;
    return new ContainerAgent({
      paths: { control: agentPath(runDirectory), streams: streamsPath(runDirectory) },
      programLog: logPath(place, 'program'),
      log: this.logOf(place),
      initOf: () => this.groups.initOf(place),
    });
  }

  async #commandLine(launch: Launch, boot: ContainerBoot, signal: AbortSignal): Promise<readonly string[]> {
    const { place, agent } = launch;
    const { wardenPath, agentPath: path } = this.#options;
    const lower = await this.#findLower(signal);
    const groupArgv = this.groups.argv(launch);
    // It may outlive the warden for a moment: whoever removes the scope has waited for both.
    const guard = groupArgv.length > 0 && hasSecurityModule();
    return wardenArgs({
      place,
      boot,
      lower,
      groupArgv,
      guard,
      wardenPath,
      agentPath: path,
      agent,
    });
  }

  async #findLower(signal: AbortSignal): Promise<Lower> {
    const { wardenPath, places } = this.#options;
    if (this.#lower !== undefined) return this.#lower;
    const mapped = await tryMappedIds(wardenPath, places, signal);
    const lower = chooseLower(mapped);
    if (lower === undefined) throw noLower(whyNoLower(mapped, places));
    this.#lower = lower;
    return lower;
  }

  async #writeConfig(launch: Launch, boot: ContainerBoot): Promise<void> {
    const { place, name, machine, memoryBytes, cpu, limits = {} } = launch;
    const nics = launch.nics.map((port, index) => {
      const pinned = machine.nics[index];
      if (port.kind !== 'veth' || !pinned) throw notItsPort(name, port.kind);
      return { name: pinned.name, link: pinned.address, port };
    });
    const controllers = requireControllers();
    const disk = await diskFor(boot.root.directory, limits);
    const wanted = { memoryBytes, cpus: cpu.count, limits };
    const text = containerConfig({
      place,
      name,
      boot,
      nics,
      limits: limitFiles(wanted, controllers, disk),
      ...protections(),
    });
    await writeFile(configPath(place), text, { mode: 0o644 });
  }

  async #limit(
    { place, process }: Pick<OpenedProcess, 'place' | 'process'>,
    limits: GuestLimits,
  ): Promise<void> {
    const root = valueAfter(await commandLineOf(process.identity.pid), '--upper');
    const disk = root === undefined ? undefined : await diskFor(root, limits.limits);
    await this.groups.limit(
      place,
      limitFiles(limits, controllersIn(hierarchies()), disk),
      limits.memoryBytes,
    );
  }
}

const WARDEN = 'roost-warden';

/** Whose a warden is, by the command line that it was launched with. */
const identify: Identify = (argv) => {
  if (basename(argv[0] ?? '') !== WARDEN) return undefined;
  const guest = guestId.safeParse(valueAfter(argv, '--name'));
  const path = valueAfter(argv, '--lxcpath');
  if (!guest.success || path === undefined) return undefined;
  return { guest: guest.data, name: nameAt(configPath({ stateDirectory: join(path, guest.data) })) };
};

const nameAt = (path: string): string => {
  try {
    return nameIn(readFileSync(path, 'utf8')) ?? '';
  } catch {
    return '';
  }
};

/** The container's root, who is nobody on the host, has to come by on its way to its own files. */
const letPass = async (directory: string): Promise<void> => {
  const { mode } = await stat(directory);
  if ((mode & 0o001) === 0) await chmod(directory, 0o711);
};

const noLower = (why: string): RoostError =>
  new RoostError('Unsupported', `No container can have a root file system here: ${why}`, {
    data: { driver: 'lxc' },
    hint: 'Linux 5.19 or newer, with the state directory on ext4, xfs or btrfs, can.',
  });

const requireLiblxc = (): void => {
  if (hasLiblxc()) return;
  throw new RoostError('Unsupported', 'There is no lxc-start on this host', {
    data: { driver: 'lxc' },
    hint: "Install Debian's package lxc.",
  });
};

/** Without these a container would share all of the host. Errors: Unsupported. */
const requireControllers = (): Controllers => {
  const controllers = controllersIn(hierarchies());
  const missing = NEEDED_CONTROLLERS.filter((name) => !controllers.has(name));
  if (missing.length === 0) return controllers;
  throw new RoostError(
    'Unsupported',
    `No control groups of this host hold anybody to ${missing.join(', ')}`,
    {
      data: { driver: 'lxc', missing: [...missing] },
      hint: 'Mount them for writing: version 2 at /sys/fs/cgroup, or those of version 1 below it.',
    },
  );
};

const bootOf = ({ name, boot }: Launch): ContainerBoot => {
  if (boot.kind === 'root') return boot;
  throw new RoostError('Internal', `Container ${name} was given no root file system`);
};

const notItsPort = (name: string, kind: string): RoostError =>
  new RoostError('Internal', `Container ${name} was given a port of kind ${kind}`);

/** The disk to limit; undefined where nothing is to be. Errors: Unsupported where there is none that could be. */
const diskFor = async (path: string, limits: GuestLimits['limits']): Promise<string | undefined> => {
  const disk = await diskOf((await stat(path)).dev);
  const isAsked = limits.readBytesPerSecond !== undefined || limits.writeBytesPerSecond !== undefined;
  if (disk === undefined && isAsked)
    throw new RoostError('Unsupported', `What is in ${path} is on no disk whose use could be limited`, {
      data: { path },
      hint: 'Leave limits.readBytesPerSecond and limits.writeBytesPerSecond out.',
    });
  return disk;
};
