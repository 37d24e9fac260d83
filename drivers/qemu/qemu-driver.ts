/** The driver of QEMU: the contract's operations, put together from the parts in this folder. */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { DeadlineError, deadline, firstOf, waitOrAbort } from '../../lib/abort.ts';
import { type ControlGroups, noGroups } from '../../lib/control-groups.ts';
import type { Log } from '../../lib/log.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { GuestSpec } from '../../protocol/guest.ts';
import type { HostView } from '../../protocol/host.ts';
import type { HostObject } from '../../protocol/host-object.ts';
import { MEBIBYTE } from '../../protocol/types.ts';
import type {
  AttachContext,
  Credentials,
  Driver,
  FoundProcess,
  GuestHandle,
  GuestPlace,
  Launch,
  LaunchContext,
  Observer,
  PinnedMachine,
  ReconstructedGuest,
} from '../driver.ts';
import { type AccelChoice, decideAccel, gatherAccelFacts, ordinaryGuest } from './accel.ts';
import { agentEnd, agentEndOf } from './agent/agent-channel.ts';
import { Capabilities, checkCpuModel, type FactsCache, resolveMachine } from './capabilities.ts';
import { describeBinaries } from './describe-binaries.ts';
import { relativeTo } from './devices.ts';
import { endDirectoryServers } from './directory-servers.ts';
import { EventLog } from './event-log.ts';
import { findProcesses } from './find-processes.ts';
import { firmwareFor, uefiFor } from './firmware.ts';
import { isFrozen, loadFork, openMemory } from './fork.ts';
import { lockPath, logPath, monitorPath, runObjects } from './guest-files.ts';
import { GuestGroups } from './guest-groups.ts';
import { readLogPart } from './guest-logs.ts';
import type { GuestProcess } from './guest-process.ts';
import { takesDevices } from './hotplug.ts';
import { inspectLocks, inspectSockets } from './inspect.ts';
import { aliveError, launchProcess, removeRunFiles } from './launch.ts';
import { launchArgs } from './launch-args.ts';
import { adopt, goneError, unknownError } from './live-process.ts';
import { familyOfType, fitMachine, isSameBoard, pinMachine } from './machine.ts';
import { MicrovmClient } from './microvm-agent/microvm-client.ts';
import { Monitor, toContractError } from './monitor.ts';
import { probeLock } from './process-lock.ts';
import { endOf, QemuGuest, type QemuGuestParts, qemuVerbs, silentError } from './qemu-guest.ts';
import { reconstructGuest } from './reconstruct.ts';
import { requireServable } from './shared-directories.ts';
import { takeOver } from './take-over.ts';
import { tscKhz } from './time-stamp-counter.ts';
import { Transcripts } from './transcripts.ts';
import { whySilent } from './why-silent.ts';

export interface QemuDriverOptions {
  /** Path of each binary by its name; guests name the one they use. */
  readonly binaries: Readonly<Record<string, string>>;
  readonly launcherPath: string;
  /** Path of QEMU's virtiofsd. */
  readonly virtiofsdPath: string;
  /** The daemon's state directory, absolute and without symbolic links. */
  readonly stateRoot: string;
  readonly cache: FactsCache;
  readonly log: Log;
  /** Control groups that guests get one each of; none unless given. */
  readonly groups?: ControlGroups;
  /** After how long an unanswered command counts as silence, in milliseconds; 5,000 by default. */
  readonly silenceAfterMs?: number;
}

/** The driver, and what the host's description takes from it. */
export interface QemuDriver extends Driver {
  describeBinaries(signal: AbortSignal): Promise<HostView['qemuBinaries']>;
  /** What `accel: auto` takes for an ordinary guest, and why. */
  describeAccelerator(): Promise<HostView['accelerator']>;
}

const DEFAULT_SILENCE_AFTER_MS = 5_000;
/** How long a process that has closed its monitor may take to end. */
const HANG_UP_MS = 1_000;
/** What QEMU takes besides the guest's memory: itself and its buffers, and a little for each virtual CPU. */
const OVERHEAD_BYTES = 64 * MEBIBYTE;
const OVERHEAD_PER_CPU_BYTES = 2 * MEBIBYTE;
export const qemuDriver = (options: QemuDriverOptions): QemuDriver => new DriverOfQemu(options);

class DriverOfQemu implements QemuDriver {
  readonly name = 'qemu';
  readonly verbs = qemuVerbs;
  readonly #options: QemuDriverOptions;
  readonly #capabilities: Capabilities;
  readonly #silenceAfterMs: number;
  readonly #groups: GuestGroups;
  readonly #ordinaryGuest: Credentials | undefined;
  /** Handles that were given out, by run directory; the next one takes the last one's place. */
  readonly #handles = new Map<string, GuestHandle>();
  readonly #transcripts: Transcripts;

