/** A live guest of QEMU: its process, its monitor and its black box in one hand. */

import { access } from 'node:fs/promises';
import type { Duplex } from 'node:stream';
import { deadline } from '../../lib/abort.ts';
import type { ExitStatus } from '../../lib/child.ts';
import { connectUnixSocket } from '../../lib/connect-unix-socket.ts';
import type { Log } from '../../lib/log.ts';
import type { BlockSource } from '../../protocol/block-source.ts';
import { isRoostError, RoostError } from '../../protocol/errors.ts';
import {
  type DeviceName,
  type DeviceNames,
  type GuestEnd,
  type GuestHandle,
  type GuestPlace,
  guestVerbs,
  type ObservedState,
  type Observer,
  type PinnedMachine,
  type PluggedDevice,
} from '../driver.ts';
import type { AgentEnd } from './agent/agent-channel.ts';
import { AgentClient } from './agent/agent-client.ts';
import { AgentTeller } from './agent/agent-teller.ts';
import { watchDirectoryServers } from './directory-servers.ts';
import { type EventLog, lastEvents } from './event-log.ts';
import { freeze } from './fork.ts';
import { askedPath, consolePath, lockPath, logPath } from './guest-files.ts';
import { boundLogs, lastWords } from './guest-logs.ts';
import type { GuestProcess } from './guest-process.ts';
import { handOver } from './hand-over.ts';
import { Hotplug } from './hotplug.ts';
import { finalShutdown, judgeEnd } from './interpret-events.ts';
import { MicrovmClient } from './microvm-agent/microvm-client.ts';
import type { Monitor } from './monitor.ts';
import { guestStateOf } from './qmp/run-state.ts';
import { relock } from './relock.ts';
import type { SilenceReason } from './silence-watch.ts';
import type { TranscriptWriter } from './transcript.ts';

/** How often the logs of a running guest are looked at: what it writes there comes without any notice. */
const BOUND_LOGS_INTERVAL_MS = 60_000;

export const qemuVerbs: GuestHandle['verbs'] = new Set(guestVerbs);

export interface QemuGuestParts {
  readonly place: GuestPlace;
  readonly process: GuestProcess;
  readonly monitor: Monitor;
  readonly events: EventLog;
  readonly accel: string;
  /** A path of the host as QEMU is to be told it. */
  readonly pathFor: (path: string) => string;
  readonly agent: AgentEnd | undefined;
  readonly transcript: TranscriptWriter;
  readonly observe: Observer;
  readonly log: Log;
}

export class QemuGuest implements GuestHandle {
  readonly accel: string;
  readonly ended: Promise<GuestEnd>;
  readonly verbs = qemuVerbs;
  readonly #parts: QemuGuestParts;
  readonly #letGo = new AbortController();
  /** Aborts with what a call is answered with that the process did not live to answer. */
  readonly #gone = new AbortController();
  readonly #hotplug: Hotplug;
  readonly #boundTimer: NodeJS.Timeout;
  #closeDirectories: () => void = () => undefined;

