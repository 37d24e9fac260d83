/**
 * The devices in a guest's record: which names are free, and the record after a disk or a NIC came or went. Pure; what
 * is asked is checked here both when it is accepted and when its turn has come.
 */
import type { PinnedMachine } from '../../drivers/driver.ts';
import { RoostError } from '../../protocol/errors.ts';
import type {
  GuestRecord,
  KeptDisk,
  StoredCdrom,
  StoredDisk,
  StoredNic,
  StoredSpec,
} from '../inventory/guest-table.ts';
import { programDisks } from './resolve-program.ts';
import { runsProgram } from './runs-program.ts';

export const MAX_DISKS = 16;
export const MAX_NICS = 8;

/** The name given, or the first of `disk0`, `disk1` … that nobody has. Errors: AlreadyExists. */
export const freeName = (
  kind: 'disk' | 'nic',
  wanted: string | undefined,
  taken: ReadonlySet<string>,
): string => {
  if (wanted !== undefined) {
    if (!taken.has(wanted)) return wanted;
    throw new RoostError('AlreadyExists', `The guest has a ${kind} called ${wanted} already`, {
      data: { device: wanted },
      hint: 'Choose another name.',
    });
  }
  let number = 0;
  while (taken.has(`${kind}${number}`)) number += 1;
  return `${kind}${number}`;
};

/** Errors: InvalidArgument when the guest has as many as it may have. */
export const refuseTooMany = (spec: StoredSpec, kind: 'disk' | 'nic', waiting = 0): void => {
  const [count, most] = kind === 'disk' ? [spec.disks.length, MAX_DISKS] : [spec.nics.length, MAX_NICS];
  if (count + waiting < most) return;
  throw new RoostError(
    'InvalidArgument',
    `A guest has at most ${most} ${kind === 'disk' ? 'disks' : 'NICs'}`,
    {
      data: { most },
      hint: 'Detach one that is not needed.',
    },
  );
};

/** Errors: NotFound. */
export const requireDisk = (spec: StoredSpec, name: string): StoredDisk => {
  const disk = spec.disks.find((one) => one.name === name);
  if (disk) return disk;
  const kept = spec.keptDisks.some((one) => one.name === name);
  throw new RoostError('NotFound', `No disk called ${name} is attached to the guest`, {
    data: { disk: name, attached: spec.disks.map((one) => one.name) },
    hint: kept
      ? 'It is detached and kept; guest-disk-attach attaches it again.'
      : 'query-guest lists its disks.',
  });
};

/** Errors: NotFound; FailedPrecondition while it is attached. */
export const requireKeptDisk = (spec: StoredSpec, name: string): KeptDisk => {
  const kept = spec.keptDisks.find((one) => one.name === name);
  if (kept) return kept;
  if (spec.disks.some((one) => one.name === name))
    throw new RoostError('FailedPrecondition', `Disk ${name} is attached`, {
      data: { disk: name },
      hint: 'Detach it first.',
    });
  throw new RoostError('NotFound', `The guest has kept no disk called ${name}`, {
    data: { disk: name, kept: spec.keptDisks.map((one) => one.name) },
    hint: 'query-disks lists its disks.',
  });
};

/** Errors: NotFound. */
export const requireNic = (spec: StoredSpec, name: string): StoredNic => {
  const nic = spec.nics.find((one) => one.name === name);
  if (nic) return nic;
  throw new RoostError('NotFound', `The guest has no NIC called ${name}`, {
    data: { nic: name, nics: spec.nics.map((one) => one.name) },
    hint: 'query-guest lists its NICs.',
  });
};

/** Errors: FailedPrecondition for the only thing that a guest could boot from, and for the disks of its program. */
export const refuseNeededDisk = (spec: StoredSpec, name: string): void => {
  if (runsProgram(spec) && (name === programDisks.root || name === programDisks.upper))
    throw new RoostError('FailedPrecondition', `Disk ${name} holds the program that the guest runs`, {
      data: { disk: name },
      hint: 'It goes with the guest.',
    });
  if (spec.disks.some((disk) => disk.name === name && disk.copyOf !== undefined))
    throw new RoostError(
      'FailedPrecondition',
      `Disk ${name} holds a directory that the guest was made with`,
      {
        data: { disk: name },
        hint: 'It goes with the guest.',
      },
    );
  if (spec.boot.kind !== 'disk' || spec.cdroms.length > 0 || spec.disks.some((disk) => disk.name !== name))
    return;
  throw new RoostError('FailedPrecondition', `Without disk ${name} the guest has nothing to boot from`, {
    data: { disk: name },
    hint: 'Attach another disk first, or let it boot by a kernel.',
  });
};

