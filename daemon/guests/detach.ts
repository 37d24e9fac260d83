/**
 * guest-disk-detach and guest-nic-detach: ask a running guest to let go of the device, take it out of the record, and
 * delete the disk if that was asked for. Until the guest has let go nothing is changed; once the record is without the
 * device there is no way back.
 */
import { waitOrAbort } from '../../lib/abort.ts';
import type { CommandArguments } from '../../protocol/commands.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import type { Step } from '../operations/steps.ts';
import { detachPort, forgetNic, plugDisk, plugNic } from './attach.ts';
import {
  refuseNeededDisk,
  requireKeptDisk,
  withoutDisk,
  withoutKeptDisk,
  withoutNic,
} from './device-record.ts';
import { changeRecord, isBeingEnded, liveHandle, tellChanged } from './device-work.ts';
import type { Guest } from './guest.ts';
import type { Procedure } from './perform.ts';

type Kind = 'disk' | 'nic';

const words: Readonly<Record<Kind, string>> = { disk: 'disk', nic: 'NIC' };

const isAttached = (guest: Guest, kind: Kind, name: string): boolean => {
  const { disks, nics } = guest.record.spec;
  return (kind === 'disk' ? disks : nics).some((device) => device.name === name);
};

/** The deadline as first set; a restart of the daemon does not move it. */
const deadlineOf = (guest: Guest, operation: OperationRecord): number => {
  if (operation.deadlineAt !== undefined) return operation.deadlineAt;
  const { clock, inventory, operations } = guest.house;
  const deadlineAt = clock.now() + Number(operation.arguments['timeoutMs']);
  inventory.db.soon(() => operations.setDeadline(operation.id, deadlineAt));
  return deadlineAt;
};

const overdue = (guest: Guest, kind: Kind, name: string): RoostError =>
  new RoostError('DeadlineExceeded', `Guest ${guest.name} has not let go of ${words[kind]} ${name} in time`, {
    data: { guest: guest.name, device: name },
    hint: 'A guest that boots, or has no system that knows hot-plugging, does not hear. It stays attached; should the guest let go later, at its next reset at the latest, detach it again. Or stop the guest and detach it then.',
  });

/** A guest that stands still, or is about to end, lets go of nothing. */
const refuseInVain = (guest: Guest, kind: Kind, name: string): void => {
  const { state } = guest.status;
  const ends = isBeingEnded(guest);
  if (state !== 'paused' && !ends) return;
  throw new RoostError(
    'FailedPrecondition',
    `Guest ${guest.name} is ${ends ? 'being stopped' : 'paused'} and cannot let go of ${words[kind]} ${name}`,
    {
      data: { guest: guest.name, state, device: name },
      hint: ends ? 'Detach it when the guest has stopped.' : 'Resume it first, or stop it.',
    },
  );
};

const unplug = (guest: Guest, operation: OperationRecord, kind: Kind, name: string): Step => ({
  name: 'unplug',
  do: async ({ signal }) => {
    if (!isAttached(guest, kind, name)) return;
    if (kind === 'disk') refuseNeededDisk(guest.record.spec, name);
    const handle = liveHandle(guest);
    if (!handle) return;
    refuseInVain(guest, kind, name);
    const { clock } = guest.house;
    const late = new AbortController();
    const cancelTimer = clock.after(deadlineOf(guest, operation) - clock.now(), () => late.abort());
    const patience = AbortSignal.any([signal, late.signal]);
    try {
      await waitOrAbort(handle.unplug({ kind, name }, patience), patience);
    } catch (error) {
      throw late.signal.aborted && !signal.aborted ? overdue(guest, kind, name) : error;
    } finally {
      cancelTimer();
    }
  },
  undo: async () => {
    if (!isAttached(guest, kind, name)) return;
    if (!guest.handle || (await guest.driver.probe(guest.place)) === 'gone') return;
    const signal = guest.house.stopping;
    if (kind === 'disk') await plugDisk(guest, name, signal);
    else await plugNic(guest, name, signal);
  },
});

const isKept = (guest: Guest, name: string): boolean =>
  guest.record.spec.keptDisks.some((disk) => disk.name === name);

const deleteVolume = (guest: Guest, name: string): Step => ({
  name: 'delete',
  do: async () => {
    const { pool } = guest.house;
    if (!isKept(guest, name)) return;
    await pool.deleteVolume({ guest: guest.id, name });
    await changeRecord(guest, (record) => withoutKeptDisk(record, name));
  },
  isDone: () => !isKept(guest, name) && !isAttached(guest, 'disk', name),
});

export const diskDetachment = (guest: Guest, operation: OperationRecord): Procedure => {
  const { disk, delete: deletes } = operation.arguments as CommandArguments<'guest-disk-detach'>;
  return {
    steps: [
      unplug(guest, operation, 'disk', disk),
      {
        name: 'record',
        do: async () => {
          if (isAttached(guest, 'disk', disk))
            await changeRecord(guest, (record) => withoutDisk(record, disk, true));
        },
        isDone: () => !isAttached(guest, 'disk', disk),
      },
      ...(deletes ? [deleteVolume(guest, disk)] : []),
    ],
    finish: tellChanged(guest, operation, 'disks'),
  };
};

export const nicDetachment = (guest: Guest, operation: OperationRecord): Procedure => {
  const { nic: name } = operation.arguments as CommandArguments<'guest-nic-detach'>;
  return {
    steps: [
      unplug(guest, operation, 'nic', name),
      {
        name: 'record',
        do: async () => {
          const nic = guest.record.spec.nics.find((one) => one.name === name);
          if (!nic) return;
          await detachPort(guest, nic);
          await changeRecord(
            guest,
            (record) => withoutNic(record, name),
            () => forgetNic(guest, nic),
          );
          guest.readiness.nicsChanged();
        },
        isDone: () => !isAttached(guest, 'nic', name),
      },
    ],
    finish: tellChanged(guest, operation, 'nics'),
  };
};

/** guest-disk-delete: of a disk that is attached no more. */
export const diskDeletion = (guest: Guest, operation: OperationRecord): Procedure => {
  const { disk } = operation.arguments as CommandArguments<'guest-disk-delete'>;
  const remove = deleteVolume(guest, disk);
  return {
    steps: [
      {
        ...remove,
        do: async (work) => {
          // Attached again meanwhile, it is refused; gone already, it is done.
          if (isAttached(guest, 'disk', disk)) requireKeptDisk(guest.record.spec, disk);
          await remove.do(work);
        },
      },
    ],
    cancellable: false,
    finish: tellChanged(guest, operation, 'disks'),
  };
};
