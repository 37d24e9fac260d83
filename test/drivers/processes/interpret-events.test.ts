import { describe, expect, it } from 'vitest';
import type { GuestEnd } from '../../../drivers/driver.ts';
import {
  type EndEvidence,
  EventInterpreter,
  finalShutdown,
  initEnd,
  judgeEnd,
} from '../../../drivers/processes/interpret-events.ts';
import type { QmpEvent } from '../../../drivers/processes/qmp/qmp-types.ts';

const event = (name: string, data: Readonly<Record<string, unknown>> = {}): QmpEvent => ({
  event: name,
  data,
  timestamp: { seconds: 1_795_439_980, microseconds: 179_723 },
});
const at = 1_795_439_980_179;
const shutdown = (reason: string): QmpEvent =>
  event('SHUTDOWN', { guest: reason.startsWith('guest'), reason });

describe('EventInterpreter', () => {
  const statesAfter = (...events: readonly QmpEvent[]): unknown[] => {
    const interpreter = new EventInterpreter();
    return events.flatMap((one) => {
      const observation = interpreter.interpret(one);
      return observation.kind === 'state' ? [observation.observed] : [];
    });
  };

  it.each([
    ['nothing else', undefined, { state: 'paused', reason: 'user' }],
    ['a disk', event('BLOCK_IO_ERROR', { action: 'stop' }), { state: 'paused', reason: 'io-error' }],
    [
      'a disk that only reports',
      event('BLOCK_IO_ERROR', { action: 'report' }),
      { state: 'paused', reason: 'user' },
    ],
    ['the watchdog', event('WATCHDOG', { action: 'pause' }), { state: 'paused', reason: 'watchdog' }],
    ['a panic', event('GUEST_PANICKED', { action: 'pause' }), { state: 'failed', reason: 'guest-panicked' }],
    ['a power-off under -no-shutdown', shutdown('guest-shutdown'), { state: 'stopping' }],
  ])('knows that %s stopped the CPUs', (_what, before, expected) => {
    expect(statesAfter(...(before ? [before] : []), event('STOP'))).toEqual([expected]);
  });

  it('forgets the reason of an earlier stop once the guest runs', () => {
    const story = [
      event('BLOCK_IO_ERROR', { action: 'stop' }),
      event('STOP'),
      event('RESUME'),
      event('STOP'),
    ];
    expect(statesAfter(...story).at(-1)).toEqual({ state: 'paused', reason: 'user' });
  });

  it('follows sleep and waking', () => {
    expect(statesAfter(event('SUSPEND'), event('WAKEUP'))).toEqual([
      { state: 'paused', reason: 'suspended' },
      { state: 'running' },
    ]);
  });

  it("makes one observation of each event, with QEMU's time", () => {
    const interpreter = new EventInterpreter();
    expect(interpreter.interpret(shutdown('guest-shutdown'))).toEqual({ kind: 'guest-shutdown', at });
    expect(interpreter.interpret(shutdown('host-signal'))).toEqual({
      kind: 'driver-event',
      event: 'SHUTDOWN',
      data: { guest: false, reason: 'host-signal' },
      at,
    });
  });
});