  constructor(parts: QemuGuestParts) {
    this.#parts = parts;
    this.#hotplug = new Hotplug(parts);
    this.accel = parts.accel;
    this.ended = parts.process.gone.then((exit) => this.#finish(exit));
    const { agent, events, observe } = parts;
    if (agent instanceof MicrovmClient)
      agent.onProgramEnded = ({ exitCode, signal }) =>
        observe(
          {
            kind: 'program-ended',
            ...(exitCode === undefined ? {} : { exitCode }),
            ...(signal === undefined ? {} : { signal }),
            at: Date.now(),
          },
          events.cursor,
        );
    this.#boundTimer = setInterval(() => void this.#boundLogs(), BOUND_LOGS_INTERVAL_MS);
    this.#boundTimer.unref();
  }

  /** From then on it is observed when what serves a directory ends before the guest does. */
  async watchDirectories(): Promise<void> {
    const watch = await watchDirectoryServers(this.#parts.place, (name) => void this.#unserved(name));
    this.#closeDirectories = watch.close;
  }

  get agent(): GuestHandle['agent'] {
    return this.#parts.agent;
  }

  get init(): GuestHandle['init'] {
    const { agent } = this.#parts;
    return agent instanceof MicrovmClient ? agent : undefined;
  }

  get teller(): GuestHandle['teller'] {
    const { agent } = this.#parts;
    return agent instanceof AgentClient ? new AgentTeller(agent) : undefined;
  }

  get process(): GuestHandle['process'] {
    return this.#parts.process.identity;
  }

  /** Errors besides those of every command: Unavailable as soon as the monitor counts as silent. */
  async queryState(signal: AbortSignal): Promise<ObservedState> {
    const { monitor } = this.#parts;
    using limit = deadline(Infinity, signal);
    const given = new AbortController();
    limit.signal.addEventListener('abort', () => given.abort(limit.signal.reason), { once: true });
    // Given up, the call stays known as unanswered, so that the first sign of life is noticed.
    const stopWaiting = monitor.whenSilent((reason) => given.abort(silentError(reason)));
    try {
      const { status } = await monitor.execute('query-status', {}, given.signal);
      return guestStateOf(status);
    } finally {
      stopWaiting();
    }
  }

  async resume(signal: AbortSignal): Promise<void> {
    await this.#parts.monitor.execute('cont', {}, signal);
  }

  async pause(signal: AbortSignal): Promise<void> {
    await this.#parts.monitor.execute('stop', {}, signal);
  }

  async reset(signal: AbortSignal): Promise<void> {
    await this.#parts.monitor.execute('system_reset', {}, signal);
  }

  async requestShutdown(signal: AbortSignal): Promise<void> {
    await this.#parts.monitor.execute('system_powerdown', {}, signal);
  }

  async kill(signal: AbortSignal): Promise<void> {
    await this.#parts.process.kill(signal);
  }

  freezeForForks(signal: AbortSignal): Promise<void> {
    return freeze(this.#parts, this.process.pid, this.#whileAlive(signal));
  }

  async handOver(receiver: GuestHandle, signal: AbortSignal): ReturnType<GuestHandle['handOver']> {
    if (!(receiver instanceof QemuGuest)) throw new RoostError('Internal', 'The receiver is none of QEMU');
    const both = this.#whileAlive(receiver.#whileAlive(signal));
    const whileRunning = this.accel === 'kvm';
    return await handOver(this.#parts, receiver.#parts, { whileRunning }, both);
  }

  setLinks(areUp: boolean, signal: AbortSignal): Promise<void> {
    return this.#hotplug.setLinks(areUp, this.#whileAlive(signal));
  }

  devices(signal: AbortSignal): Promise<DeviceNames> {
    return this.#hotplug.devices(this.#whileAlive(signal));
  }

  plug(machine: PinnedMachine, device: PluggedDevice, signal: AbortSignal): Promise<void> {
    return this.#hotplug.plug(machine, device, this.#whileAlive(signal));
  }

  unplug(device: DeviceName, signal: AbortSignal): Promise<void> {
    return this.#hotplug.unplug(device, this.#whileAlive(signal));
  }

  resizeDisk(name: string, sizeBytes: number, signal: AbortSignal): Promise<void> {
    return this.#hotplug.resizeDisk(name, sizeBytes, this.#whileAlive(signal));
  }

  setMedium(
    cdrom: string,
    medium: BlockSource | undefined,
    { force, signal }: { readonly force: boolean; readonly signal: AbortSignal },
  ): Promise<void> {
    return this.#hotplug.setMedium(cdrom, medium, { force, signal: this.#whileAlive(signal) });
  }

  async holdLock(signal: AbortSignal): Promise<void> {
    const { place, process, monitor } = this.#parts;
    const waiting = this.#whileAlive(signal);
    await relock(lockPath(place), process.identity, (name, descriptor) =>
      monitor.sendDescriptor(name, descriptor, waiting),
    );
  }

  /** QEMU serves one at a time; a second connection is open and hears nothing until the first is closed. */
  async openConsole(signal: AbortSignal): Promise<Duplex> {
    try {
      return await connectUnixSocket(consolePath(this.#parts.place.runDirectory), signal);
    } catch (error) {
      signal.throwIfAborted();
      throw new RoostError('Unavailable', "The guest's console cannot be reached", {
        cause: error,
        hint: "Look at the guest's state: its process may have ended.",
      });
    }
  }

  async release(): Promise<void> {
    const { monitor, events, process, agent, transcript } = this.#parts;
    if (agent instanceof MicrovmClient) await agent.leave();
    this.#letGo.abort();
    this.#gone.abort(letGoMeanwhile());
    agent?.close();
    clearInterval(this.#boundTimer);
    this.#closeDirectories();
    events.close();
    process.close();
    await monitor.close();
    await transcript.flush();
  }

  /** Those who serve a guest end with it, and a moment earlier where it shuts down: then its monitor answers no more. */
  async #unserved(name: string): Promise<void> {
    const { observe, events } = this.#parts;
    try {
      await this.queryState(this.#gone.signal);
    } catch (error) {
      if (!isSilence(error)) return;
    }
    observe({ kind: 'filesystem-lost', name, at: Date.now() }, events.cursor);
  }

  #whileAlive(signal: AbortSignal): AbortSignal {
    return AbortSignal.any([signal, this.#gone.signal]);
  }

  async #finish(exit: ExitStatus | undefined): Promise<GuestEnd> {
    const { place, monitor, events, agent, transcript, log } = this.#parts;
    clearInterval(this.#boundTimer);
    this.#closeDirectories();
    this.#gone.abort(goneMeanwhile());
    agent?.close();
    await monitor.close();
    await events
      .read()
      .catch((error: unknown) => log.warn({ err: error }, 'the black box could not be read'));
    const [end] = await Promise.all([endOf(place, exit), transcript.flush()]);
    return end;
  }

  async #boundLogs(): Promise<void> {
    const { place, events, log } = this.#parts;
    try {
      await boundLogs(place, events.cursor, this.#letGo.signal);
    } catch (error) {
      if (!this.#letGo.signal.aborted) log.warn({ err: error }, 'the logs of a guest could not be bounded');
    }
  }
}

/** What a call is answered with that a silent monitor does not answer. */
export const silentError = (reason: SilenceReason): RoostError =>
  new RoostError('Unavailable', `QEMU's monitor is silent: ${silenceTexts[reason]}`, {
    data: { reason },
    hint: 'Wait, or stop the guest by force.',
  });

const isSilence = (error: unknown): boolean =>
  isRoostError(error, 'Unavailable') && error.data?.['reason'] !== undefined;

const goneMeanwhile = (): RoostError =>
  new RoostError('Unavailable', "The guest's process ended meanwhile", {
    hint: "Look at the guest's state again.",
  });

const letGoMeanwhile = (): RoostError =>
  new RoostError('Unavailable', 'The guest was let go of meanwhile', { hint: 'Try again.' });

const silenceTexts: Readonly<Record<SilenceReason, string>> = {
  stopped: 'its process is stopped by a signal, a debugger or the freezer',
  storage: 'it waits for storage',
  busy: 'its process lives and is busy',
  held: 'another client is connected to it',
  unknown: 'nothing can be told of its process',
};

/** How a process that is gone ended, from what it left; says `unknown` rather than fail. */
export const endOf = async (place: GuestPlace, exit: ExitStatus | undefined): Promise<GuestEnd> => {
  const [events, words, asked] = await Promise.all([
    lastEvents(logPath(place, 'events')).catch(() => []),
    lastWords(place).catch(() => ''),
    access(askedPath(place.runDirectory)).then(
      () => true,
      () => false,
    ),
  ]);
  return judgeEnd({ shutdown: finalShutdown(events), asked, exit, lastWords: words, now: Date.now() });
};
