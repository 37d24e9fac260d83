import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { guestStateOf, isQemuRunState, qemuRunStates } from '../../../../drivers/processes/qmp/run-state.ts';

test('every run state of QEMU means one state of a guest', () => {
  const table = Object.fromEntries(qemuRunStates.map((runState) => [runState, guestStateOf(runState)]));
  expect(table).toEqual({
    prelaunch: { state: 'starting' },
    inmigrate: { state: 'starting' },
    running: { state: 'running' },
    paused: { state: 'paused', reason: 'user' },
    suspended: { state: 'paused', reason: 'suspended' },
    shutdown: { state: 'stopping' },
    'io-error': { state: 'paused', reason: 'io-error' },
    watchdog: { state: 'paused', reason: 'watchdog' },
    'guest-panicked': { state: 'failed', reason: 'guest-panicked' },
    'internal-error': { state: 'failed', reason: 'internal-error' },
    postmigrate: { state: 'paused', reason: 'migrated' },
    'finish-migrate': { state: 'paused', reason: 'migrating' },
    'save-vm': { state: 'paused', reason: 'saving' },
    'restore-vm': { state: 'paused', reason: 'restoring' },
    colo: { state: 'paused', reason: 'checkpoint' },
    debug: { state: 'paused', reason: 'debugger' },
  });
});

test('anything else is unknown, also names that every object has', () => {
  for (const text of ['', 'Running', 'toString', '__proto__', 'constructor']) {
    expect(guestStateOf(text)).toEqual({ state: 'unknown' });
  }
  fc.assert(
    fc.property(fc.string(), (text) => {
      fc.pre(!qemuRunStates.some((runState) => runState === text));
      expect(isQemuRunState(text)).toBe(false);
      expect(guestStateOf(text)).toEqual({ state: 'unknown' });
    }),
  );
});
