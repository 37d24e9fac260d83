/** The driver of QEMU: the contract's operations, put together from the parts in this folder. */
import { createHash } from 'node:crypto';
import { waitOrAbort } from '../../lib/abort.ts';
import { type ControlGroups, noGroups } from '../../lib/control-groups.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { GuestSpec } from '../../protocol/guest.ts';
import type { HostView } from '../../protocol/host.ts';
import type { HostObject } from '../../protocol/host-object.ts';
import { MEBIBYTE } from '../../protocol/types.ts';
import type {
  Credentials,
  Driver,
  FoundProcess,
  GuestHandle,
  GuestPlace,
  Launch,
  LaunchContext,
  PinnedMachine,
  ReconstructedGuest,
} from '../driver.ts';
import type { AgentEnd } from '../processes/agent-end.ts';
import { findProcesses } from '../processes/find-processes.ts';
import { agentPath, runObjects, streamsPath } from '../processes/guest-files.ts';
import { GuestGroups } from '../processes/guest-groups.ts';
import { lastLine, lastLineOfOthers } from '../processes/guest-logs.ts';
import { launchProcess, type ProcessLaunch } from '../processes/launch.ts';
import { type OpenedProcess, ProcessDriver, type ProcessDriverOptions } from '../processes/process-driver.ts';
import { MicrovmClient } from '../roost-agent/microvm-client.ts';
import { type AccelChoice, decideAccel, gatherAccelFacts, ordinaryGuest } from './accel.ts';
import { agentEnd, agentEndOf } from './agent/agent-channel.ts';
import { Capabilities, checkCpuModel, type FactsCache, resolveMachine } from './capabilities.ts';
import { describeBinaries } from './describe-binaries.ts';
import { relativeTo } from './devices.ts';
import { endDirectoryServers, takeDirectoriesLock } from './directory-servers.ts';
import { firmwareFor, uefiFor } from './firmware.ts';
import { isFrozen, loadFork, openMemory } from './fork.ts';
import { takesDevices } from './hotplug.ts';
import { agentChannels, launchArgs, tapLinks } from './launch-args.ts';
import { familyOfType, fitMachine, isSameBoard, pinMachine, requireMachine } from './machine.ts';
import { identify } from './process-identity.ts';
import { QemuGuest, type QemuGuestParts, qemuVerbs } from './qemu-guest.ts';
import { reconstructGuest } from './reconstruct.ts';
import { requireServable, whyUnservable } from './shared-directories.ts';
import { takeOver } from './take-over.ts';
import { tscKhz } from './time-stamp-counter.ts';

export interface QemuDriverOptions extends ProcessDriverOptions {
  /** Path of each binary by its name; guests name the one they use. */
  readonly binaries: Readonly<Record<string, string>>;
  readonly launcherPath: string;
  /** Path of QEMU's virtiofsd. */
  readonly virtiofsdPath: string;
  readonly cache: FactsCache;
  /** Control groups that guests get one each of; none unless given. */
  readonly groups?: ControlGroups;
}

/** The driver, and what the host's description takes from it. */
export interface QemuDriver extends Driver {
  describeBinaries(signal: AbortSignal): Promise<HostView['qemuBinaries']>;
  /** What `accel: auto` takes for an ordinary guest, and why. */
  describeAccelerator(): Promise<HostView['accelerator']>;
}

/** What QEMU takes besides the guest's memory: itself and its buffers, and a little for each virtual CPU. */
const OVERHEAD_BYTES = 64 * MEBIBYTE;
const OVERHEAD_PER_CPU_BYTES = 2 * MEBIBYTE;
export const qemuDriver = (options: QemuDriverOptions): QemuDriver => new DriverOfQemu(options);

class DriverOfQemu extends ProcessDriver implements QemuDriver {
  readonly name = 'qemu';
  readonly verbs = qemuVerbs;
  readonly nicEnd = 'tap';
  readonly forks = { fitsMemoryOf: isSameBoard, canFork: isFrozen };
  protected readonly program = 'QEMU';
  protected readonly groups: GuestGroups;
  readonly #options: QemuDriverOptions;
  readonly #capabilities: Capabilities;
  readonly #ordinaryGuest: Credentials | undefined;

  constructor(options: QemuDriverOptions) {
    super(options);
    this.groups = new GuestGroups(options.groups ?? noGroups('the driver was given none'));
    this.#options = options;
    this.#capabilities = new Capabilities(options.binaries, options.cache);
    this.#ordinaryGuest = ordinaryGuest();
  }

