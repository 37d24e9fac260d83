/**
 * The connection of one run, made when it is first asked for, and made again for those who wait for something that goes
 * on in a daemon which is restarted meanwhile. Such waiting is told of on standard error, ends with the run's own signal,
 * and is given up after a time.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { type Client, connect } from './client.ts';
import { CliFailure, isAway } from './failure.ts';
import type { Io } from './io.ts';

/** The file of the socket is there before anybody listens and after somebody was killed: only a try tells. */
const TRY_AGAIN_MS = 200;
const ERASE_LINE = '\r\u001b[K';

export class Connection {
  readonly #io: Io;
  readonly #socketPath: string;
  #client: Promise<Client> | undefined;
  #returning: Promise<Client> | undefined;

  constructor(io: Io, socketPath: string) {
    this.#io = io;
    this.#socketPath = socketPath;
  }

  readonly get = (): Promise<Client> => {
    this.#client ??= this.#connect();
    return this.#client;
  };

  /**
   * The connection after `lost` failed with `failure`, or after there was none; one for all who ask. Throws the failure
   * when it does not come.
   */
  readonly again = async (lost: Client | undefined, failure: unknown): Promise<Client> => {
    const current = await this.#client?.catch(() => undefined);
    if (current !== undefined && current !== lost) return current;
    this.#returning ??= this.#comeBack(lost, failure).finally(() => {
      this.#returning = undefined;
    });
    return await this.#returning;
  };

  /** A further one, which is the caller's to close. */
  readonly another = (): Promise<Client> => this.#connect();

  async close(): Promise<void> {
    try {
      (await this.#client)?.close();
    } catch {
      // Whoever asked for the client has had this failure.
    }
  }

  #connect(): Promise<Client> {
    const { signal, greetingTimeoutMs: timeoutMs } = this.#io;
    return connect({ socketPath: this.#socketPath, signal, timeoutMs });
  }

  async #comeBack(lost: Client | undefined, failure: unknown): Promise<Client> {
    const { signal, patienceMs } = this.#io;
    lost?.close();
    if (patienceMs === 0) throw failure;
    const until = performance.now() + patienceMs;
    this.#note('roostd is away; waiting until it is back (Ctrl-C ends the waiting only)');
    while (performance.now() < until) {
      await delay(TRY_AGAIN_MS, undefined, { signal }).catch(() => undefined);
      signal.throwIfAborted();
      try {
        const client = await this.#connect();
        this.#client = Promise.resolve(client);
        this.#note('roostd is back');
        return client;
      } catch (error) {
        if (!isAway(error)) throw error;
      }
    }
    throw failure instanceof CliFailure
      ? failure.because(`It did not come back in ${patienceMs / 1000} s`)
      : failure;
  }

  /** A line that shows progress is drawn again by itself. */
  #note(text: string): void {
    const { stderr } = this.#io;
    stderr.write(`${stderr.isTTY === true ? ERASE_LINE : ''}roost: ${text}\n`);
  }
}
