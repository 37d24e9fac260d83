/**
 * The contract of a driver: how guests of one kind run. A driver knows processes and monitors; it knows neither the
 * inventory nor operations, storage or networks. It consumes a `BlockSource` for each disk and a `NetPort` for each NIC.
 *
 * Words. *Pin*: record, once, everything of a machine that must stay the same from start to start. *Plan*: say what a
 * launch would run and make, without doing it. *Launch*: make the process, its CPUs standing still. *Attach*: take a
 * process over that an earlier daemon launched. *Fork*: begin as a copy of another guest's memory and devices. *Autopsy*: find out how a process ended that is gone already. *Plug*:
 * give a device to a guest that has a process. *Unplug*: take one from it, which needs the guest's consent.
 *
 * Rules every driver keeps; `test/conformance/driver.ts` holds it to them:
 * - A launched guest outlives the daemon; nothing but `kill` ends it on purpose.
 * - `launch` either gives a handle or leaves no process and no file in the run directory behind.
 * - `attach`, `autopsy` and `clear` may be called any number of times, in any order, after any crash.
 * - A probe that cannot tell says `unknown`; it never guesses.
 * - `ended` of a handle resolves exactly once, whoever ended the guest, and never rejects.
 * - Every observation carries the cursor after it; observing again from a cursor repeats nothing and misses nothing.
 */
import type { Duplex, Readable, Writable } from 'node:stream';
import type {
  AgentInfo,
  AgentInterface,
  ExecRequest,
  ExecStatus,
  FsfreezeStatus,
  GuestProcess,
  ProgramRequest,
} from '../protocol/agent.ts';
import type { BlockSource } from '../protocol/block-source.ts';
import type { TerminalSize } from '../protocol/byte-session.ts';
import type { IdRange, LimitsSpec } from '../protocol/container.ts';
import type { GuestSpec, GuestState } from '../protocol/guest.ts';
import type { HostObject } from '../protocol/host-object.ts';
import type { NetPort } from '../protocol/net-port.ts';
import type { QmpLogEntry, UnansweredCommand } from '../protocol/qmp-log.ts';
import type { RootSource } from '../protocol/root-source.ts';
import type { GuestId, InstanceId, MacAddress } from '../protocol/types.ts';

/** Numeric identity a guest's process runs under; absent when the daemon itself has no privileges. */
export interface Credentials {
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
}

/** Who a guest is on this host: all that computable names are made of. */
export interface GuestPlace {
  readonly id: GuestId;
  /** Small number, unique in the instance, never used again: part of link names and uids. */
  readonly number: number;
  readonly instance: InstanceId;
  /** `<state-dir>/guests/<id>`: working directory and logs; root's own, kept while the guest exists. */
  readonly stateDirectory: string;
  /** `<run-dir>/guests/<id>`: sockets and the lock of the process; gone after a boot of the host. */
  readonly runDirectory: string;
  readonly credentials?: Credentials;
}

/**
 * What must stay the same from start to start. `settings` belongs to the driver; the daemon stores it unread.
 * Disks and NICs are in the order of the spec; their `address` too is the driver's own.
 */
export interface PinnedMachine {
  /** Version of the form of this record; a driver reads every form it ever wrote. */
  readonly formatVersion: number;
  /** Versioned machine type, as `pc-q35-7.2`. */
  readonly type: string;
  readonly cpuModel: string;
  readonly disks: readonly { readonly name: string; readonly serial: string; readonly address: string }[];
  readonly nics: readonly { readonly name: string; readonly mac: MacAddress; readonly address: string }[];
  /** UEFI firmware of the machine; absent where it starts by the driver's own BIOS. */
  readonly firmware?: PinnedFirmware;
  /** Absent in records of before there were any. */
  readonly cdroms?: readonly { readonly name: string; readonly address: string }[];
  /** Absent where there are none. */
  readonly filesystems?: readonly { readonly name: string; readonly address: string }[];
  readonly settings: Readonly<Record<string, string | number | boolean>>;
}

