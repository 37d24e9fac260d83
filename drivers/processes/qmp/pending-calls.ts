/**
 * The calls of one QMP session that wait for an answer. Each ends exactly once: with its reply, its error,
 * the abort of its signal, or the end of the session. A call given up by its caller leaves its id behind, so
 * that the answer, when it comes after all, is known and dropped.
 */
import { abortReason } from '../../../lib/abort.ts';
import type { QmpRequest } from './qmp-errors.ts';

/** A call in the table, as seen from outside. */
export interface PendingCall extends QmpRequest {
  readonly id: number;
  resolve(reply: unknown): void;
  reject(error: Error): void;
}

interface Entry {
  readonly call: PendingCall;
  /** Stops listening to the caller's signal. */
  readonly detach: () => void;
}

export class PendingCalls {
  #nextId = 1;
  readonly #waiting = new Map<number, Entry>();
  readonly #abandoned = new Set<number>();

  /** Calls that wait for an answer, oldest first. */
  get list(): readonly PendingCall[] {
    return [...this.#waiting.values()].map((entry) => entry.call);
  }

  /** How many calls were given up and are still unanswered. */
  get abandonedCount(): number {
    return this.#abandoned.size;
  }

  /** Enters a call; `started` gets its id, to send it, before anything can end it. */
  open(request: QmpRequest, signal: AbortSignal, started: (id: number) => void): Promise<unknown> {
    return new Promise<unknown>((resolve, reject) => {
      const id = this.#nextId;
      this.#nextId += 1;
      const onAbort = (): void => {
        if (this.#waiting.delete(id)) {
          this.#abandoned.add(id);
          reject(abortReason(signal));
        }
      };
      signal.addEventListener('abort', onAbort, { once: true });
      const call = { id, command: request.command, arguments: request.arguments, resolve, reject };
      this.#waiting.set(id, { call, detach: () => signal.removeEventListener('abort', onAbort) });
      try {
        started(id);
      } catch (error) {
        this.take(id);
        reject(error);
      }
    });
  }

  /**
   * Takes the call that a reply's id belongs to out of the table, for the taker to end. `abandoned`: its
   * caller is gone. `undefined`: there never was such a call, or it was answered before.
   */
  take(id: unknown): PendingCall | 'abandoned' | undefined {
    if (typeof id !== 'number') return undefined;
    if (this.#abandoned.delete(id)) return 'abandoned';
    const entry = this.#waiting.get(id);
    if (entry === undefined) return undefined;
    this.#waiting.delete(id);
    entry.detach();
    return entry.call;
  }

  /** Ends every call with an error of its own. */
  failAll(errorFor: (call: PendingCall) => Error): void {
    for (const call of this.list) {
      if (this.take(call.id) === call) call.reject(errorFor(call));
    }
    this.#abandoned.clear();
  }
}
