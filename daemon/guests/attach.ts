/**
 * guest-disk-attach and guest-nic-attach: put the device down in the record, make what it is made of, plug it into the
 * guest if that runs. What cannot be taken from the guest any more when the operation is undone stays recorded.
 */
import { close } from 'node:fs';
import { promisify } from 'node:util';
import type { PluggedDevice } from '../../drivers/driver.ts';
import { deadline } from '../../lib/abort.ts';
import type { CommandArguments } from '../../protocol/commands.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { StoredDisk, StoredNic } from '../inventory/guest-table.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import type { Step } from '../operations/steps.ts';
import { allocateNic, busyPorts } from './allocate-nic.ts';
import { specToRepin } from './change-spec.ts';
import {
  refuseTooMany,
  requireDisk,
  requireKeptDisk,
  requireNic,
  specWithDisk,
  specWithNic,
  withDisk,
  withNic,
  withoutDisk,
  withoutNic,
  withSerial,
} from './device-record.ts';
import { changeRecord, isBeingEnded, liveHandle, tellChanged } from './device-work.ts';
import type { Guest } from './guest.ts';
import { portObjectsOf, portSpecOf, volumeSpecOf } from './launch-of.ts';
import type { Procedure } from './perform.ts';
import { resolveDisk, resolveNic } from './resolve-spec.ts';

const closeDescriptor = promisify(close);

/** How long the undo of a plug waits for the guest to let go again. */
const UNDO_TIMEOUT_MS = 30_000;

/** A disk to attach as it was accepted: its name chosen, and said whether it is one that the guest has kept. */
export type DiskAttachment = Omit<CommandArguments<'guest-disk-attach'>, 'name'> & {
  readonly name: string;
  readonly kept: boolean;
};
export type NicAttachment = Omit<CommandArguments<'guest-nic-attach'>, 'name'> & { readonly name: string };

/** What steps of one operation tell each other. */
interface Shared {
  /** The guest may have the device still, so that nothing of it may be taken away. */
  stays: boolean;
}

const hasDisk = (guest: Guest, name: string): boolean =>
  guest.record.spec.disks.some((disk) => disk.name === name);
const hasNic = (guest: Guest, name: string): boolean =>
  guest.record.spec.nics.some((nic) => nic.name === name);

/** Takes a device from the guest again. Rejects when the guest may have it still. */
const unplugForUndo = async (guest: Guest, kind: 'disk' | 'nic', name: string): Promise<void> => {
  const handle = liveHandle(guest);
  if (!handle || (await guest.driver.probe(guest.place)) === 'gone') return;
  using limit = deadline(UNDO_TIMEOUT_MS);
  await handle.unplug({ kind, name }, limit.signal);
};

const undoPlug = (
  guest: Guest,
  kind: 'disk' | 'nic',
  name: string,
  shared: Shared,
): (() => Promise<void>) => {
  return async () => {
    try {
      await unplugForUndo(guest, kind, name);
    } catch (error) {
      shared.stays = true;
      throw new RoostError(
        'FailedPrecondition',
        `The guest may have ${kind} ${name} still, so it stays attached`,
        { cause: error, data: { device: name } },
      );
    }
  };
};

// Disks

/** Gives a live guest a disk of its record. Done already when it has it. */
export const plugDisk = async (guest: Guest, name: string, signal: AbortSignal): Promise<void> => {
  const handle = liveHandle(guest);
  if (!handle) return;
  const volume = volumeSpecOf(guest, requireDisk(guest.record.spec, name));
  const pinned = guest.record.machine.disks.find((disk) => disk.name === name);
  if (!pinned)
    throw new RoostError('Internal', `Disk ${name} of guest ${guest.name} has no place in its machine`);
  const source = await guest.house.pool.lease(volume, signal);
  await handle.plug(guest.record.machine, { kind: 'disk', pinned, source }, signal);
};

const recordDisk = (guest: Guest, wanted: DiskAttachment, shared: Shared): Step => ({
  name: 'record',
  do: async ({ signal }) => {
    const { name } = wanted;
    // Names are given once: one that is there was recorded by an earlier run of this step.
    if (hasDisk(guest, name)) return;
    const { spec, machine } = guest.record;
    refuseTooMany(spec, 'disk');
    const kept = wanted.kept ? requireKeptDisk(spec, name) : undefined;
    const disk: StoredDisk = kept ? storedDisk(kept) : resolveDisk(wanted, name, guest.house.images);
    const fitted = await guest.driver.repin(
      specToRepin(guest.name, machine.type, specWithDisk(spec, disk)),
      machine,
      signal,
    );
    const pinned = kept ? withSerial(fitted, name, kept.serial) : fitted;
    await changeRecord(guest, (record) => {
      if (disk.image !== undefined) guest.house.images.require(disk.image);
      return withDisk(record, disk, pinned);
    });
  },
  undo: async () => {
    if (shared.stays || !hasDisk(guest, wanted.name)) return;
    await changeRecord(guest, (record) => withoutDisk(record, wanted.name, wanted.kept));
  },
});

const storedDisk = ({ name, image, sizeBytes, readOnly }: StoredDisk): StoredDisk => ({
  name,
  ...(image === undefined ? {} : { image }),
  sizeBytes,
  readOnly,
});