/** Files of the host, absolute. */
export interface PinnedFirmware {
  readonly codePath: string;
  /** What a guest's variables are to begin with; each guest has a copy of its own. */
  readonly variablesTemplatePath: string;
}

/** A container is begun by its root file system. */
export interface ContainerBoot {
  readonly kind: 'root';
  readonly root: RootSource;
  readonly idRange: IdRange;
  /** `/sbin/init` unless given. */
  readonly init?: readonly string[];
  readonly nesting: boolean;
  readonly keepCapabilities: readonly string[];
  readonly dropCapabilities: readonly string[];
}

/** What a guest may use; changed while it runs where its driver can do that. */
export interface GuestLimits {
  readonly memoryBytes: number;
  readonly cpus: number;
  readonly limits: LimitsSpec;
}

/** Everything a launch needs, resolved: no name is left to look up. */
export interface Launch {
  readonly place: GuestPlace;
  readonly name: string;
  readonly machine: PinnedMachine;
  readonly memoryBytes: number;
  readonly cpu: GuestSpec['cpu'];
  readonly qemu: GuestSpec['qemu'];
  /** Whether the machine gets a channel to an agent in the guest. */
  readonly agent: boolean;
  /** Whether it boots our own init, which is its agent as well: by the kernel, from its first disk, over its second. */
  readonly ownInit?: boolean;
  /** Whether it is to be kept for forks: `freezeForForks`. */
  readonly forkable?: boolean;
  /**
   * Begins as this guest was when it was kept: with its memory and its devices, which are at the same places and of the
   * same sizes, and disks that lie on its disks. What it has in memory of who it is, is the other's still.
   */
  readonly forkOf?: GuestPlace;
  /** Begins empty, to be handed what another guest is: `GuestHandle.handOver`. Goes with `forkable`. */
  readonly receives?: boolean;
  readonly boot:
    | { readonly kind: 'disk' }
    | {
        readonly kind: 'kernel';
        readonly kernelPath: string;
        readonly initrdPath?: string;
        readonly commandLine: string;
      }
    | ContainerBoot;
  readonly limits?: LimitsSpec;
  /** The guest's own copy of its firmware's variables; present where the machine has `firmware`. */
  readonly firmwareVariablesPath?: string;
  /** In the order of `machine.disks`. */
  readonly disks: readonly BlockSource[];
  /** In the order of `machine.nics`. */
  readonly nics: readonly NetPort[];
  /** A further disk that is only read, by which the guest learns who it is; never booted from. */
  readonly seed?: BlockSource;
  /** What is in each drive, in the order of `machine.cdroms`; undefined for an empty one. */
  readonly cdroms?: readonly (BlockSource | undefined)[];
  /** Directories of the host, in the order of `machine.filesystems`; they go with `ownInit`, and with no fork. */
  readonly filesystems?: readonly SharedDirectory[];
}

/** A directory of the host that a guest is served. */
export interface SharedDirectory {
  /** On the host, absolute. */
  readonly source: string;
  /** In the guest; see protocol/filesystem.ts. */
  readonly target: string;
  /** Kept by the host. */
  readonly readOnly: boolean;
}

export interface LaunchPlan {
  readonly argv: readonly string[];
  /** What the launch makes on the host besides disks and ports. */
  readonly objects: readonly HostObject[];
}

/** A process, known beyond doubt: a pid is used again, a pid with its start and the boot's id is not. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Field 22 of /proc/PID/stat, in clock ticks since boot. */
  readonly startTicks: number;
  readonly bootId: string;
}

export type Probe = 'alive' | 'gone' | 'unknown';

