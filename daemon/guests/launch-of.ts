/** From a guest's record to what storage, network and driver are asked for: pure but for the look-up of names. */
import type { Launch } from '../../drivers/driver.ts';
import type { PortSpec } from '../../network/backend.ts';
import type { BlockSource } from '../../protocol/block-source.ts';
import { SEED_DEVICE } from '../../protocol/cloud-init.ts';
import type { IdRange } from '../../protocol/container.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { HostObject } from '../../protocol/host-object.ts';
import type { GuestId, NetworkId } from '../../protocol/types.ts';
import type { RootSpec, SeedSpec, VolumeSpec } from '../../storage/pool.ts';
import { renderSeed, type SeedSubject } from '../cloud-init/render-seed.ts';
import type { StoredDisk, StoredNic } from '../inventory/guest-table.ts';
import { portNumberOf } from './device-record.ts';
import { servedFilesystems } from './filesystems.ts';
import type { Guest } from './guest.ts';
import type { House } from './house.ts';
import { runsProgram } from './runs-program.ts';

/** Number of the file that a disk writes into in a round. */
const layerOf = ({ layer = 0 }: Pick<StoredDisk, 'layer'>, round: number): Pick<VolumeSpec, 'layer'> =>
  layer + round === 0 ? {} : { layer: layer + round };

type Placed = Pick<StoredDisk, 'name' | 'sizeBytes' | 'layer' | 'image' | 'template' | 'templateRound'>;

/** What a disk lies on: in later rounds its own file of the first, an image, or the disk of a template, which nobody writes any more. */
const baseOf = (house: House, guest: GuestId, disk: Placed, round: number): Pick<VolumeSpec, 'base'> => {
  const { name, image, template, templateRound = 0 } = disk;
  if (round > 0) return { base: writtenNoMore(house, guest, disk, 0) };
  if (template === undefined) return image === undefined ? {} : { base: house.images.source(image) };
  const under = house.inventory.guests.byId(template)?.spec.disks.find((each) => each.name === name);
  const { sizeBytes } = disk;
  return {
    base: writtenNoMore(
      house,
      template,
      under ?? { name, sizeBytes, ...(image && { image }) },
      templateRound,
      sizeBytes,
    ),
  };
};

const writtenNoMore = (
  house: House,
  guest: GuestId,
  disk: Placed,
  round: number,
  sizeBytes = disk.sizeBytes,
): BlockSource =>
  house.pool.source({
    guest,
    name: disk.name,
    sizeBytes,
    readOnly: true,
    ...layerOf(disk, round),
    ...baseOf(house, guest, disk, round),
  });

export const volumeSpecOf = (guest: Guest, disk: StoredDisk): VolumeSpec => {
  const { credentials } = guest.place;
  const { round = 0, copyOf } = disk;
  const under = baseOf(guest.house, guest.id, disk, round);
  return {
    guest: guest.id,
    name: disk.name,
    sizeBytes: disk.sizeBytes,
    readOnly: disk.readOnly,
    ...layerOf(disk, round),
    ...under,
    ...(copyOf === undefined || under.base !== undefined ? {} : { copyOf: copyOf.source }),
    ...(guest.record.spec.forkOf === undefined ? {} : { like: guest.record.spec.forkOf }),
    ...(credentials === undefined ? {} : { owner: { uid: credentials.uid, gid: credentials.gid } }),
  };
};

export const volumeSpecs = (guest: Guest): readonly VolumeSpec[] =>
  guest.record.spec.disks.map((disk) => volumeSpecOf(guest, disk));

export const seedSubject = ({ record }: Guest): SeedSubject | undefined => {
  const { cloudInit, nics } = record.spec;
  return cloudInit && { id: record.id, name: record.name, cloudInit, nics };
};

/** The seed of cloud-init; undefined for a guest that has none. */
export const seedSpec = (guest: Guest): SeedSpec | undefined => {
  const { credentials } = guest.place;
  const subject = seedSubject(guest);
  return (
    subject && {
      guest: guest.id,
      label: SEED_DEVICE,
      files: renderSeed(subject),
      ...(credentials === undefined ? {} : { owner: { uid: credentials.uid, gid: credentials.gid } }),
    }
  );
};

interface PlacedPort {
  readonly network: NetworkId;
  readonly port: PortSpec;
}

/**
 * A guest that starts by UEFI has variables of its own; does nothing for others. They begin as those of the guest that its
 * disks come from, which name what boots from them. May be done again.
 */
export const ensureFirmwareVariables = async (guest: Guest, of = guest.record.spec.forkOf): Promise<void> => {
  const { firmware } = guest.record.machine;
  if (!firmware) return;
  const { credentials } = guest.place;
  const { pool } = guest.house;
  await pool.createFirmwareVariables({
    guest: guest.id,
    templatePath: of === undefined ? firmware.variablesTemplatePath : pool.firmwareVariablesPath(of),
    ...(credentials === undefined ? {} : { owner: { uid: credentials.uid, gid: credentials.gid } }),
  });
};

