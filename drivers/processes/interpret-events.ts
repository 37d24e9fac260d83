/**
 * What QEMU's events mean: for a guest's state while it lives, and for the cause when it is gone. Pure. One event is
 * one observation, so that a cursor never stands in the middle of one.
 */

import type { ExitStatus } from '../../lib/child.ts';
import { signalName } from '../../lib/signal-name.ts';
import type { GuestEnd, Observation, ObservedState, ProgramEnd } from '../driver.ts';
import { AGENT_PORT_ID, INIT_END_EVENT } from './process-interface.ts';
import type { QmpEvent } from './qmp/qmp-types.ts';

/** What the next STOP will be about; without such news it was a person or a command. */
type StopReason = 'io-error' | 'watchdog' | 'guest-panicked' | 'shutdown';

/** Follows the events of one process in their order. */
export class EventInterpreter {
  #stopReason: StopReason | undefined;

  interpret(event: QmpEvent): Observation {
    const at = timeOf(event);
    const observed = this.#stateAfter(event);
    if (observed) return { kind: 'state', observed, at };
    if (event.event === 'SHUTDOWN' && event.data['reason'] === 'guest-shutdown') {
      return { kind: 'guest-shutdown', at };
    }
    if (event.event === 'VSERPORT_CHANGE' && event.data['id'] === AGENT_PORT_ID) {
      return { kind: 'agent', isOpen: event.data['open'] === true, at };
    }
    return { kind: 'driver-event', event: event.event, data: event.data, at };
  }

  #stateAfter(event: QmpEvent): ObservedState | undefined {
    switch (event.event) {
      case 'RESUME':
        this.#stopReason = undefined;
        return { state: 'running' };
      case 'WAKEUP':
        return { state: 'running' };
      case 'SUSPEND':
        return { state: 'paused', reason: 'suspended' };
      case 'STOP':
        return stoppedFor(this.#stopReason);
      default:
        this.#stopReason = stopReasonIn(event) ?? this.#stopReason;
        return undefined;
    }
  }
}

const stopReasonIn = ({ event, data }: QmpEvent): StopReason | undefined => {
  switch (event) {
    case 'BLOCK_IO_ERROR':
      return data['action'] === 'stop' ? 'io-error' : undefined;
    case 'WATCHDOG':
      return data['action'] === 'pause' ? 'watchdog' : undefined;
    case 'GUEST_PANICKED':
      return data['action'] === 'pause' ? 'guest-panicked' : undefined;
    case 'SHUTDOWN':
      return 'shutdown';
    default:
      return undefined;
  }
};

const stoppedFor = (reason: StopReason | undefined): ObservedState => {
  switch (reason) {
    case 'guest-panicked':
      return { state: 'failed', reason };
    case 'shutdown':
      return { state: 'stopping' };
    case undefined:
      return { state: 'paused', reason: 'user' };
    default:
      return { state: 'paused', reason };
  }
};

/** Milliseconds since the epoch; now, where QEMU could not read the clock. */
export const timeOf = ({ timestamp }: QmpEvent): number =>
  timestamp.seconds < 0 ? Date.now() : timestamp.seconds * 1000 + Math.floor(timestamp.microseconds / 1000);

/** The last SHUTDOWN that nothing came after: with `-no-shutdown` a guest may be resumed. */
export const finalShutdown = (events: readonly QmpEvent[]): QmpEvent | undefined => {
  const last = events.findLastIndex(({ event }) => event === 'SHUTDOWN');
  const resumed = events.findLastIndex(({ event }) => event === 'RESUME');
  return last > resumed ? events[last] : undefined;
};

/** How the init of a container ended, where its warden has told it (docs/warden.md): after that SHUTDOWN. */
export const initEnd = (events: readonly QmpEvent[], shutdown: QmpEvent): ProgramEnd | undefined => {
  const told = events.slice(events.lastIndexOf(shutdown)).find(({ event }) => event === INIT_END_EVENT);
  const { status, signal } = told?.data ?? {};
  if (isSmallNumber(signal)) return { signal };
  return isSmallNumber(status) ? { exitCode: status } : undefined;
};