/** How a guest's process ended. */
export interface GuestEnd {
  /**
   * `guest-shutdown`: the guest powered itself off · `asked`: ended by a monitor command or a signal of the driver ·
   * `killed`: by a signal of somebody else · `crashed`: by its own fault or before it ran · `unknown`.
   */
  readonly cause: 'guest-shutdown' | 'asked' | 'killed' | 'crashed' | 'unknown';
  /** For people: exit status, signal, the last words of the process. */
  readonly detail?: string;
  /** Of a container whose init ended by itself. */
  readonly exitCode?: number;
  /** Number of the signal that ended the init of a container. */
  readonly signal?: number;
  readonly at: number;
}

/** The state of a live guest as observed; a process that is gone is no state but an end. */
export interface ObservedState {
  readonly state: Extract<GuestState, 'starting' | 'running' | 'paused' | 'stopping' | 'failed' | 'unknown'>;
  readonly reason?: string;
}

export type Observation =
  /** The guest's state changed, or was looked at. */
  | { readonly kind: 'state'; readonly observed: ObservedState; readonly at: number }
  /** The guest announced its own end: it will power off. */
  | { readonly kind: 'guest-shutdown'; readonly at: number }
  /** A program in the guest opened the agent's channel, or closed it. */
  | { readonly kind: 'agent'; readonly isOpen: boolean; readonly at: number }
  /** The main program of a guest with our init has ended. */
  | {
      readonly kind: 'program-ended';
      readonly exitCode?: number;
      readonly signal?: number;
      readonly at: number;
    }
  /** What serves a directory to the guest is gone, and the guest is not. */
  | { readonly kind: 'filesystem-lost'; readonly name: string; readonly at: number }
  /** An event in the driver's own words. */
  | {
      readonly kind: 'driver-event';
      readonly event: string;
      readonly data: Readonly<Record<string, unknown>>;
      readonly at: number;
    }
  /** The monitor has been silent; what the kernel says of it. `held`: it serves another client, and one at a time. */
  | {
      readonly kind: 'silent';
      readonly reason: 'stopped' | 'storage' | 'busy' | 'held' | 'unknown';
      readonly since: number;
    }
  /** The monitor speaks again. */
  | { readonly kind: 'heard'; readonly at: number };

/** Called for each observation, in order; `cursor` is the place after it in the driver's own record of events. */
export type Observer = (observation: Observation, cursor: number) => void;

/** How a program in a guest ended: one of the two. */
export interface ProgramEnd {
  readonly exitCode?: number;
  /** Number of the signal that ended it. */
  readonly signal?: number;
}

/** A program in a guest whose streams are at hand. The program, not the guest's word of it, ends its streams. */
export interface ProgramLine {
  /** Undefined where nobody was to write to it. */
  readonly stdin: Writable | undefined;
  readonly stdout: Readable | undefined;
  /** Undefined where the program has a terminal, which is its standard output. */
  readonly stderr: Readable | undefined;
  /** Its output may be under way still. Rejects with Unavailable when nobody can tell any more. */
  readonly ended: Promise<ProgramEnd>;
  /** Sends it a signal, by number; with a terminal its whole process group gets it. */
  kill(signalNumber: number, signal: AbortSignal): Promise<void>;
  /** Changes the size of its terminal. */
  resize(size: TerminalSize, signal: AbortSignal): Promise<void>;
  /** Lets go of it: what it writes from now on is read by nobody. May be called twice. */
  release(): void;
}

/**
 * The agent in a guest. What it says is the guest's own word, bounded and of the right form; it may be silent for ever,
 * so that every method waits for its signal at most. One request is under way at a time, the others wait. A request that
 * was given up may be done by the guest all the same.
 *
 * Errors of every method: Unavailable while no agent has the channel open, when the agent lets go of it, or when the
 * answer makes no sense; FailedPrecondition with the agent's own words when it refuses; Unsupported when it does not
 * know the command.
 */
