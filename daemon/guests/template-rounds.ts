/**
 * Files of a template's former rounds, on which nobody lies any more. Each time that a template is made anew it writes into
 * other files over its first ones; those of the rounds in between go with the last fork on them.
 */
import type { FoundProcess } from '../../drivers/driver.ts';
import type { GuestId } from '../../protocol/types.ts';
import type { StoredDisk, StoredSpec } from '../inventory/guest-table.ts';
import { guestForm } from '../records/forms.ts';
import { hasOwnFile } from './forks.ts';
import type { Guest } from './guest.ts';
import type { House } from './house.ts';
import { volumeSpecOf } from './launch-of.ts';

type Lying = Pick<StoredDisk, 'template' | 'templateRound'>;

/** Rounds of a template that disks lie on. Pure. */
export const roundsUnder = (disks: readonly Lying[], template: GuestId): ReadonlySet<number> =>
  new Set(disks.flatMap((disk) => (disk.template === template ? [disk.templateRound ?? 0] : [])));

const disksOf = ({ disks, keptDisks }: Pick<StoredSpec, 'disks' | 'keptDisks'>): readonly Lying[] => [
  ...disks,
  ...keptDisks,
];

/** Disks of guests that only their records beside the disks tell of; undefined where there may be more than can be told. */
const disksOfLost = async (house: House): Promise<readonly Lying[] | undefined> => {
  const { inventory, pool, drivers, stateDirectory, runDirectory } = house;
  const processes = await Promise.all([...drivers.values()].map((driver) => driver.processes()));
  const isLost = ({ guest, lock }: FoundProcess): boolean =>
    [stateDirectory, runDirectory].some((place) => lock.startsWith(`${place}/guests/`)) &&
    inventory.guests.byId(guest) === undefined;
  if (processes.flat().some(isLost)) return undefined;
  const { records, unreadable } = await pool.readRecords();
  const told = records.map((record) => guestForm.safeParse(record).data);
  if (unreadable.length > 0 || told.some((record) => record === undefined)) return undefined;
  return told.flatMap((record) => (record ? disksOf(record.spec as unknown as StoredSpec) : []));
};

/** The first is under all others, and the last is what forks are given. */
const unusedRounds = (guest: Guest, last: number): readonly number[] => {
  const { inventory } = guest.house;
  const all = inventory.guests.all().flatMap(({ record }) => disksOf(record.spec));
  const used = roundsUnder(all, guest.id);
  return Array.from({ length: last }, (_, round) => round).filter((round) => round > 0 && !used.has(round));
};

const prune = async (guest: Guest): Promise<void> => {
  const { pool, log } = guest.house;
  const { template, disks } = guest.record.spec;
  if (guest.removed || !template || template.remadeBy !== undefined) return;
  const volumes = unusedRounds(guest, template.round ?? 0).flatMap((round) =>
    disks
      .filter((disk) => hasOwnFile(disk) && !disk.readOnly)
      .map((disk) => ({ round, volume: volumeSpecOf(guest, { ...disk, round }) })),
  );
  const sizes = await Promise.all(volumes.map(({ volume }) => pool.allocatedBytes(volume)));
  const there = volumes.filter((_, index) => sizes[index] !== undefined);
  if (there.length === 0) return;
  const lost = await disksOfLost(guest.house);
  if (!lost) return;
  const used = roundsUnder(lost, guest.id);
  for (const { round, volume } of there) {
    if (used.has(round)) continue;
    await pool.deleteVolume(volume);
    log.info({ guest: guest.name, round, disk: volume.name }, 'a former round of a template is gone');
  }
};

/** In the template's turn. What cannot be removed now is looked for again the next time; never rejects. */
export const pruneRounds = async (guest: Guest): Promise<void> => {
  try {
    await prune(guest);
  } catch (err) {
    if (guest.house.stopping.aborted) return;
    guest.house.log.warn({ err, guest: guest.name }, 'former rounds of a template could not be removed');
  }
};

/** After a guest has gone: what its disks lay on may be nobody's any more. */
export const pruneUnder = ({ house, record }: Guest): void => {
  const templates = new Set(disksOf(record.spec).flatMap(({ template }) => template ?? []));
  for (const id of templates) {
    const template = house.guestById(id);
    if (template) void template.mailbox.post(() => pruneRounds(template));
  }
};
