/**
 * A host in memory on which fake guests run. It outlives the drivers and daemons made on it, as a real host does, and
 * is where a test makes guests end, fail, go silent or take their time. Everything it does happens at once; what a
 * guest tells reaches its observer in a later microtask.
 */
import { waitOrAbort } from '../../lib/abort.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { HostObject } from '../../protocol/host-object.ts';
import type { QmpLogEntry } from '../../protocol/qmp-log.ts';
import type { GuestId } from '../../protocol/types.ts';
import type {
  FoundProcess,
  GuestEnd,
  GuestLimits,
  GuestPlace,
  Launch,
  Observation,
  ObservedState,
  Probe,
  ProcessIdentity,
} from '../driver.ts';
import { FakeAgent } from './fake-agent.ts';

export type FakeCall =
  | 'launch'
  | 'attach'
  | 'resume'
  | 'pause'
  | 'reset'
  | 'shutdown'
  | 'kill'
  | 'query'
  | 'plug'
  | 'unplug'
  | 'resize'
  | 'medium'
  | 'limits';
export type SilentReason = Extract<Observation, { kind: 'silent' }>['reason'];

/** How guests misbehave; by default they do not. May be changed at any time. */
export interface Misbehaviour {
  /** A launch fails with these last words. */
  launchFails?: string;
  /** The process ends at once after its launch, by its own fault. */
  crashesAfterLaunch?: string;
  /** The guest does not care about the power button. */
  ignoresShutdown?: boolean;
  /** What the guest does when it is to let go of a device: it says no, or nothing at all. */
  unplug?: 'refuses' | 'ignores';
  /** The guest keeps its CD-ROM drives locked. */
  locksDrives?: boolean;
  /** Its machine takes no devices while it runs. */
  fixed?: boolean;
  /** What a probe says instead of the truth. */
  probe?: Probe;
  /** Awaited before a call takes effect: holds it up or, by rejecting, lets it fail. */
  before?: (call: FakeCall, id: GuestId, signal: AbortSignal) => Promise<void> | void;
}

/** One process, alive or gone, with what it recorded. */
export class FakeProcess {
  readonly identity: ProcessIdentity;
  /** Where the machine has a channel to one. */
  readonly agent: FakeAgent | undefined;
  readonly accel = 'fake';
  readonly isContainer: boolean;
  /** What has happened; the cursor after an entry is its index and one. */
  readonly events: Observation[] = [];
  state: ObservedState = { state: 'starting' };
  silent: SilentReason | undefined;
  end: GuestEnd | undefined;
  consoleLog = '';
  consoleTaken = false;
  /** What it is held to. */
  limits: GuestLimits;
  /** Somebody took its lock away. */
  isUnlocked = false;
  readonly devices: {
    readonly disks: Map<string, number>;
    readonly nics: Set<string>;
    /** Path of what is in each drive. */
    readonly media: Map<string, string | undefined>;
  };
  /** Calls that were not answered yet. */
  readonly unanswered = new Set<{ readonly name: string; readonly at: number }>();
  readonly #listeners = new Set<() => void>();

  constructor(
    identity: ProcessIdentity,
    launch: Pick<Launch, 'machine' | 'disks' | 'cdroms' | 'memoryBytes' | 'cpu' | 'limits' | 'boot'>,
    agent: FakeAgent | undefined,
  ) {
    this.identity = identity;
    this.agent = agent;
    const { machine, disks, cdroms = [], memoryBytes, cpu, limits = {}, boot } = launch;
    this.isContainer = boot.kind === 'root';
    this.limits = { memoryBytes, cpus: cpu.count, limits };
    const media = (machine.cdroms ?? []).map(({ name }, index) => [name, cdroms[index]?.path] as const);
    const sizes = machine.disks.map(({ name }, index) => [name, disks[index]?.sizeBytes ?? 0] as const);
    this.devices = {
      disks: new Map(sizes),
      nics: new Set(machine.nics.map(({ name }) => name)),
      media: new Map(media),
    };
  }

