/**
 * What each of QEMU's run states (qapi/run-state.json, `RunState`) means for a guest. One table, no other
 * place interprets them.
 */

export const qemuRunStates = [
  'prelaunch',
  'inmigrate',
  'running',
  'paused',
  'suspended',
  'shutdown',
  'io-error',
  'watchdog',
  'guest-panicked',
  'internal-error',
  'postmigrate',
  'finish-migrate',
  'save-vm',
  'restore-vm',
  'colo',
  'debug',
] as const;

export type QemuRunState = (typeof qemuRunStates)[number];

export type PausedReason =
  | 'user'
  | 'suspended'
  | 'io-error'
  | 'watchdog'
  | 'migrated'
  | 'migrating'
  | 'saving'
  | 'restoring'
  | 'checkpoint'
  | 'debugger';

export type FailedReason = 'guest-panicked' | 'internal-error';

/** A guest's state as its monitor tells it; what only the process or the daemon can know is not among these. */
export type MonitorGuestState =
  | { readonly state: 'starting' }
  | { readonly state: 'running' }
  | { readonly state: 'paused'; readonly reason: PausedReason }
  | { readonly state: 'stopping' }
  | { readonly state: 'failed'; readonly reason: FailedReason }
  | { readonly state: 'unknown' };

const guestStates: { readonly [S in QemuRunState]: MonitorGuestState } = {
  // Launched with -S and not resumed yet.
  prelaunch: { state: 'starting' },
  // Waiting for the state of a guest that comes from elsewhere.
  inmigrate: { state: 'starting' },
  running: { state: 'running' },
  paused: { state: 'paused', reason: 'user' },
  // ACPI S3: the guest put itself to sleep.
  suspended: { state: 'paused', reason: 'suspended' },
  // Powered off, while the process was told to stay (-no-shutdown): it remains to be ended.
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
};

/** The guest state that a run state means; a run state that this table does not know is `unknown`. */
export function guestStateOf(runState: string): MonitorGuestState {
  return isQemuRunState(runState) ? guestStates[runState] : { state: 'unknown' };
}

export function isQemuRunState(text: string): text is QemuRunState {
  return Object.hasOwn(guestStates, text);
}
