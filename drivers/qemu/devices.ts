/**
 * Devices of a guest in QEMU's own words, from data alone: block nodes, network back ends and what is plugged on top. The
 * command line of a start and the commands of a hot-plug are made of the same objects, so that a device is the same
 * whichever way it came. Pure.
 *
 * Every object has a name that follows from the device's: `disk-NAME` with the nodes `disk-NAME-0`, its own file, and
 * `disk-NAME-1` and so on, what lies under it; `cdrom-NAME` with its medium in the same way; `nic-NAME` with its back
 * end `net-NAME`; `fs-NAME`, a directory of the host, with the line to what serves it under the same name; `cidata`, the seed.
 */
import type { BlockSource } from '../../protocol/block-source.ts';
import { SEED_DEVICE } from '../../protocol/cloud-init.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { NetPort, PortForward } from '../../protocol/net-port.ts';
import type { PinnedMachine } from '../driver.ts';

export type Json = Readonly<Record<string, string | number | boolean | null>>;
/** A block node as `-blockdev` and `blockdev-add` take it. */
export type BlockNode = Json & { readonly driver: string; readonly 'node-name': string };
/** A device as `-device` and `device_add` take it. */
export type Device = Json & { readonly driver: string; readonly id: string };
/** A network back end as `-netdev` and `netdev_add` take it. */
export type Netdev = Readonly<Record<string, Json[string] | readonly Json[]>> & {
  readonly type: string;
  readonly id: string;
};

export const diskId = (name: string): string => `disk-${name}`;
export const nicId = (name: string): string => `nic-${name}`;
export const cdromId = (name: string): string => `cdrom-${name}`;
export const netdevId = (name: string): string => `net-${name}`;
export const filesystemId = (name: string): string => `fs-${name}`;

/** The topmost node of a disk: what its device reads and writes. */
export const topNode = (id: string): string => `${id}-0`;

export const familyOf = (machine: PinnedMachine): string => String(machine.settings['family']);

export const virtio = (kind: 'blk' | 'net' | 'rng' | 'serial', machine: PinnedMachine): string =>
  `virtio-${kind}-${familyOf(machine) === 'microvm' ? 'device' : 'pci'}`;

/** The nodes of a disk with its whole chain. A node has to be there before another names it: the base comes first. */
export const blockNodes = (
  id: string,
  source: BlockSource,
  pathFor: (path: string) => string,
): readonly BlockNode[] =>
  chain(source)
    .map((layer, depth) => layerNodes(id, layer, depth, pathFor))
    .toReversed()
    .flat();

export const diskDevice = (
  machine: PinnedMachine,
  pinned: PinnedMachine['disks'][number],
  more: Json = {},
): Device => ({
  driver: virtio('blk', machine),
  id: diskId(pinned.name),
  drive: topNode(diskId(pinned.name)),
  serial: pinned.serial,
  ...more,
  ...addressOf(machine, pinned.address),
});

/** Without a boot index: it is never booted from. */
export const seedDevice = (machine: PinnedMachine): Device => ({
  driver: virtio('blk', machine),
  id: SEED_DEVICE,
  drive: topNode(SEED_DEVICE),
  serial: SEED_DEVICE,
  ...addressOf(machine, String(machine.settings['seed'])),
});

/** A drive on the machine's own controller, which installers know: AHCI on q35, IDE on pc. */
export const cdromDevice = (
  machine: PinnedMachine,
  pinned: { readonly name: string; readonly address: string },
  medium: BlockSource | undefined,
  more: Json = {},
): Device => {
  const [bus = '', unit = '0'] = pinned.address.split(':');
  return {
    driver: 'ide-cd',
    id: cdromId(pinned.name),
    ...(medium === undefined ? {} : { drive: topNode(cdromId(pinned.name)) }),
    ...more,
    bus,
    ...(familyOf(machine) === 'pc' ? { unit: Number(unit) } : {}),
  };
};

