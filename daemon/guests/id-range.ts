/**
 * Which ids of the host a container has. Each has as many as a system can name, and no other guest has any of them: pure.
 * Nothing that it writes is kept under them, so that it could have others at any start; it has the same for good, so that
 * whoever looks at the host knows whose a process is.
 */
import { createHash } from 'node:crypto';
import type { IdRange } from '../../protocol/container.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { InstanceId } from '../../protocol/types.ts';

export const IDS_PER_CONTAINER = 65_536;

/** From the first id of containers up to that of machines' processes, where both are as they are by default. */
export const ID_RANGES = 12_288;

/** The upper part of what systemd's UIDS-GIDS document leaves to containers. */
export const FIRST_CONTAINER_ID = 1_073_741_824;

export const overlaps = (one: IdRange, other: IdRange): boolean =>
  one.first < other.first + other.count && other.first < one.first + one.count;

/** Two instances on one host begin at different places. */
const placeOfInstance = (instance: InstanceId): number =>
  createHash('sha256').update(instance).digest().readUInt32BE(0) % ID_RANGES;

/** The first free one from that of its number on. Errors: ResourceExhausted. */
export const idRangeFor = ({
  instance,
  number,
  firstId,
  taken,
}: {
  readonly instance: InstanceId;
  readonly number: number;
  readonly firstId: number;
  /** Of other guests, and what the host has given to others. */
  readonly taken: readonly IdRange[];
}): IdRange => {
  const start = placeOfInstance(instance) + number;
  for (let tries = 0; tries < ID_RANGES; tries += 1) {
    const first = firstId + ((start + tries) % ID_RANGES) * IDS_PER_CONTAINER;
    const range = { first, count: IDS_PER_CONTAINER };
    if (!taken.some((other) => overlaps(range, other))) return range;
  }
  throw new RoostError('ResourceExhausted', `All ${ID_RANGES} ranges of ids for containers are taken`, {
    data: { firstId, ranges: ID_RANGES },
    hint: 'Delete containers that are not needed, or name another containers.firstId in the configuration.',
  });
};
