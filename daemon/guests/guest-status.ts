/** What a guest's state and its operations say of it. */
import type { GuestState } from '../../protocol/guest.ts';

/** States in which a process exists or may exist. */
export const LIVE_STATES: ReadonlySet<GuestState> = new Set([
  'starting',
  'running',
  'paused',
  'stopping',
  'unresponsive',
  'unknown',
]);

/** Kinds that may wait for a guest's consent. */
export const isDeviceWork = (kind: string): boolean =>
  /^guest-(disk|nic|cdrom)-(attach|detach|insert|eject)$/.test(kind);
