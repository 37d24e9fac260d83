/**
 * template-create of a guest that runs: its memory and its disks become those of a new template, and the guest itself goes
 * on as the first that is forked from it, with its own identity and addresses, in another process.
 *
 * The template's process takes the memory in while the guest runs on; from when the guest stands still until it runs again
 * is its pause. Until both are recorded, everything can be taken back and the guest goes on where it was. From then on
 * there is no way back: the guest is a fork, and boots from its disks where it cannot be one.
 */
import { deferred, waitOrAbort } from '../../lib/abort.ts';
import { enter } from '../../lib/account.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { GuestId, OperationId } from '../../protocol/types.ts';
import type { AppliedSettings, StoredDisk, StoredSpec } from '../inventory/guest-table.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import { cleanUp } from '../operations/clean-up.ts';
import type { Finish } from '../operations/operations.ts';
import type { Step } from '../operations/steps.ts';
import { directory } from './creation.ts';
import { changeRecord } from './device-work.ts';
import { asForkOf, hasOwnFile, isKept } from './forks.ts';
import { isOwn, refuseLeftovers } from './gather.ts';
import type { Guest } from './guest.ts';
import { leaveProgram, setUpInside } from './inside.ts';
import { ensureFirmwareVariables, volumeSpecOf } from './launch-of.ts';
import { preparePool } from './mend.ts';
import type { Procedure } from './perform.ts';
import { runsProgram } from './runs-program.ts';
import { begin } from './start.ts';
import { share } from './template.ts';

/** The guest that a template is made of, by what was asked. */
export const liveSourceOf = ({ arguments: asked }: OperationRecord): GuestId | undefined =>
  typeof asked['of'] === 'string' ? (asked['of'] as GuestId) : undefined;

interface Making {
  readonly template: Guest;
  readonly source: Guest;
  readonly operation: OperationRecord;
  /** Gives the source's turn back. */
  release: () => void;
  stoppedAt: number | undefined;
  pausedMs: number | undefined;
}

const isRecorded = ({ template }: Making): boolean => template.record.spec.template !== undefined;

/** Nothing else is done to the guest until the turn is given back. */
const takeTurn = (making: Making): Step => ({
  name: 'turn',
  do: async ({ signal }) => {
    const { source, operation } = making;
    const held = deferred<void>();
    const over = deferred<void>();
    making.release();
    making.release = () => {
      if (source.heldBy === operation.id) source.heldBy = undefined;
      over.resolve();
    };
    void source.mailbox.post(async () => {
      held.resolve();
      await over.promise;
    });
    await waitOrAbort(held.promise, signal);
    source.heldBy = operation.id;
    const { template } = making;
    if (!isRecorded(making) && !(await isKept(template))) requireRunning(source);
  },
  // An earlier daemon may have come further than this one.
  undo: async () => {
    await takeAllAway(making.template);
    await goOnHere(making);
  },
});

/** Whatever there is of a guest that is not to be. */
const takeAllAway = async (template: Guest): Promise<void> => {
  const { house, name } = template;
  await cleanUp(house, `the end of guest ${name}'s process`, (signal) => endProcess(template, signal));
  refuseLeftovers(template, await template.freeRun());
  await cleanUp(house, `the removal of guest ${name}'s disks`, () => house.pool.removeGuest(template.id));
  await directory(template).undo?.();
};

export const requireRunning = (source: Guest): void => {
  if (!source.removed && source.handle && source.status.state === 'running') return;
  throw new RoostError(
    'FailedPrecondition',
    `Guest ${source.name} ${source.removed ? 'is gone' : `is ${source.state}`}`,
    { data: { guest: source.name, state: source.state }, hint: 'It has to run to be forked as it is.' },
  );
};

const ownFiles = ({ disks }: StoredSpec): readonly StoredDisk[] => disks.filter(hasOwnFile);

/** The files of the guest's disks are the template's as well, for the process that is to go on with them. */
const passDisks = ({ template, source }: Making): Step => ({
  name: 'disks',
  do: async (work) => {
    const { pool } = template.house;
    await preparePool(template);
    for (const disk of template.record.spec.disks) {
      const volume = volumeSpecOf(template, disk);
      const own = source.record.spec.disks.find(({ name }) => name === disk.name);
      if (!hasOwnFile(disk) || !own) await pool.createVolume(volume, work);
      else await pool.passVolume(volumeSpecOf(source, own), volume);
    }
    await ensureFirmwareVariables(template, source.id);
    await template.saveRecord();
  },
  undo: async () => {
    await cleanUp(template.house, `the removal of guest ${template.name}'s disks`, () =>
      template.house.pool.removeGuest(template.id),
    );
    await giveDisksBack(source);
  },
});

const giveDisksBack = async (source: Guest): Promise<void> => {
  if (source.removed) return;
  for (const disk of ownFiles(source.record.spec))
    await source.house.pool.reclaimVolume(volumeSpecOf(source, disk));
};

