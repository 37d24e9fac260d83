/**
 * Waiting that can be given up.
 *
 * Owns the three small tools every wait in the project is made of: giving up a wait, a deadline, and a
 * promise settled from outside. Rules it keeps: a listener or timer never outlives its wait, a promise
 * nobody waits for any more still has an owner, and the reason of an abort reaches the caller unwrapped.
 */

/** `setTimeout` turns anything longer into one millisecond. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

export interface WaitOptions<T> {
  /**
   * Receives the value of a promise that resolves after its wait was given up, so that whatever it holds
   * can be released. Must not throw.
   */
  readonly onLate?: (value: T) => void;
}

/**
 * Waits for `promise` until `signal` aborts, then rejects with the signal's reason. The promise itself goes
 * on: a late value goes to `onLate`, a late rejection is swallowed.
 */
export function waitOrAbort<T>(
  promise: Promise<T>,
  signal: AbortSignal,
  options: WaitOptions<T> = {},
): Promise<T> {
  const { onLate } = options;
  const abandon = (): void => {
    promise.then(
      (value) => onLate?.(value),
      () => undefined,
    );
  };
  if (signal.aborted) {
    abandon();
    return Promise.reject(abortReason(signal));
  }
  return new Promise<T>((resolve, reject) => {
    let over = false;
    const onAbort = (): void => {
      if (over) return;
      over = true;
      abandon();
      reject(abortReason(signal));
    };
    const settle = (finish: () => void): void => {
      if (over) return;
      over = true;
      signal.removeEventListener('abort', onAbort);
      finish();
    };
    signal.addEventListener('abort', onAbort, { once: true });
    promise.then(
      (value) => settle(() => resolve(value)),
      (error: unknown) => settle(() => reject(error)),
    );
  });
}

/** The reason of an aborted signal as an Error; a reason that is none becomes the `cause` of one. */
export function abortReason(signal: AbortSignal): Error {
  const reason: unknown = signal.reason;
  if (reason instanceof Error) return reason;
  const error = new Error('The wait was given up', { cause: reason });
  error.name = 'AbortError';
  return error;
}

/** The reason of a signal that aborted because its time was over. */
export class DeadlineError extends Error {
  override readonly name = 'DeadlineError';
  readonly timeoutMs: number;

  constructor(timeoutMs: number) {
    super(`The deadline of ${timeoutMs} ms has passed`);
    this.timeoutMs = timeoutMs;
  }
}

export interface Deadline extends Disposable {
  /** A deadline aborts it with a {@link DeadlineError}, or with the parent's reason if the parent aborts first. */
  readonly signal: AbortSignal;
  /** Ends it without aborting; may be called more than once. */
  readonly clear: () => void;
}

/**
 * A signal that aborts after `timeoutMs`, or as soon as `parent` does. The timer keeps no process alive; call
 * `clear` (or declare it with `using`) when the wait is over. `Infinity` means no time limit.
 */
export function deadline(timeoutMs: number, parent?: AbortSignal): Deadline {
  const controller = new AbortController();
  const timer =
    timeoutMs === Infinity
      ? undefined
      : setTimeout(
          () => {
            parent?.removeEventListener('abort', onParentAbort);
            controller.abort(new DeadlineError(timeoutMs));
          },
          Math.min(timeoutMs, LONGEST_TIMER_MS),
        );
  timer?.unref();
  const clear = (): void => {
    clearTimeout(timer);
    parent?.removeEventListener('abort', onParentAbort);
  };
  function onParentAbort(): void {
    clear();
    controller.abort(parent?.reason);
  }
  if (parent?.aborted === true) onParentAbort();
  else parent?.addEventListener('abort', onParentAbort, { once: true });
  return { signal: controller.signal, clear, [Symbol.dispose]: clear };
}

/**
 * A signal that aborts as soon as one of several does, with its reason. `AbortSignal.any` leaves a weak reference in each
 * of them for as long as that one lives (Node 20): in a signal of the daemon for ever. This leaves nothing behind once it
 * is cleared or has aborted.
 */
export function firstOf(...signals: readonly AbortSignal[]): Deadline {
  const controller = new AbortController();
  const clear = (): void => {
    for (const signal of signals) signal.removeEventListener('abort', onAbort);
  };
  function onAbort(): void {
    clear();
    controller.abort(signals.find((signal) => signal.aborted)?.reason);
  }
  if (signals.some((signal) => signal.aborted)) onAbort();
  else for (const signal of signals) signal.addEventListener('abort', onAbort, { once: true });
  return { signal: controller.signal, clear, [Symbol.dispose]: clear };
}

export interface Deferred<T> {
  readonly promise: Promise<T>;
  readonly resolve: (value: T | PromiseLike<T>) => void;
  readonly reject: (reason: Error) => void;
}

/** A promise that is settled from outside. */
export function deferred<T>(): Deferred<T> {
  let resolve: Deferred<T>['resolve'] = () => undefined;
  let reject: Deferred<T>['reject'] = () => undefined;
  const promise = new Promise<T>((onResolve, onReject) => {
    resolve = onResolve;
    reject = onReject;
  });
  return { promise, resolve, reject };
}
