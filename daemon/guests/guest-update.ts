/** guest-update: what a request makes of a guest's record, checked before anything is written. */
import type { CommandArguments } from '../../protocol/commands.ts';
import type { GuestRecord } from '../inventory/guest-table.ts';
import { changeSpec, specToRepin } from './change-spec.ts';
import { checkContainer } from './container-spec.ts';
import type { Guest } from './guest.ts';
import { requireImages } from './refusals.ts';
import { resolveBoot } from './resolve-spec.ts';

export interface GuestUpdate {
  /** In the accepting transaction: the record as it is then, with the changes in it. */
  readonly change: () => GuestRecord;
  /** Names of the members that were given. */
  readonly changed: readonly string[];
  /** Memory that it will have. */
  readonly memoryBytes: number;
}

/** Members that are told to the process, or are pinned with the machine. */
const machineMembers = ['cpu', 'qemu', 'agent', 'memoryBytes', 'limits'] as const;

/** Errors: those of `resolveBoot`, `changeSpec` and `checkContainer` and of the driver. */
export const prepareUpdate = async (
  guest: Guest,
  { boot, guest: _name, idempotencyKey: _key, ...rest }: CommandArguments<'guest-update'>,
): Promise<GuestUpdate> => {
  const { house } = guest;
  const changes = { ...rest, boot: boot && resolveBoot(boot, house) };
  const wanted = changeSpec(guest.record.spec, changes);
  const asked = specToRepin(guest.name, guest.record.machine.type, wanted);
  if (wanted.boot.kind === 'root') checkContainer(asked);
  // Settings that are no matter of the machine can be changed also while its binary is missing.
  const isOfMachine =
    machineMembers.some((member) => rest[member] !== undefined) ||
    (wanted.cloudInit !== undefined && guest.record.spec.cloudInit === undefined);
  const machine = isOfMachine
    ? await guest.driver.repin(asked, guest.record.machine, house.stopping)
    : guest.record.machine;
  const change = (): GuestRecord => {
    const record = guest.recorded();
    const spec = changeSpec(record.spec, changes);
    requireImages(house, spec);
    const { type, cpuModel } = machine;
    // Devices may have come or gone since it was pinned; what is new among the settings comes with the change.
    const settings = { ...machine.settings, ...record.machine.settings };
    return { ...record, spec, machine: { ...record.machine, type, cpuModel, settings } };
  };
  const changed = Object.entries(changes).flatMap(([member, value]) => (value === undefined ? [] : [member]));
  return { change, changed, memoryBytes: wanted.memoryBytes };
};
