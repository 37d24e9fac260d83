/**
 * The forms of the records that lie beside files: what the inventory is rebuilt from when it is lost. They hold what was
 * asked for and how it was settled, and nothing of what was seen.
 *
 * A guest's record also has the facts of its networks and images, so that one lost record loses no guest. Members that a
 * later Roost adds are kept unread; those that an older one did not write have their defaults.
 */
import { z } from 'zod';
import { cloudInitSpec } from '../../protocol/cloud-init.ts';
import { containerSettings, idRange } from '../../protocol/container.ts';
import { guestSpec } from '../../protocol/guest.ts';
import { forwards } from '../../protocol/guest-address.ts';
import { imageKinds, imageSource } from '../../protocol/image.ts';
import { networkKind } from '../../protocol/network.ts';
import {
  byteCount,
  deviceName,
  guestId,
  guestName,
  imageId,
  imageName,
  imageVersion,
  instanceId,
  ipv4Address,
  ipv4Subnet,
  linkName,
  macAddress,
  millisecondsSinceEpoch,
  networkId,
  networkName,
} from '../../protocol/types.ts';

const number = z.int().min(1).max(0xffff_ffff);

/** Of every record: which instance wrote it, and when; both absent in records of before they were written. */
const provenance = {
  instance: instanceId.optional(),
  writtenAt: millisecondsSinceEpoch.optional(),
};

export const networkFacts = z.looseObject({
  id: networkId,
  number,
  name: networkName,
  kind: networkKind,
  subnet: ipv4Subnet.optional(),
  gateway: ipv4Address.optional(),
  bridge: linkName.optional(),
  createdAt: millisecondsSinceEpoch,
});
export type NetworkFacts = z.infer<typeof networkFacts>;

export const networkForm = networkFacts.extend(provenance);
export type NetworkForm = z.infer<typeof networkForm>;

export const storedImage = z.looseObject({
  format: z.enum(['qcow2', 'raw']),
  sizeBytes: byteCount,
  virtualSizeBytes: byteCount,
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
});

export const imageFacts = z.looseObject({
  id: imageId,
  number,
  name: imageName,
  version: imageVersion,
  kind: z.enum(imageKinds),
  source: imageSource.optional(),
  stored: storedImage,
  createdAt: millisecondsSinceEpoch,
});
export type ImageFacts = z.infer<typeof imageFacts>;

export const aliasForm = z.looseObject({
  alias: imageName,
  /** Absent where it means the newest. */
  version: imageVersion.optional(),
  createdAt: millisecondsSinceEpoch,
});

/** With the aliases of the image's name, in the record of each of its versions. */
export const imageForm = imageFacts.extend({ ...provenance, aliases: z.array(aliasForm).default([]) });
export type ImageForm = z.infer<typeof imageForm>;

const storedDisk = z.looseObject({
  name: deviceName,
  image: imageId.optional(),
  template: guestId.optional(),
  templateRound: z.int().positive().optional(),
  round: z.int().positive().optional(),
  sizeBytes: byteCount,
  readOnly: z.boolean(),
  layer: z.int().positive().optional(),
  copyOf: z.looseObject({ source: z.string(), target: z.string(), readOnly: z.boolean() }).optional(),
});

const {
  name: _name,
  machine: _machine,
  boot: _boot,
  agent: _agent,
  program: _program,
  disks: _disks,
  cdroms: _cdroms,
  nics: _nics,
  cloudInit: _cloudInit,
  ...settings
} = guestSpec.shape;

/** See `StoredSpec`. */
const storedSpec = z.looseObject({
  ...settings,
  driver: z.string(),
  cloudInit: z.looseObject({ ...cloudInitSpec.shape, instance: z.int(), digest: z.string() }).optional(),
  boot: z.discriminatedUnion('kind', [
    z.strictObject({ kind: z.literal('disk') }),
    z.strictObject({
      kind: z.literal('kernel'),
      kernel: imageId,
      initrd: imageId.optional(),
      commandLine: z.string(),
    }),
    z.looseObject({ ...containerSettings, kind: z.literal('root'), image: imageId }),
  ]),
  idRange: idRange.optional(),
  agent: z.strictObject({ enabled: z.boolean() }).default({ enabled: false }),
  template: z
    .looseObject({
      madeAt: millisecondsSinceEpoch,
      token: z.string(),
      round: z.int().positive().optional(),
      remadeBy: z.string().optional(),
      released: z.literal(true).optional(),
      madeOf: z.looseObject({ guest: guestId, macs: z.array(macAddress) }).optional(),
    })
    .optional(),
  waiting: z.looseObject({ since: millisecondsSinceEpoch }).optional(),
  forkOf: guestId.optional(),
  program: z
    .looseObject({
      image: imageId,
      argv: z.array(z.string()),
      environment: z.array(z.string()),
      workingDirectory: z.string().optional(),
      user: z.string().optional(),
      stopSignal: z.string(),
    })
    .optional(),
  disks: z.array(storedDisk),
  cdroms: z
    .array(
      z.looseObject({
        name: deviceName,
        image: imageId.optional(),
        change: z.looseObject({ from: imageId.optional() }).optional(),
      }),
    )
    .default([]),
  keptDisks: z.array(storedDisk.extend({ serial: z.string() })).default([]),
  nics: z.array(
    z.looseObject({
      name: deviceName,
      network: networkId,
      mac: macAddress,
      ipv4: ipv4Address.optional(),
      forwards: forwards.optional(),
      port: z.int().nonnegative().optional(),
    }),
  ),
});

const hostPath = z.string().regex(/^\/[^\0]*$/);
const placed = z.looseObject({ name: deviceName, address: z.string() });

/** See `PinnedMachine`. */
const pinnedMachine = z.looseObject({
  formatVersion: z.int().positive(),
  type: z.string().regex(/^[a-z0-9][a-z0-9.-]{0,63}$/),
  cpuModel: z.string().max(128),
  disks: z.array(placed.extend({ serial: z.string() })),
  nics: z.array(placed.extend({ mac: macAddress })),
  firmware: z.looseObject({ codePath: hostPath, variablesTemplatePath: hostPath }).optional(),
  cdroms: z.array(placed).optional(),
  filesystems: z.array(placed).optional(),
  settings: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])),
});

export const guestForm = z.looseObject({
  ...provenance,
  id: guestId,
  number,
  name: guestName,
  generation: z.int().positive(),
  createdAt: millisecondsSinceEpoch,
  spec: storedSpec,
  machine: pinnedMachine,
  networks: z.array(networkFacts).default([]),
  images: z.array(imageFacts).default([]),
});
export type GuestForm = z.infer<typeof guestForm>;