  /** Calls back after every change: an event, silence, speech, the end. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  record(observation: Observation): void {
    this.events.push(observation);
    this.changed();
  }

  changed(): void {
    for (const listener of this.#listeners) queueMicrotask(listener);
  }
}

export class FakeHost {
  /** Of guests that no entry in `misbehaviourOf` is about. */
  readonly misbehaviour: Misbehaviour = {};
  readonly misbehaviourOf = new Map<GuestId, Misbehaviour>();
  /** Whether its containers need their image unpacked. */
  needsTree = false;
  readonly now: () => number;
  readonly #runs = new Map<
    GuestId,
    {
      readonly place: GuestPlace;
      readonly process: FakeProcess;
      readonly name: string;
      readonly driver: string;
    }
  >();
  /** Sockets that were not cleared away yet. */
  readonly #left = new Map<GuestId, Pick<Launch, 'place' | 'agent'> & { readonly driver: string }>();
  /** What was said to the monitors of a guest, one after another. */
  readonly #said = new Map<GuestId, QmpLogEntry[]>();
  #nextPid = 1000;
  #boot = 1;

  constructor(now: () => number = Date.now) {
    this.now = now;
  }

  // What a test does to guests

  /** The guest powers itself off. */
  powerOff(id: GuestId): void {
    this.#alive(id).record({ kind: 'guest-shutdown', at: this.now() });
    this.#end(id, 'guest-shutdown', 'it powered itself off');
  }

  /** Somebody kills the process. */
  kill(id: GuestId): void {
    this.#end(id, 'killed', 'ended by SIGKILL');
  }

  crash(id: GuestId, detail: string): void {
    this.#end(id, 'crashed', detail);
  }