export const portSpecOf = (
  guest: Guest,
  nic: StoredNic,
  index = guest.record.spec.nics.indexOf(nic),
): PlacedPort => ({
  network: nic.network,
  port: {
    guest: guest.id,
    guestNumber: guest.record.number,
    ...(guest.isWaiting ? {} : { guestName: guest.name }),
    index: portNumberOf(nic, index),
    end: guest.driver.nicEnd,
    mac: nic.mac,
    ...(nic.ipv4 === undefined ? {} : { ipv4: nic.ipv4 }),
    ...(nic.forwards?.length ? { forwards: nic.forwards } : {}),
  },
});

export const portSpecs = (guest: Guest): readonly PlacedPort[] =>
  guest.record.spec.nics.map((nic, index) => portSpecOf(guest, nic, index));

/** What a container writes over its image; undefined for a machine. */
export const rootSpec = ({ id, house, record }: Guest): RootSpec | undefined => {
  const { boot } = record.spec;
  return boot.kind === 'root' ? { guest: id, image: house.images.source(boot.image) } : undefined;
};

const requireIdRange = ({ name, record }: Guest): IdRange => {
  const { idRange } = record.spec;
  if (idRange) return idRange;
  throw new RoostError('Internal', `Guest ${name} is recorded as a container without ids of the host`);
};

const bootOf = (guest: Guest): Launch['boot'] => {
  const { boot } = guest.record.spec;
  const { images, pool } = guest.house;
  switch (boot.kind) {
    case 'disk':
      return boot;
    case 'root': {
      const { image, init, ...begun } = boot;
      const source = pool.rootSource({ guest: guest.id, image: images.source(image) });
      const root = { ...source, tree: images.store.treePath(image) };
      return { ...begun, root, idRange: requireIdRange(guest), ...(init === undefined ? {} : { init }) };
    }
    case 'kernel':
      return {
        kind: 'kernel',
        kernelPath: images.source(boot.kernel).path,
        ...(boot.initrd === undefined ? {} : { initrdPath: images.source(boot.initrd).path }),
        commandLine: boot.commandLine,
      };
  }
};

export const launchOf = (
  guest: Guest,
  disks: Launch['disks'],
  nics: Launch['nics'],
  { seed, ...memory }: Pick<Launch, 'seed' | 'forkable' | 'forkOf' | 'receives'> = {},
): Launch => {
  const { memoryBytes, cpu, qemu, agent, limits } = guest.record.spec;
  const { place, name } = guest;
  return {
    place,
    name,
    machine: guest.record.machine,
    memoryBytes,
    cpu,
    qemu,
    agent: agent.enabled,
    ...(runsProgram(guest.record.spec) ? { ownInit: true } : {}),
    boot: bootOf(guest),
    limits,
    ...(guest.record.machine.firmware
      ? { firmwareVariablesPath: guest.house.pool.firmwareVariablesPath(guest.id) }
      : {}),
    ...memory,
    disks,
    nics,
    ...(seed === undefined ? {} : { seed }),
    cdroms: guest.record.spec.cdroms.map(({ image }) => image && guest.house.images.source(image)),
    ...(guest.record.spec.filesystems.length === 0 ? {} : { filesystems: guest.record.spec.filesystems }),
  };
};

/** The launch that a start would make now, without making anything. */
export const plannedLaunch = (guest: Guest): Launch => {
  const disks = volumeSpecs(guest).map((volume) => guest.house.pool.source(volume));
  const nics = portSpecs(guest).map(({ network, port }) => guest.house.networks.planPort(network, port).port);
  const seed = seedSpec(guest);
  return launchOf(guest, disks, nics, seed && { seed: guest.house.pool.seedSource(seed) });
};

/** Host objects of a NIC's port. */
export const portObjectsOf = (guest: Guest, nic: StoredNic): readonly HostObject[] => {
  const { network, port } = portSpecOf(guest, nic);
  return guest.house.networks.planPort(network, port).objects;
};

/** Host objects of the ports. */
export const portObjects = (guest: Guest): readonly HostObject[] =>
  portSpecs(guest).flatMap(({ network, port }) => guest.house.networks.planPort(network, port).objects);

/** Host objects that exist as long as the guest does. */
export const existenceObjects = (guest: Guest): readonly HostObject[] => [
  { kind: 'directory', name: guest.place.stateDirectory },
  ...guest.house.pool.plan(guest.id, volumeSpecs(guest)),
];

/** Host objects of the process, those of the ports apart. */
export const runObjects = (guest: Guest): readonly HostObject[] =>
  guest.driver.runObjects(guest.place, {
    agent: guest.record.spec.agent.enabled,
    ownInit: runsProgram(guest.record.spec),
    filesystems: servedFilesystems(guest),
  });

/** In a transaction: all that exists as long as the process does goes into the ledger before it is made. */
export const recordRun = (guest: Guest): void => {
  const objects = [...portObjects(guest), ...runObjects(guest)];
  guest.house.inventory.ledger.record(
    { kind: 'guest', id: guest.id },
    'run',
    objects,
    guest.house.clock.now(),
  );
};