const handOver = (making: Making): Step => ({
  name: 'hand-over',
  do: async ({ signal }) => {
    const { template, source, operation } = making;
    if (await isKept(template)) return;
    const { handle } = source;
    if (!handle?.forks || !template.handle?.forks) return requireRunning(source);
    await leaveProgram(source, operation.id, signal);
    noteHandOver(source, operation.id);
    const { stoppedAt } = await handle.forks.handOver(template.handle, signal);
    making.stoppedAt = stoppedAt;
    await template.handle.forks.freezeForForks(signal);
  },
  undo: async () => {
    const { template } = making;
    await cleanUp(template.house, `the end of guest ${template.name}'s process`, (signal) =>
      endProcess(template, signal),
    );
    await goOnHere(making);
  },
});

const endProcess = (template: Guest, signal: AbortSignal): Promise<void> =>
  template.handle ? template.handle.kill(signal) : template.driver.destroy(template.place, signal);

/** Written before the guest is stopped for it, so that whoever takes it back knows that nobody else has stopped it. */
const noteHandOver = (source: Guest, handedOverBy: OperationId | undefined): void => {
  const { handedOverBy: _before, ...applied } = source.status.applied ?? {};
  if (source.status.applied === undefined) return;
  source.setStatus({
    applied: {
      ...(applied as AppliedSettings),
      ...(handedOverBy === undefined ? {} : { handedOverBy }),
    },
  });
};

/** In the process that would have been left, which may have been handed over; its disks are its own again. */
const goOnHere = async ({ source, operation }: Making): Promise<void> => {
  await giveDisksBack(source);
  const { handle, house, name } = source;
  if (!handle || source.removed) return;
  if (source.status.applied?.handedOverBy === operation.id) {
    await cleanUp(house, `the going on of guest ${name}`, (signal) => handle.resume(signal));
    noteHandOver(source, undefined);
  }
  handle.init?.followProgram();
  await source.lookAgain();
};

/** What the guest's record says once it is a fork of itself: each disk that had a file of its own has a new one. */
const asForkOfItself = (spec: StoredSpec, template: GuestId): StoredSpec => {
  const fork = asForkOf(spec, template);
  return {
    ...fork,
    disks: fork.disks.map((disk) => (hasOwnFile(disk) ? { ...disk, layer: (disk.layer ?? 0) + 1 } : disk)),
  };
};

/** Files for what the guest writes from now on; nobody has them before it is recorded. */
const layers = ({ template, source }: Making): Step => ({
  name: 'layers',
  do: async (work) => {
    const spec = asForkOfItself(source.record.spec, template.id);
    for (const disk of ownFiles(spec))
      await source.house.pool.createVolume({ ...volumeSpecOf(source, disk), like: template.id }, work);
  },
  undo: async () => {
    if (source.removed) return;
    const spec = asForkOfItself(source.record.spec, template.id);
    for (const disk of ownFiles(spec)) await source.house.pool.deleteVolume(volumeSpecOf(source, disk));
  },
});

/** Both records in one transaction. */
const record = (making: Making): Step => ({
  name: 'record',
  do: async () => {
    const { template, source, operation } = making;
    const { inventory, clock } = template.house;
    const madeOf = { guest: source.id, macs: source.record.spec.nics.map(({ mac }) => mac) };
    const made = { madeAt: clock.now(), token: operation.id, madeOf };
    await changeRecord(
      template,
      (before) => ({ ...before, spec: { ...before.spec, template: made } }),
      () => {
        const forked = source.recorded();
        inventory.guests.update({ ...forked, spec: asForkOfItself(forked.spec, template.id) });
      },
    );
    source.setRecord(source.recorded());
    source.setStatus({ forkedAt: undefined });
    template.setStatus({ state: 'paused', reason: 'template' });
    await source.saveRecord();
  },
  isDone: () => isRecorded(making),
});

/** The process that handed the guest over ends, and another begins with its memory. Nobody can cancel that. */
const goOn = (making: Making): Step => ({
  name: 'go-on',
  do: async (work) => {
    const { source, operation } = making;
    const owned = { ...work, signal: source.house.stopping };
    if (source.removed) return;
    // Once the process that had them is gone, or will never write them again.
    await dropFormerFiles(making);
    if (source.record.target !== 'running') return;
    const { boot, inside } = begin(source, operation);
    if (!isOwn(source, operation)) await endFormer(source, owned.signal);
    for (const step of boot) await step.do(owned);
    const { stoppedAt } = making;
    making.pausedMs = stoppedAt === undefined ? undefined : Math.round(source.house.clock.now() - stoppedAt);
    if (making.pausedMs !== undefined)
      enter({ kind: 'note', text: `guest ${source.name} stood still for ${making.pausedMs} ms` });
    await inside(owned, (tries) => setUpInside(source, tries, owned.signal));
  },
});

const endFormer = async (source: Guest, signal: AbortSignal): Promise<void> => {
  const { handle } = source;
  await (handle ? handle.kill(signal) : source.driver.destroy(source.place, signal));
  await handle?.ended;
  refuseLeftovers(source, await source.freeRun());
};

/** Files that the guest wrote before it became a fork of that template, and that are the template's alone since. Pure. */
export const formerFiles = (
  { disks }: Pick<StoredSpec, 'disks'>,
  template: GuestId,
): readonly Pick<StoredDisk, 'name' | 'layer'>[] =>
  disks.flatMap(({ name, layer, template: under }) => {
    if (layer === undefined || under !== template) return [];
    return layer === 1 ? { name } : { name, layer: layer - 1 };
  });

