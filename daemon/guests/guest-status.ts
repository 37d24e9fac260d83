/** What a guest's state and its operations say of it. */
import type { GuestHandle } from '../../drivers/driver.ts';
import type { GuestState } from '../../protocol/guest.ts';
import type { OperationId } from '../../protocol/types.ts';
import type { GuestStatus } from '../inventory/guest-table.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';

/** States in which a process exists or may exist. */
export const LIVE_STATES: ReadonlySet<GuestState> = new Set([
  'starting',
  'running',
  'paused',
  'stopping',
  'unresponsive',
  'unknown',
]);

/** Kinds that make a process of a guest. */
export const isStart = (kind: string): boolean =>
  kind === 'guest-start' || kind === 'template-create' || kind === 'guest-prepare';

/** Kinds that may wait for a guest's consent. */
export const isDeviceWork = (kind: string): boolean =>
  /^guest-(disk|nic|cdrom)-(attach|detach|insert|eject)$/.test(kind);

/** Kinds that wait as long as a guest's process, or its agent, gives no answer. */
export const waitsForGuest = (kind: string): boolean =>
  isDeviceWork(kind) || /^guest-(pause|resume|reset|fsfreeze-freeze|fsfreeze-thaw)$/.test(kind);

/** What silence changes: it lasts since the first time that it was found, whichever daemon found it. */
export const silentStatus = (
  { process }: GuestStatus,
  { reason, since }: { readonly reason: string; readonly since: number },
): Pick<GuestStatus, 'state' | 'reason' | 'process'> => {
  if (!process) return { state: 'unresponsive', reason };
  const silentSince = Math.min(process.silentSince ?? since, since);
  return { state: 'unresponsive', reason, process: { ...process, silentSince } };
};

/** Since when a monitor is silent is told as long as it is. */
export const withoutOldSilence = (status: GuestStatus): GuestStatus => {
  if (status.state === 'unresponsive' || status.process?.silentSince === undefined) return status;
  const { silentSince: _over, ...process } = status.process;
  return { ...status, process };
};

/** What is kept of a process that is taken charge of; of the same one as before, what is known of it. */
export const processOf = (
  before: GuestStatus['process'],
  { process, accel }: Pick<GuestHandle, 'process' | 'accel'>,
  now: number,
): NonNullable<GuestStatus['process']> => {
  const isSame = before?.pid === process.pid && before.startTicks === process.startTicks;
  return {
    ...process,
    startedAt: isSame ? before.startedAt : now,
    accel,
    ...(isSame && before.ready ? { ready: before.ready } : {}),
    ...(isSame && before.frozen ? { frozen: before.frozen } : {}),
    ...(isSame && before.lostFilesystems ? { lostFilesystems: before.lostFilesystems } : {}),
  };
};

/** Where an operation stands in a guest's queue, the running one first. `heldBy`: who has the guest's turn from outside. */
export const placeAmong = (
  queue: readonly Pick<OperationRecord, 'id'>[],
  id: OperationId,
  heldBy: OperationId | undefined,
): { readonly position: number; readonly waitsFor?: OperationId } | undefined => {
  const index = queue.findIndex((each) => each.id === id);
  if (index < 0) return undefined;
  const waitsFor = queue[index - 1]?.id ?? heldBy;
  return { position: Math.max(1, index), ...(waitsFor === undefined ? {} : { waitsFor }) };
};
