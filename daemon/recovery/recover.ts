/**
 * Rebuilds an inventory that is lost or damaged, from the records that lie beside disks, images and networks. It works
 * while no daemon does, and changes nothing but the database: that is made anew under another name and put in the place
 * of the old one as the last thing, the old one kept. No process is touched; the next daemon finds those that live by the
 * locks they hold, and takes them back.
 */
import { closeSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { uuidv7 } from 'uuidv7';
import type { FoundProcess } from '../../drivers/driver.ts';
import { systemClock } from '../../lib/clock.ts';
import { syncDirectory } from '../../lib/durable-files.ts';
import { UndoStack } from '../../lib/undo-stack.ts';
import { RoostError } from '../../protocol/errors.ts';
import { hostObjectKey } from '../../protocol/host-object.ts';
import type { RecoveryReport } from '../../protocol/recovery.ts';
import type { GuestId, InstanceId, OperationId } from '../../protocol/types.ts';
import { buildCore, type Core, type DaemonOptions, withRealPaths } from '../daemon.ts';
import { existenceObjects, portObjects, recordRun, runObjects } from '../guests/launch-of.ts';
import { inspectHost } from '../host-objects.ts';
import { instanceIdOf, prepareDirectories, takeLock } from '../instance.ts';
import {
  diagnose,
  discardFresh,
  type FreshInventory,
  openFresh,
  putInPlace,
} from '../inventory/after-loss.ts';
import type { GuestRecord, NewGuest } from '../inventory/guest-table.ts';
import type { Inventory } from '../inventory/inventory.ts';
import type { GuestForm } from '../records/forms.ts';
import { findRecords, type RecordsOnDisk } from './find-records.ts';
import { type Rebuilt, reconstruct } from './reconstruct.ts';

export type RecoveryOptions = Pick<DaemonOptions, 'config' | 'log' | 'parts' | 'clock'> & {
  /** Only says what would be made. */
  readonly dryRun: boolean;
};

/** Who did it, for the journal and as who set what no record tells. */
const ACTOR = 'recover';
const KIND = 'inventory-recover';

/** Errors: NotFound; PermissionDenied for a state directory of somebody else. */
const refuseStrange = (stateDirectory: string): void => {
  const found = statSync(stateDirectory, { throwIfNoEntry: false });
  if (!found?.isDirectory())
    throw new RoostError('NotFound', `There is no state directory ${stateDirectory}`, {
      data: { path: stateDirectory },
      hint: 'Name the one that the daemon has, with --state-dir or by its configuration.',
    });
  if (found.uid !== process.geteuid?.())
    throw new RoostError('PermissionDenied', `The state directory ${stateDirectory} is user ${found.uid}'s`, {
      data: { path: stateDirectory, uid: found.uid },
      hint: 'Recover as the user that the daemon runs as.',
    });
};

/** The one recorded, as in a backup, else the one that the records agree on, else the one that follows from the place. */
const settleInstance = (
  { meta }: Inventory,
  recorded: string | undefined,
  records: RecordsOnDisk,
  stateDirectory: string,
): InstanceId => {
  const told = new Set(
    [...records.guests, ...records.networks, ...records.images].flatMap(({ instance }) => instance ?? []),
  );
  const [only] = told;
  if (recorded === undefined && only !== undefined && told.size === 1) meta.set('instance', only);
  return instanceIdOf(meta, stateDirectory);
};

const aliveAmong = async (
  processes: readonly FoundProcess[],
  stateDirectory: string,
  runDirectory: string,
): Promise<ReadonlyMap<GuestId, number>> =>
  new Map(
    processes
      .filter(({ lock }) =>
        [stateDirectory, runDirectory].some((place) => lock.startsWith(`${place}/guests/`)),
      )
      .map(({ guest, process }) => [guest, process.pid]),
  );

/** A change of a medium that was under way is over; the drive is to hold what it was to hold. */
const settled = ({ cdroms, ...spec }: GuestForm['spec']): GuestForm['spec'] => ({
  ...spec,
  cdroms: cdroms.map(({ change: _change, ...drive }) => drive),
});

/** The rows of what was asked for. */
const writeObjects = (inventory: Inventory, rebuilt: Rebuilt, alive: ReadonlyMap<GuestId, number>): void => {
  for (const { id, number, name, kind, subnet, gateway, bridge, createdAt } of rebuilt.networks)
    inventory.networks.restore({
      id,
      number,
      name,
      kind,
      createdAt,
      ...(subnet === undefined ? {} : { subnet }),
      ...(gateway === undefined ? {} : { gateway }),
      ...(bridge === undefined ? {} : { bridge }),
    });
  for (const { id, name, version, kind, source, stored, createdAt } of rebuilt.images) {
    inventory.images.insert({
      id,
      name,
      version,
      kind,
      createdAt,
      ...(source === undefined ? {} : { source }),
    });
    inventory.images.ready(id, stored);
  }
  for (const { version, ...alias } of rebuilt.aliases)
    inventory.images.setAlias({ ...alias, ...(version === undefined ? {} : { version }) });
  for (const { id, number, generation, name, spec, machine, createdAt } of rebuilt.guests) {
    const guest = {
      id,
      name,
      spec: settled(spec) as unknown as GuestRecord['spec'],
      machine: machine as GuestRecord['machine'],
      target: alive.has(id) ? 'running' : 'stopped',
      targetActor: ACTOR,
      createdAt,
    } satisfies NewGuest;
    inventory.guests.insert(guest, { number, generation });
  }
};

/** The rows of the ledger, and what is to be said of each guest until the next daemon has looked. */
const writeLedger = (
  core: Core,
  host: ReadonlySet<string>,
  alive: ReadonlyMap<GuestId, number>,
  now: number,
): void => {
  const { inventory, networks, guests, parts } = core;
  for (const network of inventory.networks.all())
    inventory.ledger.record(
      { kind: 'network', id: network.id },
      'existence',
      networks.objectsOf(network),
      now,
    );
  for (const { id } of inventory.images.all())
    inventory.ledger.record({ kind: 'image', id }, 'existence', parts.imageStore.plan(id), now);
  for (const guest of guests.registry.everyone()) {
    const owner = { kind: 'guest', id: guest.id } as const;
    inventory.ledger.record(owner, 'existence', existenceObjects(guest), now);
    // What a run left that is over is found by its rows, and cleared away by the next daemon.
    const left = [...runObjects(guest), ...portObjects(guest)].filter((object) =>
      host.has(hostObjectKey(object)),
    );
    if (alive.has(guest.id)) recordRun(guest);
    else inventory.ledger.record(owner, 'run', left, now);
    const ran = alive.has(guest.id) || left.length > 0;
    inventory.guests.writeStatus(guest.id, {
      state: ran ? 'unknown' : 'stopped',
      ...(ran ? { reason: 'the inventory was rebuilt' } : {}),
      observedAt: now,
      cursor: 0,
      restartCount: 0,
      // Whether it has run before is lost; with the memory that it began with its disks would be ruined.
      ...(guest.record.spec.forkOf === undefined ? {} : { forkedAt: now }),
    });
  }
};

/** What is lost for good, in words. */
const unknownOf = ({ history, tokens }: FreshInventory, rebuilt: Rebuilt): readonly string[] => [
  'which guests were to run: those whose process lives are, the others are not',
  'what running guests were started with, where it was changed since: no pending changes are shown; and since when they run',
  'how the last run of stopped guests ended, and how often a policy has restarted them',
  'whether the host was booted meanwhile: nothing is started by itself',
  'events: whoever follows them is told of the gap',
  history === undefined
    ? 'operations and their idempotency keys: a request that is sent again is done again'
    : `operations and idempotency keys since ${history}: a request that is sent again is done again`,
  tokens.length === 0
    ? 'tokens of the WebSocket: make new ones'
    : `tokens of the WebSocket, since one may have been revoked: make those anew that are needed (${tokens.join(', ')})`,
  ...(rebuilt.images.some(({ createdAt }) => createdAt === 0) ? ['names of images without a record'] : []),
];

const journal = (inventory: Inventory, report: RecoveryReport, now: number): void => {
  const { operations } = inventory;
  const id = uuidv7() as OperationId;
  const record = {
    id,
    sequence: operations.highestSequence() + 1,
    kind: KIND,
    subject: { kind: 'host', id: report.instance, name: 'host' },
    actor: ACTOR,
    state: 'succeeded',
    arguments: {},
    cancelRequested: false,
    createdAt: now,
    startedAt: now,
    endedAt: now,
  } as const;
  operations.insert(record);
  operations.write({ ...record, result: { ...report } });
};

/**
 * Errors: FailedPrecondition while a daemon holds the directories, for an inventory that is sound or of a newer Roost;
 * NotFound, PermissionDenied, HostError, ResourceExhausted.
 */
export const recoverInventory = async (asked: RecoveryOptions): Promise<RecoveryReport> => {
  refuseStrange(asked.config.stateDirectory);
  prepareDirectories(asked.config.stateDirectory, asked.config.runDirectory);
  const options = { ...asked, config: withRealPaths(asked.config) };
  const { stateDirectory, runDirectory } = options.config;
  await using undo = new UndoStack();
  const directories = [[stateDirectory, 'state'] as const, [runDirectory, 'run'] as const];
  for (const [directory, use] of stateDirectory === runDirectory ? directories.slice(0, 1) : directories) {
    const lock = takeLock(directory, use);
    undo.add(() => closeSync(lock));
  }
  const path = join(stateDirectory, 'roost.db');
  const { was, why } = diagnose(path);
  if (was === 'sound')
    throw new RoostError(
      'FailedPrecondition',
      `The inventory ${path} is sound: there is nothing to recover`,
      {
        data: { path },
        hint: `To rebuild it all the same, move ${path} away first.`,
      },
    );
  const now = (options.clock ?? systemClock).now();
  const fresh = `${path}.recovering`;
  undo.add(() => discardFresh(fresh));
  const report = await rebuild(options, openFresh(fresh, path, now), { path, was, why }, now);
  if (asked.dryRun) return report;
  const movedTo = putInPlace(fresh, path, now);
  await syncDirectory(stateDirectory);
  return { ...report, database: { ...report.database, movedTo: [...movedTo] } };
};

const rebuild = async (
  options: RecoveryOptions,
  made: FreshInventory,
  database: Omit<RecoveryReport['database'], 'movedTo'>,
  now: number,
): Promise<RecoveryReport> => {
  const { inventory, history } = made;
  try {
    const { stateDirectory, runDirectory } = options.config;
    const { signal } = new AbortController();
    const recorded = inventory.meta.get('instance');
    // Where records lie does not depend on the instance, which is settled by them.
    const { pool, imageStore, addressing } = buildCore(options, inventory, signal).parts;
    const records = await findRecords({ pool, imageStore, stateDirectory });
    const instance = settleInstance(inventory, recorded, records, stateDirectory);
    const { drivers } = buildCore(options, inventory, signal).parts;
    const processes = (await Promise.all(drivers.map((driver) => driver.processes()))).flat();
    const alive = await aliveAmong(processes, stateDirectory, runDirectory);
    const rebuilt = reconstruct({ ...records, instance, alive, addressing });
    inventory.db.soon(() => writeObjects(inventory, rebuilt, alive));
    const core = buildCore(options, inventory, signal);
    const place = { instance, stateDirectory, runDirectory };
    const host = new Set((await inspectHost(core.parts, place, signal)).map(hostObjectKey));
    const report: RecoveryReport = {
      dryRun: options.dryRun,
      database: { ...database, movedTo: [] },
      ...(history === undefined ? {} : { history }),
      instance,
      networks: rebuilt.networks.map(({ id, name }) => ({ id, name })),
      images: rebuilt.images.map(({ id, name, version }) => ({ id, name, version })),
      guests: rebuilt.guests.map(({ id, name }) => {
        const pid = alive.get(id);
        return { id, name, ...(pid === undefined ? {} : { pid }) };
      }),
      changed: rebuilt.changed,
      leftOut: [...records.leftOut, ...rebuilt.leftOut],
      unknown: [...unknownOf(made, rebuilt)],
    };
    inventory.db.soon(() => {
      writeLedger(core, host, alive, now);
      journal(inventory, report, now);
    });
    return report;
  } finally {
    inventory.db.close();
  }
};
