/**
 * A live guest that is a process with a monitor: its process, its monitor and its black box in one hand. What is the same
 * for every such guest, whatever runs it.
 */
import { access } from 'node:fs/promises';
import type { Duplex } from 'node:stream';
import { deadline } from '../../lib/abort.ts';
import type { ExitStatus } from '../../lib/child.ts';
import { connectUnixSocket } from '../../lib/connect-unix-socket.ts';
import type { Log } from '../../lib/log.ts';
import { isRoostError, RoostError } from '../../protocol/errors.ts';
import type { GuestEnd, GuestHandle, GuestPlace, ObservedState, Observer } from '../driver.ts';
import type { AgentEnd } from './agent-end.ts';
import { type EventLog, lastEvents } from './event-log.ts';
import { askedPath, consolePath, lockPath, logPath } from './guest-files.ts';
import { boundLogs, lastWords } from './guest-logs.ts';
import type { GuestProcess } from './guest-process.ts';
import { finalShutdown, initEnd, judgeEnd } from './interpret-events.ts';
import type { Monitor } from './monitor.ts';
import { guestStateOf } from './qmp/run-state.ts';
import { relock } from './relock.ts';
import type { SilenceReason } from './silence-watch.ts';
import type { TranscriptWriter } from './transcript.ts';

/** How often the logs of a running guest are looked at: what it writes there comes without any notice. */
const BOUND_LOGS_INTERVAL_MS = 60_000;

/** What a handle owns from then on. */
export interface ProcessGuestParts {
  readonly place: GuestPlace;
  readonly process: GuestProcess;
  readonly monitor: Monitor;
  readonly events: EventLog;
  readonly accel: string;
  readonly agent: AgentEnd | undefined;
  readonly transcript: TranscriptWriter;
  readonly observe: Observer;
  readonly log: Log;
}

type Common = Omit<GuestHandle, 'verbs' | 'teller' | 'init' | 'devices' | 'plug' | 'unplug'>;

export abstract class ProcessGuest<Parts extends ProcessGuestParts = ProcessGuestParts> implements Common {
  readonly accel: string;
  readonly ended: Promise<GuestEnd>;
  protected readonly parts: Parts;
  readonly #letGo = new AbortController();
  /** Aborts with what a call is answered with that the process did not live to answer. */
  readonly #gone = new AbortController();
  readonly #boundTimer: NodeJS.Timeout;

  constructor(parts: Parts) {
    this.parts = parts;
    this.accel = parts.accel;
    this.ended = parts.process.gone.then((exit) => this.#finish(exit));
    this.#boundTimer = setInterval(() => void this.#boundLogs(), BOUND_LOGS_INTERVAL_MS);
    this.#boundTimer.unref();
  }

  get agent(): GuestHandle['agent'] {
    return this.parts.agent;
  }

  get process(): GuestHandle['process'] {
    return this.parts.process.identity;
  }

  /** Errors besides those of every command: Unavailable as soon as the monitor counts as silent. */
  async queryState(signal: AbortSignal): Promise<ObservedState> {
    const { monitor } = this.parts;
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
    await this.parts.monitor.execute('cont', {}, signal);
  }

  async pause(signal: AbortSignal): Promise<void> {
    await this.parts.monitor.execute('stop', {}, signal);
  }

  async reset(signal: AbortSignal): Promise<void> {
    await this.parts.monitor.execute('system_reset', {}, signal);
  }

  async requestShutdown(signal: AbortSignal): Promise<void> {
    await this.parts.monitor.execute('system_powerdown', {}, signal);
  }

  async kill(signal: AbortSignal): Promise<void> {
    await this.parts.process.kill(signal);
  }

  async holdLock(signal: AbortSignal): Promise<void> {
    const { place, process, monitor } = this.parts;
    const waiting = this.whileAlive(signal);
    await relock(lockPath(place), process.identity, (name, descriptor) =>
      monitor.sendDescriptor(name, descriptor, waiting),
    );
  }

  /** It serves one at a time; a second connection is open and hears nothing until the first is closed. */
  async openConsole(signal: AbortSignal): Promise<Duplex> {
    try {
      return await connectUnixSocket(consolePath(this.parts.place.runDirectory), signal);
    } catch (error) {
      signal.throwIfAborted();
      throw new RoostError('Unavailable', "The guest's console cannot be reached", {
        cause: error,
        hint: "Look at the guest's state: its process may have ended.",
      });
    }
  }

  async release(): Promise<void> {
    const { monitor, events, process, agent, transcript } = this.parts;
    await this.beforeRelease();
    this.#letGo.abort();
    this.#gone.abort(letGoMeanwhile());
    agent?.close();
    clearInterval(this.#boundTimer);
    this.closeWatches();
    events.close();
    process.close();
    await monitor.close();
    await transcript.flush();
  }

  /** Whatever has to be done while the line to the guest is still open. */
  protected beforeRelease(): Promise<void> {
    return Promise.resolve();
  }

  /** Ends what is watched besides, once the process is gone or let go of. May be called twice. */
  protected closeWatches(): void {}

  /** Once the process is gone: waits for what outlives it by a moment. Must not reject. */
  protected afterEnd(): Promise<void> {
    return Promise.resolve();
  }

  /** Aborts with the reason for a caller as soon as nobody will answer any more. */
  protected whileAlive(signal?: AbortSignal): AbortSignal {
    return AbortSignal.any([...(signal ? [signal] : []), this.#gone.signal]);
  }

  async #finish(exit: ExitStatus | undefined): Promise<GuestEnd> {
    const { place, monitor, events, agent, transcript, log } = this.parts;
    clearInterval(this.#boundTimer);
    this.closeWatches();
    this.#gone.abort(goneMeanwhile());
    agent?.close();
    await monitor.close();
    await events
      .read()
      .catch((error: unknown) => log.warn({ err: error }, 'the black box could not be read'));
    const [end] = await Promise.all([endOf(place, exit), transcript.flush(), this.afterEnd()]);
    return end;
  }

  async #boundLogs(): Promise<void> {
    const { place, events, log } = this.parts;
    try {
      await boundLogs(place, events.cursor, this.#letGo.signal);
    } catch (error) {
      if (!this.#letGo.signal.aborted) log.warn({ err: error }, 'the logs of a guest could not be bounded');
    }
  }
}

/** What a call is answered with that a silent monitor does not answer. */
export const silentError = (reason: SilenceReason): RoostError =>
  new RoostError('Unavailable', `The monitor is silent: ${silenceTexts[reason]}`, {
    data: { reason },
    hint: 'Wait, or stop the guest by force.',
  });

/** Whether that is what a call was answered with. */
export const isSilence = (error: unknown): boolean =>
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
  const shutdown = finalShutdown(events);
  const init = shutdown && initEnd(events, shutdown);
  return judgeEnd({ shutdown, init, asked, exit, lastWords: words, now: Date.now() });
};