  async pin(spec: GuestSpec, id: string, signal: AbortSignal): Promise<PinnedMachine> {
    const { type, family } = await this.#check(spec, spec.machine, signal);
    await requireServable(spec, this.#options.virtiofsdPath);
    const serialPrefix = createHash('sha256').update(id).digest('hex').slice(0, 12);
    const firmware = await uefiFor(spec, family);
    return pinMachine(spec, { type, family, serialPrefix, firmware });
  }

  async repin(spec: GuestSpec, machine: PinnedMachine, signal: AbortSignal): Promise<PinnedMachine> {
    const family = machine.settings['family'];
    if (familyOfType(spec.machine) !== family) {
      throw new RoostError(
        'InvalidArgument',
        `A guest of machine ${machine.type} cannot become ${spec.machine}`,
        {
          data: { machine: machine.type, wanted: spec.machine },
          hint: 'Make a new guest for another kind of machine.',
        },
      );
    }
    // The family's name means what the guest has; only a versioned type moves it.
    const wanted = spec.machine === family ? machine.type : spec.machine;
    const { type } = await this.#check(spec, wanted, signal);
    return fitMachine(spec, { ...machine, type });
  }

  readonly cannotShare = (): Promise<string | undefined> => whyUnservable(this.#options.virtiofsdPath);

  hotplugs(machine: PinnedMachine): boolean {
    return takesDevices(machine);
  }

  overheadBytes({ cpu }: Pick<GuestSpec, 'memoryBytes' | 'cpu'>): number {
    return OVERHEAD_BYTES + cpu.count * OVERHEAD_PER_CPU_BYTES;
  }

  runObjects(...[place, parts]: Parameters<Driver['runObjects']>): readonly HostObject[] {
    return [...runObjects(place, parts), ...this.groups.objects(place)];
  }

  async plan(
    launch: Launch,
    signal: AbortSignal,
  ): Promise<{ argv: readonly string[]; objects: readonly HostObject[] }> {
    const { argv } = await waitOrAbort(this.#commandLine(launch), signal);
    return { argv, objects: this.runObjects(launch.place, launch) };
  }

  async launch(launch: Launch, context: LaunchContext): Promise<GuestHandle> {
    await requireServable(launch, this.#options.virtiofsdPath);
    const { argv, accel } = await this.#commandLine(launch);
    const { place } = launch;
    const transcript = this.transcripts.of(place);
    await using memory = await openMemory(launch);
    const { observe } = context;
    const spawning = {
      ...this.#processOf(launch, argv),
      first: tapDescriptors(launch, context),
      last: memory.descriptors,
    };
    const launched = launchProcess(spawning, context.signal, async ({ process, ended }) => {
      transcript.note(`launched as process ${process.identity.pid}`);
      const agent = agentEnd(place, launch, this.logOf(place));
      const events = this.eventsOf(place, 0, agent?.listening(observe) ?? observe);
      const waiting = AbortSignal.any([context.signal, ended]);
      const opened = await this.openProcess({ place, process, events, agent, observe }, waiting);
      if (launch.forkOf) await this.#load(opened, launch, waiting);
      // The command line names one accelerator, and QEMU does not run without it; only a foreign argument may say else.
      if (launch.qemu.extraArgs.length > 0) return await this.take(opened, waiting);
      return await this.#handle({ ...opened, accel });
    });
    try {
      return await launched;
    } catch (error) {
      await transcript.flush();
      throw error;
    }
  }

  #processOf(launch: Launch, argv: readonly string[]): ProcessLaunch {
    const { place, name, filesystems = [] } = launch;
    const channels = [agentPath(place.runDirectory), streamsPath(place.runDirectory)];
    return {
      place,
      name,
      program: this.program,
      argv,
      group: this.groups.around(place),
      channels: channels.slice(0, agentChannels(launch)),
      ...(filesystems.length === 0 ? {} : { openLast: async () => [await takeDirectoriesLock(place)] }),
      clear: () => endDirectoryServers(place),
      explain: (words) => whatFailed(launch, words),
    };
  }

  protected agentOf(place: GuestPlace): Promise<AgentEnd> {
    return agentEndOf(place, this.logOf(place));
  }

  protected async take(opened: OpenedProcess, signal: AbortSignal): Promise<GuestHandle> {
    const handle = await this.#handle({ ...opened, ...(await takeOver(opened, signal)) });
    if (opened.agent instanceof MicrovmClient) opened.agent.followProgram();
    return handle;
  }

  protected clearRest(place: GuestPlace): Promise<void> {
    return endDirectoryServers(place);
  }

  processes(): Promise<readonly FoundProcess[]> {
    return findProcesses(identify, this.#options.stateRoot);
  }

  async reconstruct(
    found: FoundProcess,
    place: GuestPlace,
    signal: AbortSignal,
  ): Promise<ReconstructedGuest> {
    const silenceAfterMs = this.silenceAfterMs;
    const monitorOptions = {
      silenceAfterMs,
      log: this.logOf(place),
      transcript: this.transcripts.of(place),
    };
    return await reconstructGuest(found, place, { ...this.#options, ...monitorOptions }, signal);
  }

  describeBinaries(signal: AbortSignal): Promise<HostView['qemuBinaries']> {
    return describeBinaries(this.#capabilities, signal);
  }

  async describeAccelerator(): Promise<HostView['accelerator']> {
    const { accel, why } = decideAccel('auto', await gatherAccelFacts(this.#ordinaryGuest));
    return { auto: accel, why };
  }

  /** Whether the binary gives what the spec asks for. */
  async #check(
    spec: GuestSpec,
    wanted: string,
    signal: AbortSignal,
  ): Promise<ReturnType<typeof resolveMachine>> {
    requireMachine(spec);
    const facts = await this.#capabilities.factsOf(spec.qemu.binary, signal);
    const machine = resolveMachine(facts, wanted);
    if (spec.cpu.count > machine.cpuMax) {
      throw new RoostError('Unsupported', `Machine ${machine.type} takes at most ${machine.cpuMax} CPUs`, {
        data: { machine: machine.type, cpus: spec.cpu.count, most: machine.cpuMax },
        hint: `Ask for ${machine.cpuMax} CPUs or fewer.`,
      });
    }
    const { accel, why } = await this.#likelyAccel(spec);
    checkCpuModel(facts, spec.cpu.model, accel, why);
    return machine;
  }

  /** Insisting on KVM is settled when the guest starts: the host may have it by then. */
  async #likelyAccel({ qemu }: GuestSpec): Promise<AccelChoice> {
    if (qemu.accel === 'kvm') return { accel: 'kvm', why: 'asked for' };
    return decideAccel(qemu.accel, await gatherAccelFacts(this.#ordinaryGuest));
  }

  async #commandLine(
    launch: Launch,
  ): Promise<{ readonly argv: readonly string[]; readonly accel: AccelChoice['accel'] }> {
    const { launcherPath, virtiofsdPath, stateRoot } = this.#options;
    const binaryPath = this.#capabilities.pathOf(launch.qemu.binary);
    const { accel } = decideAccel(launch.qemu.accel, await gatherAccelFacts(launch.place.credentials));
    const firmware = await firmwareFor(launch);
    const clock = launch.ownInit && accel === 'tcg' ? { tscKhz: await tscKhz() } : {};
    return {
      argv: launchArgs({
        launch,
        launcherPath,
        binaryPath,
        accel,
        stateRoot,
        ...firmware,
        ...clock,
        virtiofsdPath,
        ...this.groups.membership(launch),
      }),
      accel,
    };
  }

  async #load(line: Parameters<typeof loadFork>[0], launch: Launch, signal: AbortSignal): Promise<void> {
    try {
      await loadFork(line, launch, signal);
    } catch (error) {
      await line.monitor.close();
      throw error;
    }
  }

  async #handle(parts: OpenedProcess & Pick<QemuGuestParts, 'accel'>): Promise<GuestHandle> {
    const pathFor = relativeTo(parts.place.stateDirectory, this.#options.stateRoot);
    const handle = new QemuGuest({ ...parts, pathFor });
    await handle.watchDirectories();
    return this.remember(parts.place, handle);
  }
}

const tapDescriptors = ({ name, nics }: Launch, { descriptors }: LaunchContext): readonly number[] =>
  tapLinks(nics).map((link) => {
    const descriptor = descriptors.get(link);
    if (descriptor !== undefined) return descriptor;
    throw new RoostError('Internal', `Guest ${name} was given no descriptor of its tap ${link}`);
  });

/** QEMU gives up where nobody serves it a directory, and does not know why. */
const whatFailed = ({ filesystems = [] }: Launch, words: string): string => {
  const line = lastLine(words);
  if (filesystems.length === 0 || !line.includes('vhost')) return line;
  return `nobody serves its directories: ${lastLineOfOthers(words) ?? 'virtiofsd ended without a word'}`;
};