  /** The state changes without the daemon's doing, as by an I/O error. */
  change(id: GuestId, observed: ObservedState): void {
    this.setState(this.#alive(id), observed);
  }

  /** Tells only now of a change that was before all others. */
  tellLate(id: GuestId, observed: ObservedState): void {
    this.#alive(id).record({ kind: 'state', observed, at: 0 });
  }

  emit(id: GuestId, event: string, data: Readonly<Record<string, unknown>> = {}): void {
    this.#alive(id).record({ kind: 'driver-event', event, data, at: this.now() });
  }

  /** A program in the guest opens the agent's channel, or closes it. Gives the agent, to change what it does. */
  openAgent(id: GuestId, isOpen = true): FakeAgent {
    const process = this.#alive(id);
    const { agent } = process;
    if (!agent) throw new Error(`The fake guest ${id} has no channel to an agent`);
    agent.isOpen = isOpen;
    process.record({ kind: 'agent', isOpen, at: this.now() });
    return agent;
  }

  print(id: GuestId, text: string): void {
    this.#alive(id).consoleLog += text;
  }

  /** The monitor answers nothing until `speak`. */
  silence(id: GuestId, reason: SilentReason = 'stopped'): void {
    const process = this.#alive(id);
    process.silent = reason;
    process.changed();
  }

  speak(id: GuestId): void {
    const process = this.#alive(id);
    process.silent = undefined;
    process.changed();
  }

  /** What a guest does from now on when it is to let go of a device; `undefined`: it lets go. */
  setUnplug(id: GuestId, unplug: Misbehaviour['unplug']): void {
    const { unplug: _before, ...others } = this.behaviour(id);
    this.misbehaviourOf.set(id, unplug === undefined ? others : { ...others, unplug });
    this.process(id)?.changed();
  }

  /** Nothing is asked any more about a guest that is gone; for tests that have thousands of them. */
  forget(id: GuestId): void {
    this.#runs.delete(id);
    this.#said.delete(id);
    this.misbehaviourOf.delete(id);
  }

  /** The host is booted: no process, no socket is left. */
  reboot(): void {
    for (const [id, { process }] of this.#runs)
      if (!process.end) this.#end(id, 'killed', 'the host was booted');
    this.#runs.clear();
    this.#left.clear();
    this.#boot += 1;
  }

  /** Pids of all live processes. */
  livePids(): readonly number[] {
    return [...this.#runs.values()].flatMap(({ process }) => (process.end ? [] : [process.identity.pid]));
  }

  isAlive(id: GuestId): boolean {
    const process = this.process(id);
    return process !== undefined && process.end === undefined;
  }

  /** Alive, as far as its lock tells. */
  isLocked(id: GuestId): boolean {
    return this.isAlive(id) && this.process(id)?.isUnlocked === false;
  }

  /** Somebody takes the lock of the process away; it lives on. */
  unlock(id: GuestId): void {
    this.#alive(id).isUnlocked = true;
  }

  // What the driver does

  /** The latest process of a guest, alive or gone. */
  process(id: GuestId): FakeProcess | undefined {
    return this.#runs.get(id)?.process;
  }

  behaviour(id: GuestId): Misbehaviour {
    return this.misbehaviourOf.get(id) ?? this.misbehaviour;
  }

  async before(call: FakeCall, id: GuestId, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    await waitOrAbort(Promise.resolve(this.behaviour(id).before?.(call, id, signal)), signal);
  }

  /** `driver`: name of the one that does, which alone finds it again. */
  spawn(launch: Launch, driver: string): FakeProcess {
    const { place, agent } = launch;
    const powerOff = (): void => this.powerOff(place.id);
    const process = new FakeProcess(
      {
        pid: this.#nextPid,
        startTicks: this.#nextPid * 10,
        bootId: `boot-${this.#boot}`,
      },
      launch,
      agent ? new FakeAgent(powerOff) : undefined,
    );
    this.#nextPid += 1;
    this.#runs.set(place.id, { place, process, name: launch.name, driver });
    this.#left.set(place.id, { place, agent, driver });
    return process;
  }

  /** The driver ends the process. */
  endAsked(id: GuestId): void {
    if (this.isAlive(id)) this.#end(id, 'asked', 'ended by SIGKILL');
  }

  setState(process: FakeProcess, observed: ObservedState): void {
    if (process.end) return;
    process.state = observed;
    process.record({ kind: 'state', observed, at: this.now() });
  }

  say(id: GuestId, entry: Pick<QmpLogEntry, 'kind' | 'name' | 'text'>): void {
    const said = this.#said.get(id) ?? [];
    this.#said.set(id, said);
    said.push({ number: said.length + 1, at: this.now(), ...entry });
  }

  said(id: GuestId): readonly QmpLogEntry[] {
    return this.#said.get(id) ?? [];
  }

  clear(id: GuestId): void {
    this.#left.delete(id);
  }

  processes(driver: string, lockOf: (place: GuestPlace) => string): readonly FoundProcess[] {
    return [...this.#runs.values()]
      .filter((run) => run.driver === driver && !run.process.end)
      .map(({ place, process, name }) => ({
        process: process.identity,
        guest: place.id,
        name,
        lock: lockOf(place),
        holdsLock: !process.isUnlocked,
      }));
  }

  objects(
    driver: string,
    runDirectory: string,
    objectsOf: (place: GuestPlace, parts: Pick<Launch, 'agent'>) => readonly HostObject[],
  ): readonly HostObject[] {
    return [...this.#left.values()]
      .filter((left) => left.driver === driver && left.place.runDirectory.startsWith(`${runDirectory}/`))
      .flatMap(({ place, agent }) =>
        objectsOf(place, { agent }).filter(({ kind }) => kind !== 'process' || this.isLocked(place.id)),
      );
  }

  #alive(id: GuestId): FakeProcess {
    const process = this.process(id);
    if (process && !process.end) return process;
    throw new Error(`The fake guest ${id} has no live process`);
  }

  #end(id: GuestId, cause: GuestEnd['cause'], detail: string): void {
    const process = this.#alive(id);
    process.end = { cause, detail, at: this.now() };
    process.changed();
  }
}

export const unavailable = (reason: SilentReason): RoostError =>
  new RoostError('Unavailable', `The monitor is silent: ${reason}`, {
    data: { reason },
    hint: 'Wait, or stop the guest by force.',
  });
