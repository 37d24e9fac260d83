/** A guest's spec with its names looked up and its gaps filled: what is stored. */
import { randomBytes } from 'node:crypto';
import { RoostError } from '../../protocol/errors.ts';
import { type GuestSpec, wantsAgent } from '../../protocol/guest.ts';
import { type ImageId, type MacAddress, MEBIBYTE } from '../../protocol/types.ts';
import { storedCloudInit } from '../cloud-init/change-cloud-init.ts';
import type { Images } from '../images.ts';
import type {
  StoredDisk,
  StoredFilesystem,
  StoredNic,
  StoredProgram,
  StoredSpec,
} from '../inventory/guest-table.ts';
import type { NetworkRecord } from '../inventory/network-table.ts';
import type { Networks } from '../networks.ts';
import { refuseUserNetwork } from './container-spec.ts';
import { disksOfProgram, microvmImages, requirePart } from './resolve-program.ts';

export interface Resolver {
  readonly images: Images;
  readonly networks: Networks;
}

/** QEMU's own prefix, locally administered, with 24 random bits; whether it is free is checked when it is recorded. */
export const randomMac = (): MacAddress => {
  const tail = [...randomBytes(3)].map((byte) => byte.toString(16).padStart(2, '0'));
  return ['52', '54', '00', ...tail].join(':') as MacAddress;
};

const uniqueNames = (kind: string, names: readonly string[]): void => {
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined)
    throw new RoostError('InvalidArgument', `Two ${kind} are called ${twice}`, {
      data: { name: twice },
      hint: 'Give each its own name.',
    });
};

/** Errors: NotFound and those of `Images.require` for its image; InvalidArgument when smaller than that. */
export const resolveDisk = (
  disk: Pick<GuestSpec['disks'][number], 'image' | 'sizeBytes' | 'readOnly'>,
  name: string,
  images: Images,
): StoredDisk => {
  const image = disk.image === undefined ? undefined : images.require(disk.image, 'disk');
  const least = image?.stored.virtualSizeBytes ?? 0;
  const sizeBytes = disk.sizeBytes ?? least;
  if (sizeBytes < least)
    throw new RoostError(
      'InvalidArgument',
      `Disk ${name} would be smaller than its image ${image?.name ?? ''}`,
      {
        data: { sizeBytes, imageBytes: least },
        hint: `Ask for at least ${least} bytes, or leave the size out.`,
      },
    );
  return {
    name,
    ...(image === undefined ? {} : { image: image.id }),
    sizeBytes,
    readOnly: disk.readOnly,
  };
};

/** Errors: those of `Images.require`; InvalidArgument for an image that is no root. */
const requireRootImage = (reference: string, images: Images): ImageId => {
  const image = images.require(reference);
  if (image.kind === 'root' || image.kind === 'oci') return image.id;
  throw new RoostError('InvalidArgument', `Image ${image.name} is of kind ${image.kind}, not root or oci`, {
    data: { image: image.name, kind: image.kind, wanted: 'root' },
    hint: 'A root comes by `roost image import --kind root`, or is built by `roost image build debian-root`.',
  });
};

export const resolveBoot = (boot: GuestSpec['boot'], { images }: Resolver): StoredSpec['boot'] => {
  switch (boot.kind) {
    case 'disk':
      return boot;
    case 'root':
      return { ...boot, image: requireRootImage(boot.image, images) };
    case 'kernel':
      return {
        kind: 'kernel',
        kernel: images.require(boot.kernel, 'kernel').id,
        ...(boot.initrd === undefined ? {} : { initrd: images.require(boot.initrd, 'initrd').id }),
        commandLine: boot.commandLine,
      };
  }
};

/** Errors: those of `requirePart`. */
const bootOfProgram = (images: Images): StoredSpec['boot'] => ({
  kind: 'kernel',
  kernel: requirePart(images, microvmImages.kernel, 'kernel').id,
  initrd: requirePart(images, microvmImages.initrd, 'initrd').id,
  commandLine: '',
});

/** A guest on another network has an address there, at which all its ports are reached. */
const networkOf = (nic: GuestSpec['nics'][number], networks: Networks): NetworkRecord => {
  const network = networks.require(nic.network);
  if (!nic.forwards?.length || network.kind === 'user' || network.kind === 'nat') return network;
  throw new RoostError('InvalidArgument', `Network ${network.name} (${network.kind}) forwards no ports`, {
    data: { network: network.name, kind: network.kind },
    hint: 'Reach the guest at its own address, or attach it to a network of kind nat or user.',
  });
};

