/**
 * What a guest may use, changed while it runs: where its driver can do that, it holds from now on and is not left for the
 * next start. In the guest's turn, so that a start that is under way has come to its end before.
 */
import { isDeepStrictEqual } from 'node:util';
import { deadline } from '../../lib/abort.ts';
import { toRoostError } from '../../protocol/errors.ts';
import type { AppliedSettings, StoredSpec } from '../inventory/guest-table.ts';
import type { Guest } from './guest.ts';

const TIMEOUT_MS = 10_000;

const members = ['memoryBytes', 'cpu', 'limits'] as const;
type Limiting = Pick<StoredSpec, (typeof members)[number]>;

export const isLimit = (member: string): boolean => members.some((each) => each === member);

const limitingOf = ({ memoryBytes, cpu, limits }: Limiting): Limiting => ({ memoryBytes, cpu, limits });

/** Nothing to do where all of it holds already, and for a guest whose limits are part of its machine. */
const holdTo = async (guest: Guest, spec: Limiting, applied: AppliedSettings): Promise<void> => {
  const wanted = limitingOf(spec);
  const { handle, house } = guest;
  if (!handle?.setLimits || isDeepStrictEqual(wanted, limitingOf(applied))) return;
  using limit = deadline(TIMEOUT_MS, house.stopping);
  const { memoryBytes, cpu, limits } = wanted;
  await handle.setLimits({ memoryBytes, cpus: cpu.count, limits }, limit.signal);
  const { applied: now } = guest.status;
  if (guest.handle === handle && now) guest.setStatus({ applied: { ...now, ...wanted } });
};

/** Resolves with words for whoever asked where it could not be done: then it is as it was until the next start. */
export const holdToLimits = async (guest: Guest): Promise<string | undefined> => {
  const { status, record, house, name } = guest;
  if (guest.removed || !status.applied) return undefined;
  try {
    await holdTo(guest, record.spec, status.applied);
    return undefined;
  } catch (error) {
    if (!house.stopping.aborted)
      house.log.warn({ err: error, guest: name }, 'the limits of a running guest could not be changed');
    return `The guest runs on with the limits that it had, until its next start: ${toRoostError(error).message}`;
  }
};

/** Takes its turn; waits for it, and gives those words, unless other work is before it that may be a while. */
export const holdToLimitsInTurn = async (guest: Guest): Promise<string | undefined> => {
  const isIdle = !guest.mailbox.busy;
  const held = guest.mailbox.post(() => holdToLimits(guest));
  return isIdle ? await held : undefined;
};