export interface GuestAgent {
  /** Whether a program in the guest has the channel open; known from events, nobody is asked. */
  readonly isOpen: boolean;
  ping(signal: AbortSignal): Promise<void>;
  info(signal: AbortSignal): Promise<AgentInfo>;
  interfaces(signal: AbortSignal): Promise<readonly AgentInterface[]>;
  /** Starts a program in the guest. Resolves with its pid there. */
  exec(request: ExecRequest, signal: AbortSignal): Promise<number>;
  /** How a program is; it is forgotten by the agent once it was told to have exited. */
  execStatus(pid: number, signal: AbortSignal): Promise<ExecStatus>;
  /**
   * Starts a program and gives its streams; absent where the agent only runs programs to their end. Errors also:
   * FailedPrecondition where it cannot be executed.
   */
  openProgram?(request: ProgramRequest, signal: AbortSignal): Promise<ProgramLine>;
  /** The processes of the guest, those of its kernel left out; absent where the agent only runs programs that tell. */
  processes?(signal: AbortSignal): Promise<readonly GuestProcess[]>;
  /** Opens a file by a mode of fopen(3). Resolves with the agent's handle of it. */
  openFile(path: string, mode: string, signal: AbortSignal): Promise<number>;
  readFile(handle: number, count: number, signal: AbortSignal): Promise<{ bytes: Buffer; eof: boolean }>;
  /** Resolves with how many of the bytes were written. */
  writeFile(handle: number, bytes: Buffer, signal: AbortSignal): Promise<number>;
  /** Resolves with the place from the beginning. */
  seekFile(
    handle: number,
    offset: number,
    whence: 'set' | 'cur' | 'end',
    signal: AbortSignal,
  ): Promise<number>;
  /** Closes a file, what was written flushed first. */
  closeFile(handle: number, signal: AbortSignal): Promise<void>;
  /** Resolves with the number of file systems frozen. */
  freeze(signal: AbortSignal): Promise<number>;
  thaw(signal: AbortSignal): Promise<number>;
  freezeStatus(signal: AbortSignal): Promise<FsfreezeStatus>;
  /** Asks for a power-off; an agent that obeys answers nothing. Resolves when it has taken the request. */
  shutdown(signal: AbortSignal): Promise<void>;
}

/** What a guest with our init is told once it is up. */
export interface GuestSetup {
  /**
   * Of a fork: what its template was called last, and the addresses that its interfaces had, in the order of `links`.
   * `runs`: its main program runs already. `isItself`: it is the very guest that its template was made of, and stays it.
   */
  readonly fork?: {
    readonly token: string;
    readonly macs: readonly string[];
    readonly runs: boolean;
    readonly isItself: boolean;
  };
  /** Of a guest that `prepare` has told all of this but its name. */
  readonly isPrepared?: true;
  readonly hostname: string;
  /** 32 lower-case hexadecimal digits (machine-id(5)). */
  readonly machineId: string;
  readonly links: readonly {
    readonly mac: string;
    /** `192.0.2.7/24`; none where nobody knows it. */
    readonly addresses: readonly string[];
    readonly gateway?: string;
  }[];
  readonly resolver: { readonly nameservers: readonly string[]; readonly search: readonly string[] };
  /** Lines of /etc/hosts after `localhost`. */
  readonly hosts: readonly string[];
  /** What is mounted before the program begins, by the names of the machine; in an order in which none hides another. */
  readonly filesystems?: readonly (Pick<SharedDirectory, 'target' | 'readOnly'> & {
    /** Of what is served; or of the disk, by which what is written over it is found again. */
    readonly name: string;
    /** Of a disk with a squashfs: its serial number. */
    readonly serial?: string;
  })[];
  readonly program: {
    readonly argv: readonly string[];
    readonly environment: readonly string[];
    readonly workingDirectory?: string;
    readonly user?: string;
    /** It has a terminal, whose size is told later. */
    readonly terminal?: boolean;
    /** Its standard input is open, for those who attach. */
    readonly interactive?: boolean;
  };
}

/**
 * Our own init in a guest. What it says is the guest's word, as with every agent. Errors of both: Unavailable when it
 * is out of reach, FailedPrecondition with its own words when it refuses.
 */
