/**
 * What a driver does whose guests are processes with a monitor, a lock and a black box, whatever runs them: it finds a
 * process again, takes it over, waits for it, ends it and says how it ended. How one is made is each driver's own.
 */
import { join } from 'node:path';
import { DeadlineError, deadline, firstOf, waitOrAbort } from '../../lib/abort.ts';
import type { Log } from '../../lib/log.ts';
import type { GuestSpec } from '../../protocol/guest.ts';
import type { HostObject } from '../../protocol/host-object.ts';
import type { InstanceId } from '../../protocol/types.ts';
import type { AttachContext, Driver, GuestHandle, GuestPlace, Observer } from '../driver.ts';
import type { AgentEnd } from './agent-end.ts';
import { EventLog } from './event-log.ts';
import { lockPath, logPath, monitorPath } from './guest-files.ts';
import { readLogPart, renameOldLog } from './guest-logs.ts';
import type { GuestProcess } from './guest-process.ts';
import { inspectLocks, inspectSockets } from './inspect.ts';
import { aliveError, type LaunchGroup, removeRunFiles } from './launch.ts';
import { adopt, goneError, unknownError } from './live-process.ts';
import { Monitor, toContractError } from './monitor.ts';
import { endOf, type ProcessGuestParts, silentError } from './process-guest.ts';
import { probeLock } from './process-lock.ts';
import { Transcripts } from './transcripts.ts';
import { whySilent } from './why-silent.ts';

export interface ProcessDriverOptions {
  /** The daemon's state directory, absolute and without symbolic links. */
  readonly stateRoot: string;
  readonly log: Log;
  /** After how long an unanswered command counts as silence, in milliseconds; 5,000 by default. */
  readonly silenceAfterMs?: number;
}

/** The control groups of guests' processes. */
export interface ProcessGroups {
  objects(place: GuestPlace): readonly HostObject[];
  around(place: GuestPlace): LaunchGroup;
  /** Once the process is gone. May be done again. Errors: HostError while a process is in one of them. */
  remove(place: GuestPlace): Promise<void>;
  list(instance: InstanceId): Promise<readonly HostObject[]>;
}

/** A process whose line is open, and of which is not known yet what it runs on. */
export type OpenedProcess = Omit<ProcessGuestParts, 'accel'>;

const DEFAULT_SILENCE_AFTER_MS = 5_000;
/** How long a process that has closed its monitor may take to end. */
const HANG_UP_MS = 1_000;

type Common = Pick<
  Driver,
  | 'name'
  | 'probe'
  | 'attach'
  | 'awaitAnswer'
  | 'destroy'
  | 'autopsy'
  | 'clear'
  | 'readLog'
  | 'readTranscript'
  | 'inspect'
>;

export abstract class ProcessDriver implements Common {
  abstract readonly name: GuestSpec['driver'];
  protected readonly transcripts: Transcripts;
  protected readonly silenceAfterMs: number;
  readonly #options: ProcessDriverOptions;
  /** Handles that were given out, by run directory; the next one takes the last one's place. */
  readonly #handles = new Map<string, GuestHandle>();

  constructor(options: ProcessDriverOptions) {
    this.#options = options;
    this.silenceAfterMs = options.silenceAfterMs ?? DEFAULT_SILENCE_AFTER_MS;
    this.transcripts = new Transcripts(options.log);
  }

  protected abstract readonly groups: ProcessGroups;

  /** What runs the guests, for people, at the beginning of a sentence or within one: `QEMU`, `roost-warden`. */
  protected abstract readonly program: string;

  /** The host's end of the agent of a process that is taken over. */
  protected abstract agentOf(place: GuestPlace): Promise<AgentEnd>;

  /** Finds out about a process that may have run for long; the handle it gives owns all that was passed. */
  protected abstract take(opened: OpenedProcess, signal: AbortSignal): Promise<GuestHandle>;

