/**
 * The stable machine: which address, serial number and MAC each device has, chosen once and kept for good. Pure.
 *
 * An address is given to a device when it first appears, by the lowest place that is free, and never to another
 * while the device is there, so that a device added later renames none. On q35 every device has a root port of its
 * own (`port3`), on pc a slot (`0x4`), on microvm a virtio-mmio transport (`virtio-mmio-bus.2`).
 */
import { isDeepStrictEqual } from 'node:util';
import { RoostError } from '../../protocol/errors.ts';
import type { GuestSpec, MachineFamily } from '../../protocol/guest.ts';
import type { PinnedFirmware, PinnedMachine } from '../driver.ts';

/**
 * Form 2 has a place for the channel to a guest agent; a guest of form 1 keeps the machine it was made with, and has
 * none.
 */
export const FORMAT_VERSION = 2;
const OLDEST_FORMAT_VERSION = 1;
/** Root ports left empty for devices that come while the guest runs. Each costs 0.7 ms of every start. */
const SPARE_PORTS = 4;

/** Places of CD-ROM drives on the machine's own controller: ports of AHCI, or IDE's two channels of two units. */
const drivePlaces: Readonly<Record<MachineFamily, readonly string[]>> = {
  q35: ['ide.0', 'ide.1', 'ide.2', 'ide.3'],
  pc: ['ide.0:0', 'ide.0:1', 'ide.1:0', 'ide.1:1'],
  microvm: [],
};

/** By which the guest knows it, at most 36 bytes. */
export const filesystemName = (index: number): string => `fs${index}`;

interface Addressing {
  /** How many devices the machine can take, and the address of each place. */
  readonly places: number;
  readonly addressOf: (place: number) => string;
}

const addressing: Readonly<Record<MachineFamily, Addressing>> = {
  // Slots 0x10 to 0x1e with eight functions each; launch-args.ts makes the ports.
  q35: { places: 120 - SPARE_PORTS, addressOf: (place) => `port${place}` },
  // 0x0 and 0x1 are the chipset's, 0x2 is where a display goes, 0x3 the random number generator.
  pc: { places: 28, addressOf: (place) => `0x${(place + 4).toString(16)}` },
  // 24 transports; 0 is the random number generator's, 23 the agent's.
  microvm: { places: 22, addressOf: (place) => `virtio-mmio-bus.${place + 1}` },
};

/** The family of a machine type as `query-machines` names it; undefined for those that Roost does not drive. */
export const familyOfType = (type: string): MachineFamily | undefined => {
  if (type === 'microvm') return 'microvm';
  if (type === 'q35' || type.startsWith('pc-q35-')) return 'q35';
  return type === 'pc' || type.startsWith('pc-i440fx-') ? 'pc' : undefined;
};

export interface MachineBasics {
  /** Versioned. */
  readonly type: string;
  readonly family: MachineFamily;
  /** Up to 16 characters, different for every guest: the beginning of its disks' serial numbers. */
  readonly serialPrefix: string;
  readonly firmware?: PinnedFirmware | undefined;
}

/** Errors: Unsupported for what a container alone has. */
export const requireMachine = ({ boot, limits }: Pick<GuestSpec, 'boot' | 'limits'>): void => {
  const hint = 'Use the driver lxc for a container, or leave it out.';
  if (boot.kind === 'root')
    throw new RoostError(
      'Unsupported',
      'A machine boots from disks or by a kernel of its own, not from a root',
      {
        data: { driver: 'qemu' },
        hint,
      },
    );
  const [limit] = Object.keys(limits);
  if (limit !== undefined)
    throw new RoostError('Unsupported', `A machine is not held to a limit of ${limit}`, {
      data: { driver: 'qemu', limit },
      hint,
    });
};