export interface GuestInit {
  /**
   * Waits until the init is there, tells it who it is, and starts its main program; done already where that runs or has
   * run. Its output is the log `program`; its end is observed. A fork becomes itself first: it gets random bytes, the
   * clock, its addresses and its name before anything else runs in it. Calls back once the guest is itself, before its program
   * is started. Errors also: HostError where it is no fork of the template.
   */
  setUp(setup: GuestSetup, signal: AbortSignal, onItself: () => void): Promise<void>;
  /**
   * All of `setUp` but the main program, for a guest that is to wait until somebody wants it; the work of a program's start
   * is done once, so that the code of that is at hand. `setUp` is to follow, with the name that it is given. Errors as there.
   */
  prepare(setup: GuestSetup, signal: AbortSignal): Promise<void>;
  /**
   * Waits until the init is there and leaves the guest as it is to be kept for forks: by this token they are known, all is
   * written to its disks, and its links are down. What its forks do first it has done as
   * well, so that the files of that are in its memory. `token`: at most 64 bytes.
   */
  prepareForForks(
    template: { readonly token: string; readonly setup: GuestSetup },
    signal: AbortSignal,
  ): Promise<void>;
  /**
   * Leaves a guest whose main program runs on as its forks are to find it: by this token they are known, and nothing of
   * the program is on its way. What it writes waits in the guest until `followProgram`, here or in a fork.
   */
  leaveProgram(token: string, signal: AbortSignal): Promise<void>;
  /** Takes the main program up again, if there is one. */
  followProgram(): void;
  /** Sends the main program a signal, by number. */
  signalProgram(signalNumber: number, signal: AbortSignal): Promise<void>;
  /**
   * Gives the streams of the main program to one more: its output from that place of its log on, from its end unless given,
   * then what comes. Its standard error is apart only as far as it comes from now on. Letting go of it leaves it as it is.
   */
  attachProgram(fromOffset: number | undefined, signal: AbortSignal): Promise<ProgramLine>;
}

/** Who a fork of a guest with a system of its own is to be. */
export interface ForkIdentity extends Pick<GuestSetup, 'hostname' | 'machineId' | 'links'> {
  readonly fork: Pick<NonNullable<GuestSetup['fork']>, 'token' | 'macs' | 'isItself'>;
}

/**
 * How a guest with a system of its own, a Linux, is left for forks, and how each of them becomes itself: by the agent in
 * it, whose word is the guest's. Errors of all: Unavailable when the agent is out of reach, Unsupported or FailedPrecondition
 * when it cannot or will not, HostError where the guest is no fork of the template.
 */
export interface IdentityTeller {
  /**
   * Leaves the guest as its forks are to find it: by this token they are known. What they do first is tried here, which a
   * guest does not notice. Errors also: Unsupported with the reason why a fork of it could not become itself.
   */
  prepareForForks(token: string, signal: AbortSignal): Promise<void>;
  /**
   * Waits until the agent is there, and makes the guest itself: new random bytes first, then the clock; unless it stays
   * what its template was made of, its names and the addresses of its NICs as well. To be done while its links are down,
   * and may be done again.
   */
  tellIdentity(identity: ForkIdentity, signal: AbortSignal): Promise<void>;
  /** Its links are up again: waits until its interfaces have their addresses, and gives it those that it does not take. */
  settleAddresses(links: ForkIdentity['links'], signal: AbortSignal): Promise<void>;
}

/** What a guest can be asked about its disks and drives, besides `plug` and `unplug`. Errors as of `GuestHandle`. */
export interface GuestDisks {
  /** Lets the guest see a disk grown to that size; done already when it has it. */
  resizeDisk(name: string, sizeBytes: number, signal: AbortSignal): Promise<void>;
  /**
   * Puts a medium into a CD-ROM drive in place of what is there, or empties it. May be done again. Errors:
   * FailedPrecondition while the guest has locked the drive, unless by force.
   */
  setMedium(
    cdrom: string,
    medium: BlockSource | undefined,
    options: { readonly force: boolean; readonly signal: AbortSignal },
  ): Promise<void>;
}