  /** Ends and takes away what a process that is gone left besides the common files. May be done again. */
  protected abstract clearRest(place: GuestPlace): Promise<void>;

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
    const agent = await this.agentOf(place);
    const { observe } = context;
    const events = this.eventsOf(place, context.cursor, agent.listening(observe));
    using limit = deadline(this.silenceAfterMs, context.signal);
    const waiting = AbortSignal.any([limit.signal, gone.signal]);
    try {
      const opened = await this.openProcess({ place, process, events, agent, observe }, waiting);
      return this.remember(place, await this.take(opened, waiting));
    } catch (error) {
      events.close();
      process.close();
      await this.transcripts.of(place).flush();
      if (gone.signal.aborted || (await probeLock(lockPath(place))) === 'gone') throw goneError(place);
      if (!(limit.signal.reason instanceof DeadlineError)) throw error;
      const reason = await whySilent(process.identity.pid, { isGreeted: false });
      if (reason === 'dead') throw goneError(place);
      context.observe({ kind: 'silent', reason, since: Date.now() - this.silenceAfterMs }, events.cursor);
      throw silentError(reason);
    }
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
      await this.transcripts.of(place).flush();
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
    await waitOrAbort(this.eventsOf(place, context.cursor, context.observe).read(), context.signal);
    return await waitOrAbort(endOf(place, undefined), context.signal);
  }

  async clear(place: GuestPlace): Promise<void> {
    await this.#refuseAlive(place);
    // Members of the group as well.
    await this.clearRest(place);
    await this.groups.remove(place);
    await removeRunFiles(place);
    await this.transcripts.close(place);
  }

  async readLog(...[place, stream, range]: Parameters<Driver['readLog']>): ReturnType<Driver['readLog']> {
    if (stream === 'process') await renameOldLog(place);
    return await readLogPart(logPath(place, stream), range);
  }

  readTranscript(
    ...[place, range]: Parameters<Driver['readTranscript']>
  ): ReturnType<Driver['readTranscript']> {
    return this.transcripts.read(place, range);
  }

  async inspect({
    instance,
    runDirectory,
  }: Parameters<Driver['inspect']>[0]): Promise<readonly HostObject[]> {
    const [processes, sockets, groups] = await Promise.all([
      inspectLocks(join(this.#options.stateRoot, 'guests')),
      inspectSockets(join(runDirectory, 'guests')),
      this.groups.list(instance),
    ]);
    return [...processes, ...sockets, ...groups];
  }

  protected eventsOf(place: GuestPlace, cursor: number, observe: Observer): EventLog {
    const events = new EventLog(logPath(place, 'events'), cursor, observe);
    const transcript = this.transcripts.of(place);
    events.onEvent((event) => transcript.event(event));
    return events;
  }

  /** Opens the line to a live process. Rejects with contract errors. */
  protected async openProcess(
    parts: Omit<OpenedProcess, 'monitor' | 'transcript' | 'log'>,
    signal: AbortSignal,
  ): Promise<OpenedProcess> {
    const { place, process } = parts;
    const monitor = await this.#openMonitor(place, process, parts, signal);
    return { ...parts, monitor, transcript: this.transcripts.of(place), log: this.logOf(place) };
  }

  protected logOf(place: GuestPlace): Log {
    return this.#options.log.child({ guest: place.id });
  }

  /** The handle, which the next one of the same guest takes the place of. */
  protected remember({ runDirectory }: GuestPlace, handle: GuestHandle): GuestHandle {
    this.#handles.set(runDirectory, handle);
    void handle.ended.then(() => {
      if (this.#handles.get(runDirectory) === handle) this.#handles.delete(runDirectory);
    });
    return handle;
  }

  async #openMonitor(
    place: GuestPlace,
    process: GuestProcess,
    { events, observe }: { readonly events: Pick<EventLog, 'cursor' | 'read'>; readonly observe: Observer },
    signal: AbortSignal,
  ): Promise<Monitor> {
    const log = this.logOf(place);
    return await Monitor.open(
      {
        path: monitorPath(place.runDirectory),
        program: this.program,
        pid: process.identity.pid,
        silenceAfterMs: this.silenceAfterMs,
        log,
        transcript: this.transcripts.of(place),
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
      throw toContractError(error, 'qmp_capabilities', this.program);
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
