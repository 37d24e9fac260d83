/** What of a container stays the same from start to start, and what it cannot have. Pure. */
import { RoostError } from '../../protocol/errors.ts';
import type { GuestSpec } from '../../protocol/guest.ts';
import type { PinnedMachine } from '../driver.ts';

/** The version of the configuration that is made for a container. */
const MACHINE_TYPE = 'lxc-1';
/** What a spec has that names no machine. */
const ANY_MACHINE: readonly string[] = ['q35', 'lxc', MACHINE_TYPE];

const unsupported = (what: string, hint: string): RoostError =>
  new RoostError('Unsupported', `A container has no ${what}`, { data: { driver: 'lxc' }, hint });

/**
 * What else of a machine it has not, is refused before a driver is asked. Errors: Unsupported, InvalidArgument where it has
 * nothing to begin with.
 */
export const requireContainer = (spec: GuestSpec): void => {
  if (spec.boot.kind !== 'root')
    throw new RoostError('InvalidArgument', 'A container is begun by a root file system', {
      data: { boot: spec.boot.kind },
      hint: 'Give it boot {kind: root, image: …} (`roost create --root IMAGE`), or use the driver qemu.',
    });
  const machine = 'Use the driver qemu for a machine of its own.';
  if (!ANY_MACHINE.includes(spec.machine)) throw unsupported(`machine ${spec.machine}`, machine);
  if (spec.disks.length > 0) throw unsupported('disks', 'It writes on top of its image; leave `disks` out.');
  if (spec.cdroms.length > 0) throw unsupported('CD-ROM drives', machine);
};

type Nics = PinnedMachine['nics'];

/** A NIC keeps the name that it has in the guest; a new one gets the first that is free. */
const fitNics = (wanted: GuestSpec['nics'], pinned: Nics): Nics => {
  const names = wanted.map((nic, index) => nic.name ?? `nic${index}`);
  const kept = new Map(pinned.filter(({ name }) => names.includes(name)).map((nic) => [nic.name, nic]));
  const taken = new Set([...kept.values()].map(({ address }) => address));
  return wanted.map((nic, index) => {
    const name = names[index] ?? '';
    if (nic.mac === undefined) throw new RoostError('Internal', `NIC ${name} has no MAC address`);
    const before = kept.get(name);
    if (before) return { ...before, mac: nic.mac };
    let number = 0;
    while (taken.has(`eth${number}`)) number += 1;
    taken.add(`eth${number}`);
    return { name, mac: nic.mac, address: `eth${number}` };
  });
};

/** Errors: those of `requireContainer`. */
export const pinContainer = (spec: GuestSpec, pinned?: PinnedMachine): PinnedMachine => {
  requireContainer(spec);
  return {
    formatVersion: 1,
    type: pinned?.type ?? MACHINE_TYPE,
    cpuModel: 'host',
    disks: [],
    nics: fitNics(spec.nics, pinned?.nics ?? []),
    settings: {},
  };
};