/** What a guest can be asked that others are forked from. Errors as of `GuestHandle`. */
export interface ForkSource {
  /**
   * Stops the guest for good and keeps its memory and its devices as they are, for others to be forked from it: as long as
   * its process lives, which from then on does nothing else. May be done again. Errors: FailedPrecondition when it was
   * not launched for that, HostError with the process's own words.
   */
  freezeForForks(signal: AbortSignal): Promise<void>;
  /**
   * Hands what the guest is, its memory and its devices, to a process that was launched to receive it. The guest may run
   * meanwhile, and stands still in the end: from then on it is there and here, and runs here again by `resume` alone,
   * which has to come before anything is written over its disks. Given up, it goes on here. Resolves with when it was
   * stopped, in milliseconds since the epoch. Errors: HostError with the process's own words.
   */
  handOver(receiver: GuestHandle, signal: AbortSignal): Promise<{ readonly stoppedAt: number }>;
  /** Plugs the cables of all NICs in, or pulls them: a guest is heard by nobody then, and sees it. May be done again. */
  setLinks(areUp: boolean, signal: AbortSignal): Promise<void>;
}

/** A live guest process, and the line to it. Methods reject with RoostError; none of them waits without `signal`. */
export interface GuestHandle {
  readonly process: ProcessIdentity;
  /** `kvm`, `tcg`, …: what it really runs on. */
  readonly accel: string;
  /** Resolves once the process is gone and its last events have been observed. Never rejects. */
  readonly ended: Promise<GuestEnd>;
  readonly verbs: ReadonlySet<GuestVerb>;
  /** Undefined where the machine has no channel to one. */
  readonly agent: GuestAgent | undefined;
  /** Present where the guest boots our own init. */
  readonly init: GuestInit | undefined;
  /** Present where the guest has a channel to an agent that is not our own init. */
  readonly teller: IdentityTeller | undefined;
  /** Absent where no guest can be forked from it. */
  readonly forks?: ForkSource;
  /** Absent where it has none. */
  readonly disks?: GuestDisks;
  /**
   * Holds the guest to these limits from now on; absent where they are part of its machine. May be done again. Errors:
   * ResourceExhausted where it uses more already and lets go of nothing.
   */
  setLimits?(limits: GuestLimits, signal: AbortSignal): Promise<void>;
  queryState(signal: AbortSignal): Promise<ObservedState>;
  resume(signal: AbortSignal): Promise<void>;
  pause(signal: AbortSignal): Promise<void>;
  reset(signal: AbortSignal): Promise<void>;
  /** Asks the guest to power off; says nothing about whether it will. */
  requestShutdown(signal: AbortSignal): Promise<void>;
  /** Ends the process for certain, whatever state it is in. Resolves when it is gone. */
  kill(signal: AbortSignal): Promise<void>;
  /** Names of the disks and NICs that the process has; what is half plugged is not among them. */
  devices(signal: AbortSignal): Promise<DeviceNames>;
  /**
   * Gives the guest a device at its pinned address; done already when it has it. One that fails or is given up is
   * finished by doing it again, or taken away by `unplug`. Errors: Unsupported for a machine that takes none while it
   * runs, ResourceExhausted when it has no free place, HostError with the process's own words.
   */
  plug(machine: PinnedMachine, device: PluggedDevice, signal: AbortSignal): Promise<void>;
  /**
   * Asks the guest to let go of a device, again and again, and takes away what belonged to it once it has; done already
   * when there is nothing of it. Waits for the guest as long as the signal lets it; given up, the guest may still let go
   * later. Errors: FailedPrecondition when the guest refuses.
   */
  unplug(device: DeviceName, signal: AbortSignal): Promise<void>;
  /**
   * Lets the process hold its lock again after somebody took the file away; done already when it holds it. Errors:
   * FailedPrecondition when another process holds it by now.
   */
  holdLock(signal: AbortSignal): Promise<void>;
  /** Connects to the serial console. One at a time; the daemon shares it out. */
  openConsole(signal: AbortSignal): Promise<Duplex>;
  /** Lets go of the guest and leaves it running. */
  release(): Promise<void>;
}