const isSmallNumber = (value: unknown): value is number =>
  typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < 256;

export interface EndEvidence {
  /** The SHUTDOWN in the black box, if there is one. */
  readonly shutdown: QmpEvent | undefined;
  /** Of a container whose warden has told it. */
  readonly init?: ProgramEnd | undefined;
  /** Whether the driver wrote down that it would kill the process. */
  readonly asked: boolean;
  /** Of our own child. */
  readonly exit: ExitStatus | undefined;
  /** Last words on standard error of this run. */
  readonly lastWords: string;
  readonly now: number;
}

/** What shows that a process died by its own fault, and not by somebody's hand. */
const FAULT_SIGNALS: ReadonlySet<string> = new Set([
  'SIGABRT',
  'SIGBUS',
  'SIGFPE',
  'SIGILL',
  'SIGSEGV',
  'SIGSYS',
  'SIGTRAP',
]);

/** How a process ended, from what it left. */
export const judgeEnd = (evidence: EndEvidence): GuestEnd => {
  const { shutdown, asked, exit, lastWords, now } = evidence;
  const cause = shutdown ? causeOfShutdown(shutdown) : asked ? 'asked' : causeOfSilence(exit, lastWords);
  const init = initOf(evidence);
  const how = init ? describeInit(init) : shutdown ? describeShutdown(shutdown) : describeExit(exit);
  const words = init || cause === 'guest-shutdown' || cause === 'asked' ? '' : lastWords;
  const detail = [how, words].filter((part) => part !== '').join(': ');
  return { cause, ...(detail === '' ? {} : { detail }), ...init, at: shutdown ? timeOf(shutdown) : now };
};

/** Where it tells how a container ended: one that powers off ends by a signal too, and a failure is that of liblxc. */
const initOf = ({ shutdown, init }: EndEvidence): ProgramEnd | undefined => {
  switch (shutdown?.data['reason']) {
    case 'guest-panic':
    case 'host-signal':
      return init;
    case 'guest-shutdown':
      return init?.exitCode === undefined ? undefined : init;
    default:
      return undefined;
  }
};

const describeInit = ({ exitCode, signal = 0 }: ProgramEnd): string =>
  exitCode === undefined
    ? `its init was ended by ${signalName(signal)}`
    : `its init ended with status ${exitCode}`;

const describeShutdown = ({ data }: QmpEvent): string => `its monitor said ${String(data['reason'])}`;

/** By `ShutdownCause` of qapi/run-state.json. */
const causeOfShutdown = ({ data }: QmpEvent): GuestEnd['cause'] => {
  switch (data['reason']) {
    case 'guest-shutdown':
    // Only with -no-reboot: to the guest's process it is the same.
    case 'guest-reset':
      return 'guest-shutdown';
    case 'host-qmp-quit':
    case 'host-qmp-system-reset':
    case 'host-ui':
      return 'asked';
    case 'host-signal':
      return 'killed';
    case 'guest-panic':
    case 'host-error':
      return 'crashed';
    default:
      return 'unknown';
  }
};

/** In its first milliseconds a process has no black box yet; then its words tell of a signal that it obeyed. */
const OBEYED_SIGNAL = /terminating on signal \d+/;

const causeOfSilence = (exit: ExitStatus | undefined, lastWords: string): GuestEnd['cause'] => {
  if (OBEYED_SIGNAL.test(lastWords)) return 'killed';
  if (exit === undefined) return 'unknown';
  if (exit.signal !== null) return FAULT_SIGNALS.has(exit.signal) ? 'crashed' : 'killed';
  return exit.code === 0 ? 'unknown' : 'crashed';
};

const describeExit = (exit: ExitStatus | undefined): string => {
  if (exit === undefined) return 'it ended without a word';
  return exit.signal === null ? `exit status ${exit.code ?? 'unknown'}` : `ended by ${exit.signal}`;
};