describe('judgeEnd', () => {
  const evidence: EndEvidence = {
    shutdown: undefined,
    asked: false,
    exit: undefined,
    lastWords: 'the last words',
    now: 5,
  };
  const causeOf = (changes: Partial<EndEvidence>): string => judgeEnd({ ...evidence, ...changes }).cause;

  it.each([
    ['guest-shutdown', 'guest-shutdown'],
    ['guest-reset', 'guest-shutdown'],
    ['guest-panic', 'crashed'],
    ['host-error', 'crashed'],
    ['host-qmp-quit', 'asked'],
    ['host-signal', 'killed'],
    ['of-the-future', 'unknown'],
  ])('takes SHUTDOWN %s for %s', (reason, cause) => {
    expect(causeOf({ shutdown: shutdown(reason) })).toBe(cause);
  });

  it.each<[string, Partial<EndEvidence>, string]>([
    ['a wish that was written down', { asked: true, exit: { code: null, signal: 'SIGKILL' } }, 'asked'],
    ['a kill', { exit: { code: null, signal: 'SIGKILL' } }, 'killed'],
    ['a segmentation fault', { exit: { code: null, signal: 'SIGSEGV' } }, 'crashed'],
    ["the sandbox's kill", { exit: { code: null, signal: 'SIGSYS' } }, 'crashed'],
    ['an exit status', { exit: { code: 1, signal: null } }, 'crashed'],
    ['a silent exit', { exit: { code: 0, signal: null } }, 'unknown'],
    [
      'a signal that it obeyed',
      { exit: { code: 0, signal: null }, lastWords: 'terminating on signal 15 from pid 1' },
      'killed',
    ],
    ['no trace at all', {}, 'unknown'],
  ])('without SHUTDOWN judges %s', (_what, changes, cause) => {
    expect(causeOf(changes)).toBe(cause);
  });

  it('believes the guest rather than the wish: it was first', () => {
    expect(causeOf({ shutdown: shutdown('guest-shutdown'), asked: true })).toBe('guest-shutdown');
  });

  it.each<[string, EndEvidence['init'], Partial<GuestEnd>]>([
    ['guest-shutdown', { exitCode: 0 }, { detail: 'its init ended with status 0', exitCode: 0 }],
    // What a container that powers off ends with.
    ['guest-shutdown', { signal: 2 }, { detail: 'its monitor said guest-shutdown' }],
    ['guest-panic', { exitCode: 5 }, { detail: 'its init ended with status 5', exitCode: 5 }],
    ['guest-panic', { signal: 11 }, { detail: 'its init was ended by SIGSEGV', signal: 11 }],
    ['host-signal', { signal: 9 }, { detail: 'its init was ended by SIGKILL', signal: 9 }],
    ['host-error', { exitCode: 1 }, { detail: 'its monitor said host-error: the last words' }],
    ['host-qmp-quit', { signal: 9 }, { detail: 'its monitor said host-qmp-quit' }],
  ])('of a container after %s with %j', (reason, init, told) => {
    const { cause, at: _at, ...end } = judgeEnd({ ...evidence, shutdown: shutdown(reason), init });
    expect(end).toEqual(told);
    expect(cause).toBe(causeOf({ shutdown: shutdown(reason) }));
  });

  it('shows last words only where they tell something', () => {
    expect(judgeEnd({ ...evidence, exit: { code: 1, signal: null } }).detail).toBe(
      'exit status 1: the last words',
    );
    expect(judgeEnd({ ...evidence, asked: true, exit: { code: null, signal: 'SIGKILL' } }).detail).toBe(
      'ended by SIGKILL',
    );
    expect(judgeEnd({ ...evidence, shutdown: shutdown('guest-shutdown') }).at).toBe(at);
  });
});

describe('how an init ended', () => {
  const ended = (data: Readonly<Record<string, unknown>>): QmpEvent => event('CONTAINER_END', data);
  const last = shutdown('guest-panic');

  it.each<[Readonly<Record<string, unknown>>, ReturnType<typeof initEnd>]>([
    [{ status: 0 }, { exitCode: 0 }],
    [{ status: 3 }, { exitCode: 3 }],
    [{ signal: 11 }, { signal: 11 }],
    [{}, undefined],
    [{ status: 'three' }, undefined],
    [{ status: 1e9 }, undefined],
    [{ signal: 0.5 }, undefined],
  ])('is told as %j', (data, end) => {
    expect(initEnd([event('RESUME'), last, ended(data)], last)).toEqual(end);
  });

  it('is not known where nothing told of it after that shutdown', () => {
    expect(initEnd([last], last)).toBeUndefined();
    expect(initEnd([ended({ status: 3 }), last], last)).toBeUndefined();
  });
});

describe('finalShutdown', () => {
  it('is the last one that no RESUME came after', () => {
    const last = shutdown('guest-shutdown');
    expect(finalShutdown([event('RESUME'), last])).toBe(last);
    expect(finalShutdown([shutdown('guest-shutdown'), event('STOP'), event('RESUME')])).toBeUndefined();
    expect(finalShutdown([])).toBeUndefined();
  });
});