/** The record of a new guest's machine. Errors: InvalidArgument for devices that do not fit it. */
export const pinMachine = (spec: GuestSpec, basics: MachineBasics): PinnedMachine =>
  fitMachine(spec, {
    formatVersion: FORMAT_VERSION,
    type: basics.type,
    cpuModel: spec.cpu.model,
    disks: [],
    nics: [],
    ...(basics.firmware === undefined ? {} : { firmware: basics.firmware }),
    settings: { family: basics.family, serialPrefix: basics.serialPrefix, nextSerial: 0, ports: 0 },
  });

/** Whether two machines are the same to the software in them, but for names, serial numbers and MAC addresses. */
export const isSameBoard = (one: PinnedMachine, other: PinnedMachine): boolean =>
  isDeepStrictEqual(boardOf(one), boardOf(other));

const boardOf = ({ type, cpuModel, disks, nics, filesystems = [], settings }: PinnedMachine): object => ({
  type,
  cpuModel,
  disks: disks.map(({ address }) => address),
  nics: nics.map(({ address }) => address),
  filesystems: filesystems.map(({ address }) => address),
  family: settings['family'],
  ports: settings['ports'],
  seed: settings['seed'],
});

const refuseLimits = ({ name, limits }: GuestSpec): void => {
  const [member] = Object.entries(limits).flatMap(([key, value]) => (value === undefined ? [] : [key]));
  if (member === undefined) return;
  throw new RoostError('Unsupported', `Guest ${name} is a machine, which has no limit of ${member}`, {
    data: { guest: name, member: `limits.${member}` },
    hint: 'Only containers have limits besides memory and CPUs: leave limits out.',
  });
};

/** The record after a change of the spec: what stays keeps all it has, what is new gets its own. Same errors. */
export const fitMachine = (spec: GuestSpec, machine: PinnedMachine): PinnedMachine => {
  if (machine.formatVersion < OLDEST_FORMAT_VERSION || machine.formatVersion > FORMAT_VERSION) {
    throw new RoostError('Unsupported', `The machine's record has form ${machine.formatVersion}`, {
      hint: 'It was written by a newer Roost; use that one.',
    });
  }
  refuseLimits(spec);
  if (spec.agent.enabled === true && machine.formatVersion < 2) {
    throw new RoostError(
      'Unsupported',
      `Guest ${spec.name} was made without a place for an agent's channel`,
      {
        data: { formatVersion: machine.formatVersion },
        hint: 'Make a new guest of its disks.',
      },
    );
  }
  const family = machine.settings['family'] as MachineFamily;
  const diskNames = spec.disks.map((disk, index) => disk.name ?? `disk${index}`);
  const nicNames = spec.nics.map((nic, index) => nic.name ?? `nic${index}`);
  const filesystemNames = spec.filesystems.map((_, index) => filesystemName(index));
  refuseTwins('disks', diskNames);
  refuseTwins('NICs', nicNames);

  const { seed } = machine.settings;
  const places = freePlaces(family, machine.formatVersion, [
    ...(seed === undefined ? [] : [String(seed)]),
    ...kept(machine.disks, diskNames).map(({ address }) => address),
    ...kept(machine.nics, nicNames).map(({ address }) => address),
    ...kept(machine.filesystems ?? [], filesystemNames).map(({ address }) => address),
  ]);
  let nextSerial = Number(machine.settings['nextSerial']);
  const disks = diskNames.map((name) => {
    const before = machine.disks.find((disk) => disk.name === name);
    if (before) return before;
    const serial = `${machine.settings['serialPrefix']}-${nextSerial}`;
    nextSerial += 1;
    return { name, serial, address: places.take() };
  });
  const nics = spec.nics.map((nic, index) => {
    const name = nicNames[index] ?? '';
    const before = machine.nics.find((other) => other.name === name);
    const mac = nic.mac ?? before?.mac;
    if (mac === undefined) throw new RoostError('Internal', `NIC ${name} has no MAC address`);
    return { name, mac, address: before?.address ?? places.take() };
  });
  const filesystems = filesystemNames.map(
    (name) => machine.filesystems?.find((each) => each.name === name) ?? { name, address: places.take() },
  );
  const seeds = seedPlace(spec, machine, places);
  const cdroms = fitDrives(spec, machine, family);
  const ports = family === 'q35' ? portsFor(machine, [...disks, ...nics, ...filesystems, ...seeds]) : 0;
  const seedSetting = Object.fromEntries(seeds.map(({ address }) => ['seed', address]));
  const settings = { ...machine.settings, nextSerial, ports, ...seedSetting };
  return {
    ...machine,
    cpuModel: spec.cpu.model,
    disks,
    nics,
    ...(cdroms.length === 0 && machine.cdroms === undefined ? {} : { cdroms }),
    ...(filesystems.length === 0 && machine.filesystems === undefined ? {} : { filesystems }),
    settings,
  };
};