/** What a driver pinned anew, in a record that somebody may have changed meanwhile in other ways. */
const withDevicesOf = (
  record: GuestRecord,
  spec: Partial<StoredSpec>,
  machine: PinnedMachine,
): GuestRecord => ({
  ...record,
  spec: { ...record.spec, ...spec },
  machine: { ...record.machine, disks: machine.disks, nics: machine.nics, settings: machine.settings },
});

/** `spec` with the disk behind the others; one that was kept is so no more. */
export const specWithDisk = (spec: StoredSpec, disk: StoredDisk): StoredSpec => ({
  ...spec,
  disks: [...spec.disks, disk],
  keptDisks: spec.keptDisks.filter((one) => one.name !== disk.name),
});

export const withDisk = (record: GuestRecord, disk: StoredDisk, machine: PinnedMachine): GuestRecord =>
  withDevicesOf(record, specWithDisk(record.spec, disk), machine);

/** A disk that comes back keeps the serial number it had: it is still the same disk. */
export const withSerial = (machine: PinnedMachine, name: string, serial: string): PinnedMachine => ({
  ...machine,
  disks: machine.disks.map((disk) => (disk.name === name ? { ...disk, serial } : disk)),
});

/** The record without an attached disk; `kept`: the disk stays the guest's own. */
export const withoutDisk = (record: GuestRecord, name: string, kept: boolean): GuestRecord => {
  const { spec, machine } = record;
  const disk = spec.disks.find((one) => one.name === name);
  const serial = machine.disks.find((one) => one.name === name)?.serial;
  const disks = spec.disks.filter((one) => one.name !== name);
  const keptDisks =
    kept && disk && serial !== undefined ? [...spec.keptDisks, { ...disk, serial }] : spec.keptDisks;
  return withDevicesOf(
    record,
    { disks, keptDisks },
    {
      ...machine,
      disks: machine.disks.filter((one) => one.name !== name),
    },
  );
};

export const withoutKeptDisk = (record: GuestRecord, name: string): GuestRecord => ({
  ...record,
  spec: { ...record.spec, keptDisks: record.spec.keptDisks.filter((one) => one.name !== name) },
});

export const withDiskSize = (record: GuestRecord, name: string, sizeBytes: number): GuestRecord => ({
  ...record,
  spec: {
    ...record.spec,
    disks: record.spec.disks.map((disk) => (disk.name === name ? { ...disk, sizeBytes } : disk)),
  },
});

/** Errors: NotFound. */
export const requireCdrom = (spec: StoredSpec, name: string): StoredCdrom => {
  const cdrom = spec.cdroms.find((one) => one.name === name);
  if (cdrom) return cdrom;
  throw new RoostError('NotFound', `The guest has no CD-ROM drive called ${name}`, {
    data: { cdrom: name, cdroms: spec.cdroms.map((one) => one.name) },
    hint: 'A drive is given to a guest when it is made.',
  });
};

export const withCdrom = (record: GuestRecord, drive: StoredCdrom): GuestRecord => ({
  ...record,
  spec: {
    ...record.spec,
    cdroms: record.spec.cdroms.map((one) => (one.name === drive.name ? drive : one)),
  },
});

/** NICs with the number of each one's port written down: so far it followed from the place among the others. */
const numbered = (nics: readonly StoredNic[]): readonly (StoredNic & { readonly port: number })[] =>
  nics.map((nic, index) => ({ ...nic, port: portNumberOf(nic, index) }));

/** Number of a NIC's port on the host, part of its link's name: it stays when a NIC before it goes. */
export const portNumberOf = (nic: StoredNic, index: number): number => nic.port ?? index;

export const specWithNic = (spec: StoredSpec, nic: StoredNic): StoredSpec => {
  const nics = numbered(spec.nics);
  const taken = new Set(nics.map(({ port }) => port));
  let port = 0;
  while (taken.has(port)) port += 1;
  return { ...spec, nics: [...nics, { ...nic, port }] };
};

export const withNic = (record: GuestRecord, nic: StoredNic, machine: PinnedMachine): GuestRecord =>
  withDevicesOf(record, specWithNic(record.spec, nic), machine);

export const withoutNic = (record: GuestRecord, name: string): GuestRecord => {
  const { spec, machine } = record;
  return withDevicesOf(
    record,
    { nics: numbered(spec.nics).filter((one) => one.name !== name) },
    {
      ...machine,
      nics: machine.nics.filter((one) => one.name !== name),
    },
  );
};
