/** What a guest's process is made of when it starts: volumes leased, ports attached, and the process that is there already. */
import { close } from 'node:fs';
import { promisify } from 'node:util';
import { enter } from '../../lib/account.ts';
import type { Work } from '../../lib/work.ts';
import type { AttachedPort } from '../../network/backend.ts';
import type { BlockSource } from '../../protocol/block-source.ts';
import { RoostError, toRoostError } from '../../protocol/errors.ts';
import { hostObjectKey } from '../../protocol/host-object.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import type { Step } from '../operations/steps.ts';
import type { Guest } from './guest.ts';
import {
  ensureFirmwareVariables,
  portSpecs,
  recordRun,
  rootSpec,
  seedSpec,
  volumeSpecs,
} from './launch-of.ts';

const closeDescriptor = promisify(close);

export const closeAll = async (ports: AttachedPort[]): Promise<void> => {
  for (const port of ports.splice(0))
    if (port.descriptor !== undefined) await closeDescriptor(port.descriptor);
};

/** An undo that left something has failed. */
export const refuseLeftovers = (guest: Guest, left: readonly string[]): void => {
  if (left.length === 0) return;
  throw new RoostError('HostError', `What the start had made could not all be removed: ${left.join('; ')}`, {
    data: { guest: guest.name, left: [...left] },
    hint: 'fsck names what is left.',
  });
};

/** What is still being done to a port must not come after its undoing. */
const letGoOfPorts = async ({ ports, guards }: Gathered): Promise<void> => {
  await Promise.allSettled(guards.splice(0));
  await closeAll(ports);
};

/** Attached ports and leased volumes on their way to the launch. */
export interface Gathered {
  sources: readonly BlockSource[];
  seed: BlockSource | undefined;
  readonly ports: AttachedPort[];
  /** What has to hold before the guest runs: the rules of its ports. */
  readonly guards: Promise<void>[];
  /** Whether the process is to be kept for forks. */
  readonly forkable: boolean;
  /** Whether it is made of its template's memory or not at all. */
  readonly forkOnly: boolean;
  /** Whether it is to be handed what another guest is. */
  readonly receives: boolean;
  /** As it was when the steps began. */
  found: FoundProcess;
  /** As it was when they were taken back. */
  left?: FoundProcess;
}

/**
 * The process that the guest has: none; this start's own; or another's, by whoever made it, of which nothing is to be
 * made and nothing to be taken back. One that may be there counts as being there.
 */
type FoundProcess = 'none' | 'own' | 'other';

/** Written before the launch, so that it is known after a crash of the daemon, too. */
export const isOwn = (guest: Guest, operation: OperationRecord): boolean =>
  guest.status.applied?.launchedBy === operation.id;

export const findProcess = async (guest: Guest, operation: OperationRecord): Promise<FoundProcess> => {
  if (!guest.handle && (await guest.driver.probe(guest.place)) === 'gone') return 'none';
  return isOwn(guest, operation) ? 'own' : 'other';
};

/** Takes over a process that nobody has the line to. */
export const takeOver = async (guest: Guest, signal: AbortSignal): Promise<void> => {
  const { cursor } = guest.status;
  guest.take(await guest.driver.attach(guest.place, { signal, cursor, observe: guest.observe }));
};

/** Refuses when the process of another cannot be reached: what it is doing is not known. */
const requireReachable = async (guest: Guest, signal: AbortSignal): Promise<void> => {
  if (guest.handle) return;
  try {
    await takeOver(guest, signal);
  } catch (error) {
    signal.throwIfAborted();
    const pid = guest.status.process?.pid;
    const why = toRoostError(error).message;
    throw new RoostError(
      'FailedPrecondition',
      `Guest ${guest.name} has a process already, and it cannot be reached: ${why}`,
      {
        cause: error,
        data: { guest: guest.name, state: guest.status.state, ...(pid === undefined ? {} : { pid }) },
        hint: 'Wait until it answers, or stop the guest with force first.',
      },
    );
  }
};

export const leaseVolumes = (guest: Guest, operation: OperationRecord, gathered: Gathered): Step => ({
  name: 'volumes',
  do: async (work) => {
    gathered.found = await findProcess(guest, operation);
    if (gathered.found === 'other') return await requireReachable(guest, work.signal);
    // Made for this very start, or one that has waited for it: it has its volumes.
    if (guest.handle) return beginStart(guest);
    // Again, because whatever ended the run before released them.
    guest.house.inventory.db.soon(() => recordRun(guest));
    beginStart(guest);
    await ensureFirmwareVariables(guest);
    gathered.sources = await Promise.all(
      volumeSpecs(guest).map((volume) => guest.house.pool.lease(volume, work.signal)),
    );
    await leaseRoot(guest, work);
    // Here and not when something changes: it tells also of NICs and of the guest's name.
    const seed = seedSpec(guest);
    gathered.seed = seed && (await guest.house.pool.writeSeed(seed, work));
  },
  undo: async () => {
    gathered.left = await findProcess(guest, operation);
    // A process that is another's, or could not be ended, keeps what it has.
    if (gathered.left === 'none') refuseLeftovers(guest, await guest.freeRun());
  },
});

/** The first container of an image has it unpacked for all, where the host needs that. */
const leaseRoot = async (guest: Guest, work: Work): Promise<void> => {
  const { boot } = guest.record.spec;
  const root = rootSpec(guest);
  if (!root || boot.kind !== 'root') return;
  if (await guest.driver.needsTree?.(work.signal)) await guest.house.images.unpack(boot.image, work);
  await guest.house.pool.leaseRoot(root, work.signal);
};

const beginStart = (guest: Guest): void => {
  const { state } = guest.status;
  guest.setStatus({
    state: guest.handle && state !== 'stopped' ? state : 'starting',
    reason: undefined,
    restartAt: undefined,
  });
};

export const attachPorts = (guest: Guest, gathered: Gathered): Step => ({
  name: 'ports',
  do: async ({ signal }) => {
    if (guest.handle || gathered.found !== 'none') return;
    await letGoOfPorts(gathered);
    for (const { network, port } of portSpecs(guest)) {
      const attached = await guest.house.networks.attach(network, port, signal);
      gathered.ports.push(attached);
      for (const object of guest.house.networks.portObjects(network, port))
        enter({ kind: 'made', object: hostObjectKey(object) });
      const { guarded } = attached;
      // Waited for later; a failure until then is nobody's unhandled one.
      guarded?.catch(() => undefined);
      if (guarded) gathered.guards.push(guarded);
    }
  },
  undo: () => letGoOfPorts(gathered),
});

/** Frees what a process had that is gone, so that the steps make all of it again. */
export const clearForAnother = async (guest: Guest, gathered: Gathered): Promise<void> => {
  await letGoOfPorts(gathered);
  refuseLeftovers(guest, await guest.freeRun());
  gathered.found = 'none';
};