const fitDrives = (
  spec: GuestSpec,
  machine: PinnedMachine,
  family: MachineFamily,
): NonNullable<PinnedMachine['cdroms']> => {
  const names = spec.cdroms.map((cdrom, index) => cdrom.name ?? `cdrom${index}`);
  refuseTwins('CD-ROM drives', names);
  const before = kept(machine.cdroms ?? [], names);
  const taken = new Set(before.map(({ address }) => address));
  const free = drivePlaces[family].filter((place) => !taken.has(place));
  if (names.length - before.length > free.length)
    throw new RoostError(
      'Unsupported',
      `A ${family} machine has room for ${drivePlaces[family].length} CD-ROM drives`,
      {
        data: { machine: family },
        hint: family === 'microvm' ? 'Use a q35 machine.' : 'Use fewer drives.',
      },
    );
  return names.map(
    (name) => before.find((drive) => drive.name === name) ?? { name, address: free.shift() ?? '' },
  );
};

const kept = <T extends { readonly name: string }>(
  devices: readonly T[],
  names: readonly string[],
): readonly T[] => devices.filter((device) => names.includes(device.name));

/** The seed keeps its place for good: it may be in a running guest still when the spec has none any more. */
const seedPlace = (
  spec: GuestSpec,
  machine: PinnedMachine,
  places: { take(): string },
): readonly { readonly address: string }[] => {
  const { seed } = machine.settings;
  if (seed !== undefined) return [{ address: String(seed) }];
  return spec.cloudInit === undefined ? [] : [{ address: places.take() }];
};

/** Ports never become fewer: that would move the ones behind. */
const portsFor = (machine: PinnedMachine, devices: readonly { readonly address: string }[]): number => {
  const highest = Math.max(-1, ...devices.map(({ address }) => Number(address.slice('port'.length))));
  return Math.max(Number(machine.settings['ports']), highest + 1 + SPARE_PORTS);
};

const freePlaces = (
  family: MachineFamily,
  formatVersion: number,
  taken: readonly string[],
): { take(): string } => {
  const { addressOf } = addressing[family];
  // The last transport of form 1 was a device's as any other.
  const places = addressing[family].places + (family === 'microvm' && formatVersion === 1 ? 1 : 0);
  const used = new Set(taken);
  let next = 0;
  return {
    take: () => {
      while (next < places && used.has(addressOf(next))) next += 1;
      if (next >= places) {
        throw new RoostError(
          'InvalidArgument',
          `A ${family} machine takes at most ${places} disks, NICs and directories`,
          {
            data: { machine: family, places },
            hint: family === 'q35' ? 'Use fewer devices.' : 'Use fewer devices, or a q35 machine.',
          },
        );
      }
      next += 1;
      return addressOf(next - 1);
    },
  };
};

const refuseTwins = (kind: string, names: readonly string[]): void => {
  const twin = names.find((name, index) => names.indexOf(name) !== index);
  if (twin === undefined) return;
  throw new RoostError('InvalidArgument', `Two ${kind} are called ${twin}`, {
    data: { name: twin },
    hint: 'Give each its own name.',
  });
};
