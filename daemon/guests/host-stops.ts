/** How a stop with the whole host is told from others, in the journal and in memory. */
import type { GuestRecord } from '../inventory/guest-table.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import type { Operations } from '../operations/operations.ts';

/** Among the arguments of a guest-stop: not to be given from outside. */
export const WITH_HOST = { withHost: true } as const;

export const isWithHost = ({
  kind,
  arguments: { withHost },
}: Pick<OperationRecord, 'kind' | 'arguments'>): boolean => kind === 'guest-stop' && withHost === true;

export const HOST_SHUTDOWN = 'host-shutdown-guests';

/** Whether guests are being shut down with the host. */
export const hostStops = (operations: Operations): boolean =>
  operations.isUnderWay(({ kind }) => kind === HOST_SHUTDOWN);

/** Whether a guest ends because its host does, also where the stop that asked it has failed meanwhile. */
export const endsWithHost = (unfinished: readonly OperationRecord[], operations: Operations): boolean =>
  unfinished.some(isWithHost) || hostStops(operations);

/** Whether a guest that powers itself off is to run all the same, so that its target stays as it is. */
export const keepsTarget = (
  { target, spec }: Pick<GuestRecord, 'target' | 'spec'>,
  { withHost, programFailed }: { readonly withHost: boolean; readonly programFailed: boolean },
): boolean =>
  withHost ||
  target === 'stopped' ||
  spec.restartPolicy.when === 'always' ||
  (spec.restartPolicy.when === 'on-failure' && programFailed);
