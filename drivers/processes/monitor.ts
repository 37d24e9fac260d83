/**
 * The daemon's line to the monitor of one guest. It keeps a session up as long as the process lives, rings when an
 * event comes, tells of silence, and turns QMP's errors into those of the contract.
 */
import { deferred, waitOrAbort } from '../../lib/abort.ts';
import { type AccountEntry, enter, isAccounted, tookMs } from '../../lib/account.ts';
import type { Log } from '../../lib/log.ts';
import { RoostError } from '../../protocol/errors.ts';
import { QmpClient } from './qmp/qmp-client.ts';
import type { QmpCommandName, QmpCommands } from './qmp/qmp-commands.ts';
import {
  describeEnd,
  QmpCommandError,
  QmpConnectError,
  QmpDisconnectedError,
  QmpReplyError,
} from './qmp/qmp-errors.ts';
import { redact } from './qmp/redact.ts';
import { type SilenceReason, SilenceWatch } from './silence-watch.ts';
import type { TranscriptWriter } from './transcript.ts';
import { whySilent } from './why-silent.ts';

const FIRST_RETRY_MS = 1_000;
const LONGEST_RETRY_MS = 30_000;

export interface MonitorOptions {
  readonly path: string;
  readonly pid: number;
  /** Whose monitor it is, for people: `QEMU`, `roost-warden`. */
  readonly program: string;
  /** After how long an unanswered command counts as silence, in milliseconds. */
  readonly silenceAfterMs: number;
  readonly log: Log;
  readonly transcript: TranscriptWriter;
  /** An event has come; what it says is in the black box. */
  readonly onRing: () => void;
  readonly onSilent: (reason: SilenceReason, since: number) => void;
  readonly onHeard: () => void;
}

export class Monitor {
  readonly #options: MonitorOptions;
  readonly #silence: SilenceWatch;
  readonly #closing = new AbortController();
  #client: QmpClient | undefined;
  /** There is no session and one is wanted. */
  #opening = false;

  private constructor(options: MonitorOptions) {
    this.#options = options;
    this.#silence = new SilenceWatch({
      why: () => whySilent(options.pid, { isGreeted: this.#client !== undefined }),
      afterMs: options.silenceAfterMs,
      isOwed: () => this.#isAnswerOwed(),
      onSilent: options.onSilent,
      onHeard: options.onHeard,
    });
  }

  /**
   * Rejects as `QmpClient.connect` does. A process that does not greet counts as silent like one that does not answer: who
   * waits for it has to see why.
   */
  static async open(options: MonitorOptions, signal: AbortSignal): Promise<Monitor> {
    const monitor = new Monitor(options);
    monitor.#opening = true;
    monitor.#silence.asked();
    try {
      monitor.#keep(await monitor.#connect(signal));
      return monitor;
    } catch (error) {
      await monitor.close();
      throw error;
    } finally {
      monitor.#opening = false;
    }
  }

  /** Calls back once when the monitor counts as silent, or at once. Returns what ends the wait. */
  whenSilent(callback: (reason: SilenceReason) => void): () => void {
    return this.#silence.whenSilent(callback);
  }