const makeVolume = (guest: Guest, wanted: DiskAttachment, shared: Shared): Step => ({
  name: 'volume',
  do: async (work) => {
    if (wanted.kept) return;
    const disk = requireDisk(guest.record.spec, wanted.name);
    await guest.house.pool.createVolume(volumeSpecOf(guest, disk), work);
  },
  undo: async () => {
    if (shared.stays || wanted.kept) return;
    try {
      await guest.house.pool.deleteVolume({ guest: guest.id, name: wanted.name });
    } catch (error) {
      // Left behind unrecorded, a later disk of that name would begin with its bytes.
      shared.stays = true;
      throw error;
    }
  },
});

export const diskAttachment = (guest: Guest, operation: OperationRecord): Procedure => {
  const wanted = operation.arguments as unknown as DiskAttachment;
  const shared: Shared = { stays: false };
  return {
    steps: [
      recordDisk(guest, wanted, shared),
      makeVolume(guest, wanted, shared),
      {
        name: 'plug',
        do: async ({ signal }) => {
          if (!isBeingEnded(guest)) await plugDisk(guest, wanted.name, signal);
        },
        undo: undoPlug(guest, 'disk', wanted.name, shared),
      },
    ],
    finish: tellChanged(guest, operation, 'disks', { device: wanted.name }),
  };
};

// NICs

/**
 * Gives a live guest a NIC of its record, with a port of its own. Done already when it has it; what an earlier try left
 * half done is taken away first, because its port went with the process that held it.
 */
export const plugNic = async (guest: Guest, name: string, signal: AbortSignal): Promise<void> => {
  const handle = liveHandle(guest);
  if (!handle || (await handle.devices(signal)).nics.has(name)) return;
  const { network, port } = portSpecOf(guest, requireNic(guest.record.spec, name));
  const { networks } = guest.house;
  await handle.unplug({ kind: 'nic', name }, signal);
  await networks.detach(network, port, signal);
  const attached = await networks.attach(network, port, signal);
  try {
    await attached.guarded;
    const { machine } = guest.record;
    const pinned = machine.nics.find((nic) => nic.name === name);
    if (!pinned)
      throw new RoostError('Internal', `NIC ${name} of guest ${guest.name} has no place in its machine`);
    const { descriptor } = attached;
    const device: PluggedDevice = {
      kind: 'nic',
      pinned,
      port: attached.port,
      ...(descriptor === undefined ? {} : { descriptor }),
    };
    await handle.plug(machine, device, signal);
    guest.readiness.nicsChanged();
  } finally {
    if (attached.descriptor !== undefined) await closeDescriptor(attached.descriptor);
  }
};

/** Removes a NIC's port from the host, also one whose rules are still being made. */
export const detachPort = async (guest: Guest, nic: StoredNic): Promise<void> => {
  const { network, port } = portSpecOf(guest, nic);
  await guest.house.networks.detach(network, port, new AbortController().signal);
};

/** In a transaction: nothing of a NIC is on the host or kept for it any more. */
export const forgetNic = (guest: Guest, nic: StoredNic): void => {
  const { inventory } = guest.house;
  inventory.guests.releaseAddress(guest.id, nic.name);
  for (const object of portObjectsOf(guest, nic)) inventory.ledger.forget(guest.id, object);
};

const recordNic = (guest: Guest, wanted: NicAttachment, shared: Shared): Step => ({
  name: 'record',
  do: async ({ signal }) => {
    const { name } = wanted;
    if (hasNic(guest, name)) return;
    const { house } = guest;
    const { spec, machine } = guest.record;
    refuseTooMany(spec, 'nic');
    const nic = resolveNic(wanted, name, house.networks);
    const fitted = await guest.driver.repin(
      specToRepin(guest.name, machine.type, specWithNic(spec, nic)),
      machine,
      signal,
    );
    const isLive = guest.isLive();
    const busy = await busyPorts([nic], house);
    await changeRecord(
      guest,
      (record) => {
        const allocated = allocateNic(house, nic, { name: guest.name, others: [], busyPorts: busy });
        house.inventory.guests.keepAddress(guest.id, allocated);
        return withNic(record, allocated, fitted);
      },
      (record) => {
        if (!isLive) return;
        const recorded = requireNic(record.spec, name);
        const objects = portObjectsOf(guest, recorded);
        house.inventory.ledger.record({ kind: 'guest', id: guest.id }, 'run', objects, house.clock.now());
      },
    );
  },
  undo: async () => {
    if (shared.stays || !hasNic(guest, wanted.name)) return;
    const nic = requireNic(guest.record.spec, wanted.name);
    await changeRecord(
      guest,
      (record) => withoutNic(record, wanted.name),
      () => forgetNic(guest, nic),
    );
  },
});

export const nicAttachment = (guest: Guest, operation: OperationRecord): Procedure => {
  const wanted = operation.arguments as unknown as NicAttachment;
  const shared: Shared = { stays: false };
  const undo = undoPlug(guest, 'nic', wanted.name, shared);
  return {
    steps: [
      recordNic(guest, wanted, shared),
      {
        name: 'plug',
        do: async ({ signal }) => {
          if (!isBeingEnded(guest)) await plugNic(guest, wanted.name, signal);
        },
        undo: async () => {
          await undo();
          const nic = guest.record.spec.nics.find((one) => one.name === wanted.name);
          if (nic) await detachPort(guest, nic);
        },
      },
    ],
    finish: tellChanged(guest, operation, 'nics', { device: wanted.name }),
  };
};
