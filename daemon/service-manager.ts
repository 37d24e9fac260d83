/**
 * The service manager that started the daemon, if one did (systemd's protocol: sd_notify(3), sd_listen_fds(3),
 * sd_watchdog_enabled(3)): the socket it handed over, what it is told, and the watchdog it waits for.
 *
 * What is told is only told: a manager that does not listen is no reason to fail. The watchdog is fed by the event loop
 * itself and after the inventory has answered, so that a daemon which stands still is started again; its guests run on.
 */
import type { Log } from '../lib/log.ts';
import { adoptListener, sdNotify } from '../native/index.ts';
import { RoostError } from '../protocol/errors.ts';

/** sd_listen_fds(3): the first descriptor that is handed over. */
const FIRST_DESCRIPTOR = 3;

/** A listening socket made by somebody else, with mode and group as its maker set them. */
export interface InheritedSocket {
  readonly descriptor: number;
  readonly path: string;
}

type Environment = Record<string, string | undefined>;

const refused = (why: string, cause?: unknown): RoostError =>
  new RoostError('InvalidArgument', `The service manager handed over a socket that cannot be used: ${why}`, {
    hint: 'It hands over one, ListenStream= with an absolute path in roostd.socket.',
    cause,
  });

/**
 * The socket that the manager listens on for this very process, if there is one. Takes the variables out of `env`, which
 * no child of ours should take for its own. Errors: InvalidArgument.
 */
export const takeInheritedSocket = (env: Environment, pid: number): InheritedSocket | undefined => {
  const { LISTEN_PID: forPid, LISTEN_FDS: count } = env;
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) delete env[name];
  if (forPid !== String(pid) || count === undefined || count === '0') return undefined;
  if (count !== '1') throw refused(`there are ${count} of them`);
  try {
    return { descriptor: FIRST_DESCRIPTOR, path: adoptListener(FIRST_DESCRIPTOR) };
  } catch (error) {
    throw refused(error instanceof Error ? error.message : String(error), error);
  }
};

/** Milliseconds after which the manager takes the daemon for stuck; undefined without a watchdog for this process. */
export const watchdogTimeoutMs = (env: Environment, pid: number): number | undefined => {
  const { WATCHDOG_USEC: microseconds, WATCHDOG_PID: forPid } = env;
  if (microseconds === undefined || (forPid !== undefined && forPid !== String(pid))) return undefined;
  const timeoutMs = Number(microseconds) / 1000;
  return Number.isFinite(timeoutMs) && timeoutMs > 0 ? timeoutMs : undefined;
};

export interface ServiceManagerOptions {
  readonly log: Log;
  /** sdNotify, but for tests. */
  readonly notify?: (state: string) => boolean;
}

export class ServiceManager {
  readonly #log: Log;
  readonly #notify: (state: string) => boolean;
  #timer: NodeJS.Timeout | undefined;

  constructor({ log, notify = sdNotify }: ServiceManagerOptions) {
    this.#log = log;
    this.#notify = notify;
  }

  /** What the daemon does, for people who ask the manager. */
  status(text: string): void {
    this.#tell(`STATUS=${text}`);
  }

  ready(status: string): void {
    this.#tell(`READY=1\nSTATUS=${status}`);
  }

  /** The daemon ends; there is no watchdog from here on. */
  stopping(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#tell('STOPPING=1\nSTATUS=Stopping; guests run on');
  }

  /**
   * Feeds the watchdog twice in its time, as long as `look` gives a status. One that throws feeds nothing: when it
   * goes on throwing, the manager starts the daemon again.
   */
  watch(timeoutMs: number, look: () => string): void {
    const feed = (): void => {
      let status: string;
      try {
        status = look();
      } catch (error) {
        this.#log.error({ err: error }, 'the inventory does not answer; the watchdog is not fed');
        this.status('The inventory does not answer');
        return;
      }
      this.#tell(`WATCHDOG=1\nSTATUS=${status}`);
    };
    clearInterval(this.#timer);
    feed();
    this.#timer = setInterval(feed, timeoutMs / 2);
    this.#timer.unref();
  }

  #tell(state: string): void {
    try {
      this.#notify(state);
    } catch (error) {
      this.#log.warn({ err: error }, 'the service manager could not be told');
    }
  }
}
