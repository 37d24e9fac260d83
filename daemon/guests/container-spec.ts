/**
 * What a container is not: it has the kernel of its host, so that nothing of a machine can be asked of it. Pure; said
 * before anything is done, with what there is instead.
 */
import { RoostError } from '../../protocol/errors.ts';
import { type GuestSpec, guestSpec } from '../../protocol/guest.ts';
import type { StoredSpec } from '../inventory/guest-table.ts';
import type { NetworkRecord } from '../inventory/network-table.ts';

/** A member of a spec, whether it is asked for, and what there is instead. */
type Refusal = readonly [member: string, isAsked: boolean, hint: string];

const hasNo = (name: string, member: string, hint: string): RoostError =>
  new RoostError('Unsupported', `Guest ${name} is a container, which has no ${member}`, {
    data: { guest: name, member },
    hint,
  });

const NO_DISKS = 'Its files are those of its root; more are copied into it by `roost cp`.';
const LEAVE_OUT = 'Leave it out, or make a machine: the driver qemu.';

const devices = ({ disks, cdroms, filesystems }: GuestSpec): readonly Refusal[] => [
  ['disks', disks.length > 0, NO_DISKS],
  ['cdroms', cdroms.length > 0, 'Copy what is on them into it by `roost cp`.'],
  ['filesystems', filesystems.length > 0, 'Copy files by `roost cp`, or share them over the network.'],
];

const settings = ({ program, cloudInit, firmware, cpu, qemu }: GuestSpec): readonly Refusal[] => [
  ['program', program !== undefined, 'Give its command line as boot.init; or leave boot out, for a microVM.'],
  ['cloudInit', cloudInit !== undefined, 'Put users and keys into its image, or make them by `roost exec`.'],
  ['firmware', firmware !== 'bios', LEAVE_OUT],
  ['cpu.topology', cpu.topology !== undefined, 'cpu.count is how many of the CPUs of the host it may use.'],
  ['cpu.model', cpu.model !== 'max', 'It has the CPUs of the host as they are. Leave it out.'],
  ['qemu.binary', qemu.binary !== 'default', LEAVE_OUT],
  ['qemu.accel', qemu.accel !== 'auto', LEAVE_OUT],
  ['qemu.extraArgs', qemu.extraArgs.length > 0, LEAVE_OUT],
];

const refuseBothWays = (boot: GuestSpec['boot']): void => {
  if (boot.kind !== 'root') return;
  const both = boot.keepCapabilities.find((capability) => boot.dropCapabilities.includes(capability));
  if (both === undefined) return;
  throw new RoostError(
    'InvalidArgument',
    `The capability ${both} is to be left to the container and taken from it`,
    {
      data: { member: 'boot', capability: both },
      hint: 'Name it once.',
    },
  );
};

/**
 * Of a container. Errors: Unsupported naming the first member that only a machine has; InvalidArgument for a capability that
 * is both kept and dropped.
 */
export const checkContainer = (spec: GuestSpec): void => {
  const { name } = spec;
  for (const [member, isAsked, hint] of [...devices(spec), ...settings(spec)])
    if (isAsked) throw hasNo(name, member, hint);
  refuseBothWays(spec.boot);
};

/** Nothing was asked for then. */
const DEFAULT_MACHINE = guestSpec.shape.machine.parse(undefined);

/** Of a new guest. Errors: InvalidArgument for a driver that does not go with how it boots; those of `checkContainer`. */
export const refuseContradiction = (spec: GuestSpec): void => {
  const { name, boot, driver } = spec;
  if (driver === 'lxc' && boot.kind !== 'root')
    throw new RoostError('InvalidArgument', `Guest ${name} would be a container without a root file system`, {
      data: { guest: name, member: 'boot', kind: boot.kind, driver },
      hint: 'Give it boot of kind root with an image of kind root or oci; or leave driver out, for a machine.',
    });
  if (boot.kind !== 'root') return;
  if (driver === 'qemu')
    throw new RoostError('InvalidArgument', `Guest ${name} would be a machine without a kernel to boot by`, {
      data: { guest: name, member: 'driver', kind: boot.kind, driver },
      hint: 'Ask for the driver lxc, for a container; or boot by a disk or a kernel.',
    });
  if (spec.machine !== DEFAULT_MACHINE) throw hasNo(name, 'machine', LEAVE_OUT);
  checkContainer(spec);
};

/**
 * A container stays one, on the image that it was made of: what it wrote lies over the files of that.
 * Errors: InvalidArgument.
 */
export const refuseOtherRoot = (before: StoredSpec['boot'], after: StoredSpec['boot']): void => {
  const refuse = (why: string, hint: string): never => {
    throw new RoostError('InvalidArgument', why, { data: { member: 'boot', kind: after.kind }, hint });
  };
  if (before.kind !== 'root' && after.kind !== 'root') return;
  if (before.kind !== 'root')
    return refuse('A machine does not become a container', 'Make a new guest with the driver lxc.');
  if (after.kind !== 'root')
    return refuse('A container boots by its root and nothing else', 'Make a new guest for a machine.');
  if (after.image !== before.image)
    refuse(
      'A container keeps the image that it was made of, over which its files lie',
      'Make a new guest of the other image.',
    );
};

/** Before a disk is attached. Errors: Unsupported for a container. */
export const refuseDisks = (name: string, { boot }: Pick<StoredSpec, 'boot'>): void => {
  if (boot.kind === 'root') throw hasNo(name, 'disks', NO_DISKS);
};

/** Its NICs are links of its own, which a network without a bridge has not. Errors: Unsupported for a container. */
export const refuseUserNetwork = (
  name: string,
  { boot }: Pick<StoredSpec, 'boot'>,
  network: Pick<NetworkRecord, 'name' | 'kind'>,
): void => {
  if (boot.kind !== 'root' || network.kind !== 'user') return;
  throw new RoostError(
    'Unsupported',
    `Guest ${name} is a container, which network ${network.name} cannot have`,
    {
      data: { guest: name, network: network.name, kind: network.kind },
      hint: 'Networks of kind user are made by QEMU for its machines; attach it to one of kind nat, isolated or bridge.',
    },
  );
};