/** A device of a guest, by the name that its spec gives it. */
export interface DeviceName {
  readonly kind: 'disk' | 'nic';
  readonly name: string;
}

export interface DeviceNames {
  readonly disks: ReadonlySet<string>;
  readonly nics: ReadonlySet<string>;
}

/** A device with its place in the machine and its end on the host. */
export type PluggedDevice =
  | { readonly kind: 'disk'; readonly pinned: PinnedMachine['disks'][number]; readonly source: BlockSource }
  | {
      readonly kind: 'nic';
      readonly pinned: PinnedMachine['nics'][number];
      readonly port: NetPort;
      /** Of the tap; still the caller's to close afterwards. Absent for kind user. */
      readonly descriptor?: number;
    };

export const guestVerbs = [
  'start',
  'stop',
  'shutdown',
  'reset',
  'pause',
  'resume',
  'console',
  'fork',
] as const;
export type GuestVerb = (typeof guestVerbs)[number];

export interface LaunchContext {
  readonly signal: AbortSignal;
  /** Descriptors of the taps among `nics`, by link; still the caller's to close afterwards. */
  readonly descriptors: ReadonlyMap<string, number>;
  readonly observe: Observer;
}

export interface AttachContext {
  readonly signal: AbortSignal;
  /** Cursor of the last observation that was recorded. */
  readonly cursor: number;
  readonly observe: Observer;
}

export interface GuestLogPart {
  readonly text: string;
  readonly offset: number;
  readonly nextOffset: number;
  readonly sizeBytes: number;
}

/** What was said between the daemon and a guest's monitor, as far as it is kept. */
export interface Transcript {
  /** The oldest first. */
  readonly entries: readonly QmpLogEntry[];
  /** Numbers that were asked for and are no longer kept. */
  readonly lost?: { readonly from: number; readonly to: number };
  /** What this daemon has asked and waits for, the oldest first. */
  readonly unanswered: readonly UnansweredCommand[];
}

/** A live guest process, of whichever instance. */
export interface FoundProcess {
  readonly process: ProcessIdentity;
  readonly guest: GuestId;
  /** As it was launched under. */
  readonly name: string;
  /** Path of the lock that it was launched with, which says whose it is. */
  readonly lock: string;
  /** False when somebody took that file away or put another in its place: a probe then takes the process for gone. */
  readonly holdsLock: boolean;
}

/** What a process tells of its guest by itself: all that a launch is made of. Sizes of disks are as the process sees them. */
export interface ReconstructedGuest extends Omit<Launch, 'place' | 'name'> {
  /** What it runs on. */
  readonly accel: 'kvm' | 'tcg';
  readonly uid: number;
}

/** What a driver says of forks. */
export interface ForkingDriver {
  /** Whether a machine can go on with memory that another was kept with. Pure. */
  fitsMemoryOf(kept: PinnedMachine, machine: PinnedMachine): boolean;

  /** Whether guests can be forked from this one now. */
  canFork(place: GuestPlace): Promise<boolean>;
}

export interface Driver {
  readonly name: GuestSpec['driver'];
  /** What guests of this driver can do; a verb that is missing is refused with Unsupported. */
  readonly verbs: ReadonlySet<GuestVerb>;
  /** What it needs of a NIC. */
  readonly nicEnd: 'tap' | 'veth';

  /**
   * Completes a new guest's machine. Errors: Unsupported for a machine, CPU model, binary or device that it cannot give;
   * InvalidArgument for a spec that contradicts itself.
   */
  pin(spec: GuestSpec, id: GuestId, signal: AbortSignal): Promise<PinnedMachine>;

