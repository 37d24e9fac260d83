import { getEventListeners } from 'node:events';
import { describe, expect, test, vi } from 'vitest';
import { abortReason, DeadlineError, deadline, deferred, firstOf, waitOrAbort } from '../../lib/abort.ts';

const listenersOf = (signal: AbortSignal): number => getEventListeners(signal, 'abort').length;

describe('firstOf', () => {
  test('aborts with the reason of the first that does', () => {
    const [one, other] = [new AbortController(), new AbortController()];
    const { signal } = firstOf(one.signal, other.signal);
    expect(signal.aborted).toBe(false);
    other.abort(new Error('the other'));
    one.abort(new Error('too late'));
    expect(signal.reason).toEqual(new Error('the other'));
    expect(firstOf(new AbortController().signal, one.signal).signal.reason).toEqual(new Error('too late'));
  });

  test('leaves nothing in its sources once it is cleared', () => {
    const source = new AbortController();
    for (let count = 0; count < 100; count += 1) firstOf(source.signal, new AbortController().signal).clear();
    expect(getEventListeners(source.signal, 'abort')).toHaveLength(0);
  });
});

describe('waitOrAbort', () => {
  test('gives the value and leaves no listener behind', async () => {
    const { signal } = new AbortController();
    const answer = deferred<string>();
    const waiting = waitOrAbort(answer.promise, signal);
    expect(listenersOf(signal)).toBe(1);
    answer.resolve('here');
    expect(await waiting).toBe('here');
    expect(listenersOf(signal)).toBe(0);
  });

  test('gives the rejection and leaves no listener behind', async () => {
    const { signal } = new AbortController();
    const failure = new Error('no');
    await expect(waitOrAbort(Promise.reject(failure), signal)).rejects.toBe(failure);
    expect(listenersOf(signal)).toBe(0);
  });

  test('rejects with the reason itself and hands the late value to its owner', async () => {
    const controller = new AbortController();
    const answer = deferred<string>();
    const late = deferred<string>();
    const waiting = waitOrAbort(answer.promise, controller.signal, { onLate: late.resolve });
    const reason = new Error('enough');
    controller.abort(reason);
    await expect(waiting).rejects.toBe(reason);
    answer.resolve('late');
    expect(await late.promise).toBe('late');
    expect(listenersOf(controller.signal)).toBe(0);
  });

  test('does not wait on a signal that has aborted, and still owns the promise', async () => {
    const answer = deferred<string>();
    const late = deferred<string>();
    const signal = AbortSignal.abort(new Error('before'));
    await expect(waitOrAbort(answer.promise, signal, { onLate: late.resolve })).rejects.toThrow('before');
    answer.resolve('late');
    expect(await late.promise).toBe('late');
  });

  test('swallows a late rejection', async () => {
    const unhandled = vi.fn<() => void>();
    process.on('unhandledRejection', unhandled);
    const answer = deferred<string>();
    await expect(waitOrAbort(answer.promise, AbortSignal.abort(new Error('x')))).rejects.toThrow('x');
    answer.reject(new Error('late'));
    // Unhandled rejections are reported before the next turn of the loop.
    await new Promise(setImmediate);
    process.off('unhandledRejection', unhandled);
    expect(unhandled).not.toHaveBeenCalled();
  });

  test('a value that was there before the abort wins', async () => {
    const controller = new AbortController();
    const onLate = vi.fn<() => void>();
    const waiting = waitOrAbort(Promise.resolve(1), controller.signal, { onLate });
    await Promise.resolve();
    controller.abort(new Error('too late'));
    expect(await waiting).toBe(1);
    expect(onLate).not.toHaveBeenCalled();
  });
});

describe('abortReason', () => {
  test('is the reason where that is an error', () => {
    const reason = new Error('mine');
    expect(abortReason(AbortSignal.abort(reason))).toBe(reason);
    expect(abortReason(AbortSignal.abort())).toMatchObject({ name: 'AbortError' });
  });

  test('wraps a reason that is no error', () => {
    expect(abortReason(AbortSignal.abort('because'))).toMatchObject({ name: 'AbortError', cause: 'because' });
  });
});

describe('deadline', () => {
  test('aborts with the time that has passed', () => {
    vi.useFakeTimers();
    try {
      const { signal } = deadline(5_000);
      vi.advanceTimersByTime(4_999);
      expect(signal.aborted).toBe(false);
      vi.advanceTimersByTime(1);
      expect(signal.reason).toBeInstanceOf(DeadlineError);
      expect(signal.reason).toMatchObject({ timeoutMs: 5_000 });
    } finally {
      vi.useRealTimers();
    }
  });

  test('does not abort once cleared, and lets the parent go', () => {
    vi.useFakeTimers();
    try {
      const parent = new AbortController();
      const limit = deadline(10, parent.signal);
      expect(listenersOf(parent.signal)).toBe(1);
      limit.clear();
      limit[Symbol.dispose]();
      expect(vi.getTimerCount()).toBe(0);
      expect(listenersOf(parent.signal)).toBe(0);
      parent.abort();
      expect(limit.signal.aborted).toBe(false);
    } finally {
      vi.useRealTimers();
    }
  });

  test('follows its parent, also one that aborted before', () => {
    vi.useFakeTimers();
    try {
      const parent = new AbortController();
      const limit = deadline(10, parent.signal);
      const reason = new Error('parent');
      parent.abort(reason);
      expect(limit.signal.reason).toBe(reason);
      expect(deadline(10, parent.signal).signal.reason).toBe(reason);
      expect(vi.getTimerCount()).toBe(0);
    } finally {
      vi.useRealTimers();
    }
  });

  test('lets the parent go when its time is over', () => {
    vi.useFakeTimers();
    try {
      const { signal } = new AbortController();
      deadline(10, signal);
      vi.advanceTimersByTime(10);
      expect(listenersOf(signal)).toBe(0);
    } finally {
      vi.useRealTimers();
    }
  });

  test('a time longer than a timer can hold does not fire at once', () => {
    vi.useFakeTimers();
    try {
      const { signal, clear } = deadline(2 ** 40);
      expect(deadline(Infinity).signal.aborted).toBe(false);
      vi.advanceTimersByTime(1_000);
      expect(signal.aborted).toBe(false);
      clear();
    } finally {
      vi.useRealTimers();
    }
  });
});