  /** Errors: HostError when the program refuses, Unavailable while there is no session; the signal's reason. */
  async execute<C extends QmpCommandName>(
    command: C,
    commandArguments: QmpCommands[C]['arguments'],
    signal: AbortSignal,
  ): Promise<QmpCommands[C]['returns']> {
    if (!this.#client) throw noSession(command, this.#options.program);
    const startedAt = performance.now();
    const answer = this.#client.execute(command, commandArguments, { signal });
    this.#silence.asked();
    try {
      const value = await answer;
      if (isAccounted()) enter(this.#accountOf(command, commandArguments, startedAt));
      return value;
    } catch (error) {
      const told = toContractError(error, command, this.#options.program);
      const words = told instanceof Error ? told.message : String(told);
      if (isAccounted()) enter({ ...this.#accountOf(command, commandArguments, startedAt), error: words });
      throw told;
    }
  }

  /** Hands a descriptor over, for the program to know by `name`. Errors as of `execute`; Unavailable when it reads nothing. */
  async sendDescriptor(name: string, descriptor: number, signal: AbortSignal): Promise<void> {
    const { program } = this.#options;
    if (!this.#client) throw noSession('getfd', program);
    const answer = this.#client.sendDescriptor(name, descriptor, { signal });
    this.#silence.asked();
    try {
      await answer;
    } catch (error) {
      const full = error instanceof Error && 'code' in error && error.code === 'EAGAIN';
      throw full ? noSession('getfd', program) : toContractError(error, 'getfd', program);
    }
  }

  /** Ends the session and all that waits for another. May be called twice. */
  async close(): Promise<void> {
    this.#closing.abort(new Error('The monitor was let go of'));
    this.#silence.close();
    const client = this.#client;
    this.#client = undefined;
    await client?.close();
  }

  #accountOf(
    command: string,
    commandArguments: object,
    startedAt: number,
  ): AccountEntry & { kind: 'monitor' } {
    const { program } = this.#options;
    const text = JSON.stringify(redact(commandArguments));
    const given = text === '{}' ? {} : { arguments: text };
    return { kind: 'monitor', program, command, ms: tookMs(startedAt), ...given };
  }

  #isAnswerOwed(): boolean {
    if (this.#opening) return true;
    const client = this.#client;
    return client !== undefined && client.pendingCalls().length + client.abandonedCalls() > 0;
  }

  async #connect(signal: AbortSignal): Promise<QmpClient> {
    const { transcript } = this.#options;
    transcript.connecting();
    try {
      return await QmpClient.connect(this.#options.path, {
        signal,
        onEvent: this.#options.onRing,
        onTraffic: (direction, message, bytes) => {
          transcript[direction](message, bytes);
          if (direction === 'received') this.#silence.heard();
        },
        onViolation: ({ kind, value }) =>
          this.#options.log.warn({ kind, value }, `${this.#options.program} broke its own protocol`),
      });
    } catch (error) {
      transcript.notConnected(error instanceof Error ? error.message : String(error));
      throw error;
    }
  }

  /** Uses a session until it ends, then gets another. */
  #keep(client: QmpClient): void {
    this.#client = client;
    void client.ended.then(async (end) => {
      this.#options.transcript.ended(describeEnd(end));
      if (this.#closing.signal.aborted) return;
      this.#client = undefined;
      this.#options.log.debug({ end: end.reason }, 'the QMP session ended');
      this.#opening = true;
      this.#silence.asked();
      await this.#connectAgain(FIRST_RETRY_MS);
    });
  }

  /**
   * Waits for the greeting as long as it takes: a program that stands still, or serves somebody else, greets whoever is
   * connected when it is free. A process that is gone is told to our owner by the kernel; it closes us.
   */
  async #connectAgain(retryMs: number): Promise<void> {
    const { signal } = this.#closing;
    try {
      this.#keep(await this.#connect(signal));
      this.#opening = false;
      // Whatever happened meanwhile did not ring.
      this.#options.onRing();
    } catch (error) {
      if (signal.aborted) return;
      this.#options.log.debug({ err: error }, 'no QMP session');
      await pause(retryMs, signal);
      if (!signal.aborted) await this.#connectAgain(Math.min(retryMs * 2, LONGEST_RETRY_MS));
    }
  }
}

const pause = async (delayMs: number, signal: AbortSignal): Promise<void> => {
  const over = deferred<void>();
  const timer = setTimeout(over.resolve, delayMs);
  timer.unref();
  await waitOrAbort(over.promise, signal).catch(() => undefined);
  clearTimeout(timer);
};

const noSession = (command: string, program: string): RoostError =>
  new RoostError('Unavailable', `${program}'s monitor is not connected; ${command} was not sent`, {
    data: { command },
    hint: 'It is tried again all the time. If it stays so, stop the guest by force.',
  });

/** An error of the QMP client in the words of the contract; others as they are. */
export const toContractError = (error: unknown, command: string, program: string): unknown => {
  if (error instanceof QmpCommandError) {
    return new RoostError('HostError', `${program} refused ${command}: ${error.desc}`, {
      cause: error,
      data: { command, class: error.class, said: error.desc },
      hint: `Look at the guest's state; ${program} may not allow this in it.`,
    });
  }
  if (error instanceof QmpDisconnectedError || error instanceof QmpConnectError) {
    return new RoostError('Unavailable', error.message, {
      cause: error,
      data: { command },
      hint: "Look at the guest's state again: its process may have ended.",
    });
  }
  if (error instanceof QmpReplyError) {
    return new RoostError('HostError', error.message, {
      cause: error,
      data: { command },
      hint: `This ${program} may be too new or too old; see query-host for its version.`,
    });
  }
  return error;
};