  /** Why its guests cannot be served directories of this host, in words; undefined where they can. Absent: they can. */
  cannotShare?(): Promise<string | undefined>;

  /**
   * Whether this host needs `tree` of a container's root to be there. Absent: never.
   * Errors: Unsupported where neither that nor the image would do.
   */
  needsTree?(signal: AbortSignal): Promise<boolean>;

  /** Whether a guest of this machine takes and gives devices while it runs. Pure. */
  hotplugs(machine: PinnedMachine): boolean;

  /** Checks a changed spec against the pinned machine, and pins what the change needs. Same errors as `pin`. */
  repin(spec: GuestSpec, machine: PinnedMachine, signal: AbortSignal): Promise<PinnedMachine>;

  /** Bytes of host memory a guest takes besides its own memory; for admission. */
  overheadBytes(spec: Pick<GuestSpec, 'memoryBytes' | 'cpu'>): number;

  /** What a launch makes on the host besides disks and ports: the same that `plan` names. Pure. */
  runObjects(
    place: GuestPlace,
    parts: Pick<Launch, 'agent' | 'ownInit' | 'filesystems'>,
  ): readonly HostObject[];

  /** The exact command line and host objects of a launch. Makes nothing. */
  plan(launch: Launch, signal: AbortSignal): Promise<LaunchPlan>;

  /** Makes the process, its CPUs standing still, and connects to it. Errors: HostError with the process's own words. */
  launch(launch: Launch, context: LaunchContext): Promise<GuestHandle>;

  /** Whether the guest's process lives. */
  probe(place: GuestPlace): Promise<Probe>;

  /** Takes over a live process. Errors: NotFound when there is none, Unavailable when it does not answer. */
  attach(place: GuestPlace, context: AttachContext): Promise<GuestHandle>;

  /**
   * Waits, however long, until a monitor that was silent when it was attached to would answer; observes why it is
   * silent. Changes nothing. Errors: NotFound as soon as there is no process, Unavailable when it cannot be waited for.
   */
  awaitAnswer(place: GuestPlace, context: AttachContext): Promise<void>;

  /** Ends a process that cannot be attached to, if there is one. Resolves when it is gone. */
  destroy(place: GuestPlace, signal: AbortSignal): Promise<void>;

  /** Observes what was not observed yet of a process that is gone, and says how it ended. */
  autopsy(place: GuestPlace, context: AttachContext): Promise<GuestEnd>;

  /** Removes what a process that is gone left in the run directory. */
  clear(place: GuestPlace): Promise<void>;

  /** A part of a log, from `offset`, or the last `maxBytes`. */
  readLog(
    place: GuestPlace,
    stream: 'console' | 'process' | 'events' | 'program',
    range: { readonly offset?: number; readonly maxBytes: number },
  ): Promise<GuestLogPart>;

  /**
   * The transcript of a guest's monitor: the last `limit` entries, or the first `limit` of those numbered higher than
   * `after`. Bounded, kept as long as the guest's logs are, and never with anything secret.
   */
  readTranscript(
    place: GuestPlace,
    range: { readonly after?: number; readonly limit: number },
  ): Promise<Transcript>;

  /** Every live process on the host that a driver of this name launched, for this instance or another. */
  processes(): Promise<readonly FoundProcess[]>;

  /**
   * What a live process is, where no record of it is left. Changes nothing. Errors: FailedPrecondition where that cannot be
   * told for certain, Unavailable when it does not answer; absent where a driver cannot tell at all.
   */
  reconstruct?(found: FoundProcess, place: GuestPlace, signal: AbortSignal): Promise<ReconstructedGuest>;

  /** Absent where no guest can be forked. */
  readonly forks?: ForkingDriver;

  /** What of this driver is on the host for the instance, in the words of the ledger. */
  inspect(place: {
    readonly instance: InstanceId;
    readonly runDirectory: string;
  }): Promise<readonly HostObject[]>;
}