/** Errors: those of `Networks.require`, InvalidArgument for ports that its network cannot forward. */
export const resolveNic = (nic: GuestSpec['nics'][number], name: string, networks: Networks): StoredNic => ({
  name,
  network: networkOf(nic, networks).id,
  mac: nic.mac ?? randomMac(),
  ...(nic.ipv4 === undefined ? {} : { ipv4: nic.ipv4 }),
  ...(nic.forwards?.length ? { forwards: nic.forwards } : {}),
});

const stored = ({ source, target, readOnly }: GuestSpec['filesystems'][number]): StoredFilesystem => ({
  source,
  target,
  readOnly,
});

/** No copy is larger; on the host it takes what it holds. */
const COPY_BYTES = 256 * 1024 * MEBIBYTE;

/** The disk stays as it is: what the guest writes goes over it, to where all goes that it writes. */
const copiesOf = (filesystems: GuestSpec['filesystems']): readonly StoredDisk[] =>
  filesystems
    .filter(({ mode }) => mode === 'copy')
    .map((filesystem, index) => ({
      name: `copy${index}`,
      sizeBytes: COPY_BYTES,
      readOnly: true,
      copyOf: stored(filesystem),
    }));

/** Addresses are not chosen here: that is done in the transaction that records them. */
export const resolveSpec = (spec: GuestSpec, resolver: Resolver, program?: StoredProgram): StoredSpec => {
  const { name: _name, machine: _machine, program: _asked, cloudInit, ...rest } = spec;
  const disks = [
    ...(program === undefined ? [] : disksOfProgram(program, resolver.images)),
    ...spec.disks.map((disk, index) => resolveDisk(disk, disk.name ?? `disk${index}`, resolver.images)),
    ...copiesOf(spec.filesystems),
  ];
  const boot =
    program && spec.boot.kind === 'disk' ? bootOfProgram(resolver.images) : resolveBoot(spec.boot, resolver);
  for (const { network } of spec.nics)
    refuseUserNetwork(spec.name, { boot }, resolver.networks.require(network));
  const nics = spec.nics.map((nic, index) => resolveNic(nic, nic.name ?? `nic${index}`, resolver.networks));
  uniqueNames(
    'disks',
    disks.map((disk) => disk.name),
  );
  uniqueNames(
    'NICs',
    nics.map((nic) => nic.name),
  );
  uniqueNames(
    'NICs',
    nics.map((nic) => nic.mac),
  );
  if (boot.kind === 'disk' && disks.length + spec.cdroms.length === 0)
    throw new RoostError('InvalidArgument', `Guest ${spec.name} has nothing to boot from`, {
      hint: 'Give it a disk or a CD-ROM drive, or boot it by a kernel.',
    });
  const told = cloudInit === undefined ? {} : { cloudInit: storedCloudInit(cloudInit) };
  const cdroms = spec.cdroms.map(({ name, image }, index) => ({
    name: name ?? `cdrom${index}`,
    ...(image === undefined ? {} : { image: resolver.images.require(image, 'iso').id }),
  }));
  const agent = { enabled: wantsAgent(spec) };
  const run = program === undefined ? {} : { program };
  const filesystems = spec.filesystems.filter(({ mode }) => mode !== 'copy').map(stored);
  return { ...rest, ...told, ...run, cdroms, keptDisks: [], boot, agent, disks, nics, filesystems };
};

/** The spec as a driver pins it: every name and MAC filled in. */
export const specToPin = (spec: GuestSpec, stored: StoredSpec): GuestSpec => ({
  ...spec,
  agent: stored.agent,
  disks: stored.disks.map((disk) => ({
    name: disk.name,
    sizeBytes: disk.sizeBytes,
    readOnly: disk.readOnly,
  })),
  cdroms: stored.cdroms.map(({ name }) => ({ name })),
  filesystems: stored.filesystems.map((shared) => ({ ...shared, mode: 'share' })),
  nics: stored.nics.map((nic) => ({ name: nic.name, network: nic.network, mac: nic.mac })),
});