/** `descriptor`: number or name by which QEMU knows the descriptor of a tap. */
export const netdev = (name: string, port: NetPort, descriptor: string): Netdev => {
  const id = netdevId(name);
  switch (port.kind) {
    case 'tap':
      // vhost needs /dev/vhost-net, which a guest's uid cannot open.
      return { type: 'tap', id, fd: descriptor, vhost: false };
    case 'user':
      return { type: 'user', id, ...(port.forwards ? { hostfwd: port.forwards.map(hostfwd) } : {}) };
    case 'veth':
      throw new RoostError('Internal', `NIC ${name} is a veth pair, which no machine can have`);
  }
};

/** A forwarded port as QEMU's user-mode stack takes it; without a guest address it is the guest's first. */
const hostfwd = ({ protocol, hostAddress, hostPort, guestPort }: PortForward): Json => ({
  str: `${protocol}:${hostAddress}:${hostPort}-:${guestPort}`,
});

export const nicDevice = (machine: PinnedMachine, pinned: PinnedMachine['nics'][number]): Device => ({
  driver: virtio('net', machine),
  id: nicId(pinned.name),
  netdev: netdevId(pinned.name),
  mac: pinned.mac,
  // No boot from the network, so no ROM for it.
  ...(familyOf(machine) === 'microvm' ? {} : { romfile: '' }),
  ...addressOf(machine, pinned.address),
});

/** The guest mounts it by its name. */
export const filesystemDevice = (
  machine: PinnedMachine,
  { name, address }: { readonly name: string; readonly address: string },
): Device => ({
  driver: `vhost-user-fs-${familyOf(machine) === 'microvm' ? 'device' : 'pci'}`,
  id: filesystemId(name),
  chardev: filesystemId(name),
  tag: name,
  ...addressOf(machine, address),
});

/** A pinned address as QEMU's properties: `port3`, `0x4` or `virtio-mmio-bus.2`, by machine. */
export const addressOf = (machine: PinnedMachine, address: string): Json => {
  switch (familyOf(machine)) {
    case 'q35':
      return { bus: address, addr: '0x0' };
    case 'pc':
      return { bus: 'pci.0', addr: address };
    default:
      return { bus: address };
  }
};

/** The image and what lies under it, the top first. */
const chain = (source: BlockSource): readonly BlockSource[] => [
  source,
  ...(source.backing === undefined ? [] : chain(source.backing)),
];

/** The file of a layer, and its format on top. */
const layerNodes = (
  id: string,
  layer: BlockSource,
  depth: number,
  pathFor: (path: string) => string,
): readonly BlockNode[] => {
  const name = `${id}-${depth}`;
  // What lies under a guest's own image is never written, whatever it is marked as.
  const readOnly = layer.readOnly || depth > 0;
  const writable = readOnly ? {} : { discard: 'unmap' };
  const format: BlockNode = {
    driver: layer.format,
    'node-name': name,
    file: `${name}-file`,
    'read-only': readOnly,
    'auto-read-only': false,
    ...writable,
    ...(readOnly ? {} : { 'detect-zeroes': 'unmap' }),
    ...(layer.format === 'qcow2' ? { backing: layer.backing ? `${id}-${depth + 1}` : null } : {}),
  };
  const file: BlockNode = {
    driver: 'file',
    'node-name': `${name}-file`,
    filename: pathFor(layer.path),
    'read-only': readOnly,
    'auto-read-only': false,
    aio: 'threads',
    ...writable,
  };
  return [file, format];
};

/** Paths as seen from `from`, where both lie below `root`; others stay absolute. Plain POSIX, nothing is looked up. */
export const relativeTo =
  (from: string, root: string) =>
  (path: string): string => {
    const below = `${root.replace(/\/+$/, '')}/`;
    if (!path.startsWith(below) || !`${from}/`.startsWith(below)) return path;
    const here = from.split('/').filter((part) => part !== '');
    const there = path.split('/').filter((part) => part !== '');
    const parting = there.findIndex((part, index) => part !== here[index]);
    const common = parting === -1 ? there.length : parting;
    return [...here.slice(common).map(() => '..'), ...there.slice(common)].join('/');
  };