  constructor(options: QemuDriverOptions) {
    this.#options = options;
    this.#capabilities = new Capabilities(options.binaries, options.cache);
    this.#silenceAfterMs = options.silenceAfterMs ?? DEFAULT_SILENCE_AFTER_MS;
    this.#groups = new GuestGroups(options.groups ?? noGroups('the driver was given none'));
    this.#ordinaryGuest = ordinaryGuest();
    this.#transcripts = new Transcripts(options.log);
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

  hotplugs(machine: PinnedMachine): boolean {
    return takesDevices(machine);
  }

  overheadBytes({ cpu }: Pick<GuestSpec, 'memoryBytes' | 'cpu'>): number {
    return OVERHEAD_BYTES + cpu.count * OVERHEAD_PER_CPU_BYTES;
  }

  runObjects(...[place, parts]: Parameters<Driver['runObjects']>): readonly HostObject[] {
    return [...runObjects(place, parts), ...this.#groups.objects(place)];
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
    const transcript = this.#transcripts.of(place);
    const group = this.#groups.around(place);
    await using memory = await openMemory(launch);
    const spawning = { ...context, memory: memory.descriptors };
    const launched = launchProcess(launch, argv, group, spawning, async ({ process, ended }) => {
      transcript.note(`launched as process ${process.identity.pid}`);
      const agent = agentEnd(place, launch, this.#logOf(place));
      const events = this.#eventsOf(place, 0, agent?.listening(context.observe) ?? context.observe);
      const waiting = AbortSignal.any([context.signal, ended]);
      const monitor = await this.#openMonitor(place, process, { events, observe: context.observe }, waiting);
      // The command line names one accelerator, and QEMU does not run without it; only a foreign argument may say else.
      const parts = { place, process, monitor, events, agent, transcript, observe: context.observe };
      if (launch.forkOf) await this.#load(parts, launch, waiting);
      if (launch.qemu.extraArgs.length > 0) return await this.#take(parts, waiting);
      return await this.#handle({ ...parts, accel });
    });
    try {
      return await launched;
    } catch (error) {
      await transcript.flush();
      throw error;
    }
  }

  probe(place: GuestPlace): ReturnType<Driver['probe']> {
    return probeLock(lockPath(place));
  }

  async attach(place: GuestPlace, context: AttachContext): Promise<GuestHandle> {
    context.signal.throwIfAborted();
    await this.#handles.get(place.runDirectory)?.release();
    const process = await adopt(place);
    if (!process) throw goneError(place);
    const gone = new AbortController();
    void process.gone.then(() => gone.abort());
    const agent = await agentEndOf(place, this.#logOf(place));
    const events = this.#eventsOf(place, context.cursor, agent.listening(context.observe));
    using limit = deadline(this.#silenceAfterMs, context.signal);
    const waiting = AbortSignal.any([limit.signal, gone.signal]);
    try {
      const monitor = await this.#openMonitor(place, process, { events, observe: context.observe }, waiting);
      const transcript = this.#transcripts.of(place);
      const { observe } = context;
      const handle = await this.#take(
        { place, process, monitor, events, agent, transcript, observe },
        waiting,
      );
      if (agent instanceof MicrovmClient) agent.followProgram();
      return handle;
    } catch (error) {
      events.close();
      process.close();
      await this.#transcripts.of(place).flush();
      if (gone.signal.aborted || (await probeLock(lockPath(place))) === 'gone') throw goneError(place);
      if (!(limit.signal.reason instanceof DeadlineError)) throw error;
      const reason = await whySilent(process.identity.pid, { isGreeted: false });
      if (reason === 'dead') throw goneError(place);
      context.observe({ kind: 'silent', reason, since: Date.now() - this.#silenceAfterMs }, events.cursor);
      throw silentError(reason);
    }
  }

  fitsMemoryOf(kept: PinnedMachine, machine: PinnedMachine): boolean {
    return isSameBoard(kept, machine);
  }

  canFork(place: GuestPlace): Promise<boolean> {
    return isFrozen(place);
  }

  async awaitAnswer(place: GuestPlace, { signal, cursor, observe }: AttachContext): Promise<void> {
    const process = await adopt(place);
    if (!process) throw goneError(place);
    const gone = new AbortController();
    void process.gone.then(() => gone.abort(goneError(place)));
    using waiting = firstOf(signal, gone.signal);
    // Events are for whoever attaches.
    const events = { cursor, read: () => Promise.resolve() };
    try {
      const monitor = await this.#openMonitor(place, process, { events, observe }, waiting.signal);
      await monitor.close();
    } catch (error) {
      if (waiting.signal.aborted) throw error;
      // It hangs up when it ends, and its end follows at once.
      using limit = deadline(HANG_UP_MS);
      await waitOrAbort(process.gone, limit.signal).catch(() => undefined);
      throw gone.signal.aborted ? goneError(place) : error;
    } finally {
      process.close();
      await this.#transcripts.of(place).flush();
    }
  }

  async destroy(place: GuestPlace, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const process = await adopt(place);
    if (!process) return;
    try {
      await process.kill(signal);
    } finally {
      process.close();
    }
  }

  async autopsy(place: GuestPlace, context: AttachContext): ReturnType<Driver['autopsy']> {
    await this.#refuseAlive(place);
    await waitOrAbort(this.#eventsOf(place, context.cursor, context.observe).read(), context.signal);
    return await waitOrAbort(endOf(place, undefined), context.signal);
  }

  async clear(place: GuestPlace): Promise<void> {
    await this.#refuseAlive(place);
    // Members of the group as well.
    await endDirectoryServers(place);
    await this.#groups.remove(place);
    await removeRunFiles(place);
    await this.#transcripts.close(place);
  }

  readLog(...[place, stream, range]: Parameters<Driver['readLog']>): ReturnType<Driver['readLog']> {
    return readLogPart(logPath(place, stream), range);
  }

  readTranscript(
    ...[place, range]: Parameters<Driver['readTranscript']>
  ): ReturnType<Driver['readTranscript']> {
    return this.#transcripts.read(place, range);
  }

  processes(): Promise<readonly FoundProcess[]> {
    return findProcesses();
  }

  async reconstruct(
    found: FoundProcess,
    place: GuestPlace,
    signal: AbortSignal,
  ): Promise<ReconstructedGuest> {
    const silenceAfterMs = this.#silenceAfterMs;
    const monitorOptions = {
      silenceAfterMs,
      log: this.#logOf(place),
      transcript: this.#transcripts.of(place),
    };
    return await reconstructGuest(found, place, { ...this.#options, ...monitorOptions }, signal);
  }

  async inspect({
    instance,
    runDirectory,
  }: Parameters<Driver['inspect']>[0]): Promise<readonly HostObject[]> {
    const [processes, sockets, groups] = await Promise.all([
      inspectLocks(join(this.#options.stateRoot, 'guests')),
      inspectSockets(join(runDirectory, 'guests')),
      this.#groups.list(instance),
    ]);
    return [...processes, ...sockets, ...groups];
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
        ...this.#groups.membership(launch),
      }),
      accel,
    };
  }

  #eventsOf(place: GuestPlace, cursor: number, observe: Observer): EventLog {
    const events = new EventLog(logPath(place, 'events'), cursor, observe);
    const transcript = this.#transcripts.of(place);
    events.onEvent((event) => transcript.event(event));
    return events;
  }

  /** Connects to a live process. Rejects with contract errors. */
  async #openMonitor(
    place: GuestPlace,
    process: GuestProcess,
    { events, observe }: { readonly events: Pick<EventLog, 'cursor' | 'read'>; readonly observe: Observer },
    signal: AbortSignal,
  ): Promise<Monitor> {
    const log = this.#logOf(place);
    return await Monitor.open(
      {
        path: monitorPath(place.runDirectory),
        pid: process.identity.pid,
        silenceAfterMs: this.#silenceAfterMs,
        log,
        transcript: this.#transcripts.of(place),
        onRing: () => {
          events
            .read()
            .catch((error: unknown) => log.warn({ err: error }, 'the black box could not be read'));
        },
        onSilent: (reason, since) => observe({ kind: 'silent', reason, since }, events.cursor),
        onHeard: () => observe({ kind: 'heard', at: Date.now() }, events.cursor),
      },
      signal,
    ).catch((error: unknown) => {
      throw toContractError(error, 'qmp_capabilities');
    });
  }

  /** Finds out about a process that may have run for long; the handle it gives owns all that was passed. */
  async #take(
    parts: Omit<QemuGuestParts, 'log' | 'accel' | 'pathFor'>,
    signal: AbortSignal,
  ): Promise<GuestHandle> {
    return await this.#handle({ ...parts, ...(await takeOver(parts, signal)) });
  }

  async #load(line: Parameters<typeof loadFork>[0], launch: Launch, signal: AbortSignal): Promise<void> {
    try {
      await loadFork(line, launch, signal);
    } catch (error) {
      await line.monitor.close();
      throw error;
    }
  }

  async #handle(parts: Omit<QemuGuestParts, 'log' | 'pathFor'>): Promise<GuestHandle> {
    const pathFor = relativeTo(parts.place.stateDirectory, this.#options.stateRoot);
    const handle = new QemuGuest({ ...parts, pathFor, log: this.#logOf(parts.place) });
    this.#remember(parts.place.runDirectory, handle);
    await handle.watchDirectories();
    return handle;
  }

  #logOf(place: GuestPlace): Log {
    return this.#options.log.child({ guest: place.id });
  }

  #remember(runDirectory: string, handle: GuestHandle): void {
    this.#handles.set(runDirectory, handle);
    void handle.ended.then(() => {
      if (this.#handles.get(runDirectory) === handle) this.#handles.delete(runDirectory);
    });
  }

  async #refuseAlive(place: GuestPlace): Promise<void> {
    switch (await probeLock(lockPath(place))) {
      case 'gone':
        return;
      case 'alive':
        throw aliveError(place.id);
      case 'unknown':
        throw unknownError(place);
    }
  }
}
