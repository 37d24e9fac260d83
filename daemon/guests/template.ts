/**
 * template-create: a stopped guest is booted to where its main program would begin, and kept so for good. Its process
 * lives on and runs no more: it holds the memory that forks begin with. Its disks are written no more either; forks lie
 * on them, those too that are made when the memory is gone.
 */
import type { OperationRecord } from '../inventory/operation-table.ts';
import type { Step } from '../operations/steps.ts';
import { changeRecord } from './device-work.ts';
import { asForkOf } from './forks.ts';
import type { Guest } from './guest.ts';
import { prepareForForks } from './inside.ts';
import { volumeSpecOf, volumeSpecs } from './launch-of.ts';
import type { Procedure } from './perform.ts';
import { begin } from './start.ts';

/** Whether it was kept already, by an earlier daemon that has not come to write it down. */
export const isKept = (guest: Guest): Promise<boolean> => guest.driver.canFork(guest.place);

const keep = (guest: Guest): Step => ({
  name: 'keep',
  do: async ({ signal }) => {
    if (!(await isKept(guest))) await guest.handle?.freezeForForks(signal);
  },
});

export const share = (guest: Guest): Step => ({
  name: 'share',
  do: async (work) => {
    const readers = guest.place.credentials?.groups[0];
    for (const disk of asForkOf(guest.record.spec, guest.id).disks)
      await guest.house.pool.shareVolume(
        { guest: guest.id, name: disk.name },
        { readers, over: volumeSpecOf(guest, disk) },
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
    await changeRecord(guest, (before) => ({
      ...before,
      spec: { ...before.spec, template: before.spec.template ?? { madeAt, token } },
    }));
    guest.setStatus({ state: 'paused', reason: 'template' });
  },
  // Whoever saw that it is one may have forked it: then it stays one.
  undo: async () => {
    if (guest.house.inventory.guests.forksOf(guest.id).length > 0) return;
    await changeRecord(guest, ({ spec: { template: _template, ...spec }, ...before }) => ({
      ...before,
      spec,
    }));
  },
  isDone: () => guest.record.spec.template !== undefined,
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
  // It is one already: to boot it again would write to disks that forks may lie on.
  const isRecorded = guest.record.spec.template !== undefined;
  return {
    steps: isRecorded ? [] : [...boot, prepare, keep(guest), share(guest), record(guest, token)],
    finish: () => ({ guest: guest.id }),
    withdraw,
    after: ended,
  };
};
