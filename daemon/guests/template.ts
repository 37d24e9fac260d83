/**
 * template-create: a stopped guest is booted to where its main program would begin, and kept so for good. Its process
 * lives on and runs no more: it holds the memory that forks begin with. Its disks are written no more either; forks lie
 * on them, those too that are made when the memory is gone.
 */
import type { OperationId } from '../../protocol/types.ts';
import type { StoredSpec } from '../inventory/guest-table.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import type { Step } from '../operations/steps.ts';
import { changeRecord } from './device-work.ts';
import { asForkOf, isKept, roundOf } from './forks.ts';
import type { Guest } from './guest.ts';
import { prepareForForks } from './inside.ts';
import { volumeSpecOf, volumeSpecs } from './launch-of.ts';
import type { Procedure } from './perform.ts';
import { begin } from './start.ts';
import { pruneRounds } from './template-rounds.ts';

const keep = (guest: Guest): Step => ({
  name: 'keep',
  do: async ({ signal }) => {
    if (!(await isKept(guest))) await guest.handle?.forks?.freezeForForks(signal);
  },
});

/** Of what is written: that of the disks, all of which are of one. */
const writtenRound = ({ disks }: StoredSpec): number => disks.find(({ readOnly }) => !readOnly)?.round ?? 0;

export const share = (guest: Guest): Step => ({
  name: 'share',
  do: async (work) => {
    const readers = guest.place.credentials?.groups[0];
    const { spec } = guest.record;
    const forked = asForkOf(spec, guest.id, writtenRound(spec));
    for (const [index, disk] of spec.disks.entries())
      await guest.house.pool.shareVolume(
        volumeSpecOf(guest, disk),
        { readers, over: volumeSpecOf(guest, forked.disks[index] ?? disk) },
        work,
      );
  },
  undo: async () => {
    if (guest.record.spec.template) return;
    for (const volume of volumeSpecs(guest)) await guest.house.pool.reclaimVolume(volume);
  },
});

const record = (guest: Guest, token: string): Step => ({
  name: 'record',
  do: async () => {
    const madeAt = guest.house.clock.now();
    await changeRecord(guest, ({ spec, ...before }) => {
      const round = writtenRound(spec);
      return { ...before, spec: { ...spec, template: { madeAt, token, ...(round === 0 ? {} : { round }) } } };
    });
    guest.setStatus({ state: 'paused', reason: 'template' });
  },
  // Whoever saw that it is one may have forked it: then it stays one. One that was one before is one still.
  undo: async () => {
    const isAnother = roundOf(guest) > 0 || guest.record.spec.template?.token !== token;
    if (isAnother || guest.house.inventory.guests.forksOf(guest.id).length > 0) return;
    await changeRecord(guest, ({ spec: { template: _template, ...spec }, ...before }) => ({
      ...before,
      spec,
    }));
  },
  isDone: () => guest.record.spec.template?.token === token,
});

/** The disks of a template that is made anew, in another round. Pure. */
const inRound = (spec: StoredSpec, round: number): StoredSpec => ({
  ...spec,
  disks: spec.disks.map(({ round: _former, ...disk }) =>
    disk.readOnly || round === 0 ? disk : { ...disk, round },
  ),
});

/** The one that it has begun with, or the next of which nobody has a file: the record may be older than the disks. */
const freeRound = async (guest: Guest, id: OperationId): Promise<number> => {
  const { spec } = guest.record;
  if (spec.template?.remadeBy === id) return writtenRound(spec);
  const { pool } = guest.house;
  for (let round = roundOf(guest) + 1; ; round += 1) {
    const files = await Promise.all(
      inRound(spec, round)
        .disks.filter(({ readOnly }) => !readOnly)
        .map((disk) => pool.allocatedBytes(volumeSpecOf(guest, disk))),
    );
    if (files.every((bytes) => bytes === undefined)) return round;
  }
};

/** Forks lie on what its disks are now: it writes into other files. From then on its memory goes with none of them. */
const another = (guest: Guest, { id }: OperationRecord): Step => ({
  name: 'another',
  do: async (work) => {
    const round = await freeRound(guest, id);
    await changeRecord(guest, ({ spec, ...before }) => {
      const { template } = spec;
      if (!template) return { ...before, spec };
      return { ...before, spec: { ...inRound(spec, round), template: { ...template, remadeBy: id } } };
    });
    for (const volume of volumeSpecs(guest)) await guest.house.pool.createVolume(volume, work);
  },
  undo: async () => {
    const { template, disks } = guest.record.spec;
    if (template?.remadeBy !== id) return;
    for (const disk of disks)
      if (disk.round !== undefined && disk.round > roundOf(guest))
        await guest.house.pool.deleteVolume(volumeSpecOf(guest, disk));
    const { remadeBy: _over, ...kept } = template;
    await changeRecord(guest, ({ spec, ...before }) => ({
      ...before,
      spec: { ...inRound(spec, template.round ?? 0), template: kept },
    }));
  },
});

export const templateCreation = (guest: Guest, operation: OperationRecord): Procedure => {
  const { boot, inside, withdraw, ended } = begin(guest, operation, { forkable: true });
  // Known to whoever carries it on after a crash.
  const token: string = operation.id;
  const prepare: Step = {
    name: 'prepare',
    do: async (work) => {
      if (await isKept(guest)) return;
      await inside(work, (tries) => prepareForForks(guest, token, { tries, signal: work.signal }));
    },
  };
  const { template } = guest.record.spec;
  // It is done already: to boot it again would write to disks that forks may lie on.
  const isMade = template?.token === token;
  const steps = [...boot, prepare, keep(guest), share(guest), record(guest, token)];
  return {
    steps: isMade ? [] : [...(template ? [another(guest, operation)] : []), ...steps],
    finish: () => ({ guest: guest.id }),
    withdraw,
    after: async (end) => {
      await ended(end);
      if (end.state === 'succeeded') await pruneRounds(guest);
    },
  };
};