const dropFormerFiles = async ({ source, template }: Making): Promise<void> => {
  for (const file of formerFiles(source.record.spec, template.id))
    await source.house.pool.deleteVolume({ guest: source.id, ...file });
};

const finish =
  (making: Making): Finish =>
  (state, clean) => {
    const { template, source, operation, pausedMs } = making;
    const { inventory, events } = template.house;
    if (state === 'succeeded') {
      const told = { guest: template.id, name: template.name, actor: operation.actor };
      events.emit({ event: 'GUEST_CREATED', data: told });
      return { guest: template.id, source: source.id, ...(pausedMs === undefined ? {} : { pausedMs }) };
    }
    if (isRecorded(making)) return undefined;
    inventory.guests.delete(template.id);
    if (clean) inventory.ledger.release({ kind: 'guest', id: template.id });
    return undefined;
  };

export const liveTemplateCreation = (
  template: Guest,
  source: Guest,
  operation: OperationRecord,
): Procedure => {
  const beginning = begin(template, operation, { forkable: true, receives: true });
  const making: Making = {
    template,
    source,
    operation,
    release: () => undefined,
    stoppedAt: undefined,
    pausedMs: undefined,
  };
  const toRecord: readonly Step[] = [
    directory(template),
    passDisks(making),
    ...beginning.launch,
    handOver(making),
    share(template),
    layers(making),
    record(making),
  ];
  return {
    steps: [takeTurn(making), ...(isRecorded(making) ? [] : toRecord), goOn(making)].map((step) =>
      keptOnceRecorded(making, step),
    ),
    finish: finish(making),
    withdraw: () => template.remove('its creation was cancelled'),
    after: async (ended) => {
      making.release();
      if (ended.state === 'succeeded') return;
      const why = ended.error === undefined ? ended.state : ended.error.desc;
      if (isRecorded(making)) {
        if (!source.isLive()) source.setStatus({ state: 'failed', reason: why });
      } else template.remove(`its creation ended as ${ended.state}: ${why}`);
    },
  };
};

/** Of an operation that an earlier daemon left, whose guest is gone. */
export const withoutSource = (template: Guest): Procedure => {
  const { inventory } = template.house;
  if (template.record.spec.template) return { steps: [], finish: () => ({ guest: template.id }) };
  const refuse: Step = {
    name: 'turn',
    do: () => {
      throw new RoostError('NotFound', `The guest that template ${template.name} was to be made of is gone`);
    },
    undo: () => takeAllAway(template),
  };
  return {
    steps: [refuse],
    finish: (_state, clean) => {
      inventory.guests.delete(template.id);
      if (clean) inventory.ledger.release({ kind: 'guest', id: template.id });
      return undefined;
    },
    withdraw: () => template.remove('its creation was cancelled'),
    after: (ended) => template.remove(`its creation ended as ${ended.state}: ${ended.error?.desc ?? ''}`),
  };
};

/** Once both are recorded nothing of it is taken back. */
const keptOnceRecorded = (making: Making, step: Step): Step => ({
  ...step,
  undo: async () => {
    if (!isRecorded(making)) await step.undo?.();
  },
});

/** Errors: Unsupported with the reason why the guest cannot go on as a fork of itself; FailedPrecondition without its agent. */
export const refuseUnforkable = (guest: Guest): void => {
  const { name, agent } = guest;
  const why = whyUnforkable(guest);
  if (why !== undefined)
    throw new RoostError('Unsupported', `Guest ${name} cannot be forked while it runs: ${why}`, {
      data: { guest: name },
      hint: 'docs/microvms.md says what can be forked, and what it takes.',
    });
  if (!runsProgram(guest.record.spec) && agent.view.state !== 'connected')
    throw new RoostError('FailedPrecondition', `The agent of guest ${name} is ${agent.view.state}`, {
      data: { guest: name, agent: agent.view.state },
      hint: 'Forks become themselves by it: install qemu-guest-agent in the guest, or wait until it has started.',
    });
};

const whyUnforkable = ({ driver, record: { spec } }: Guest): string | undefined => {
  if (!driver.verbs.has('fork')) return `driver ${driver.name} has no forks`;
  if (spec.filesystems.length > 0)
    return 'it shares directories of the host, whose files are in use in its memory';
  if (!runsProgram(spec)) return whySystemIsUnforkable(spec);
  return spec.cloudInit !== undefined || spec.cdroms.length > 0
    ? 'it has a medium that is its own'
    : undefined;
};

/** What of a guest's own would be its forks' as well. */
const whySystemIsUnforkable = ({ agent, cloudInit }: StoredSpec): string | undefined => {
  if (!agent.enabled) return 'it has no channel to an agent, by which its forks would become themselves';
  if (cloudInit?.metaData !== undefined || cloudInit?.networkConfig !== undefined)
    return 'the meta-data or network configuration that its cloud-init is given would be that of its forks as well';
  return undefined;
};
