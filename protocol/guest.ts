/**
 * A guest in the contract: what is asked of it (the spec, written by users) and what is seen of it (the view).
 * States and the rule for `target` are those of docs/architecture.md, "States".
 */
import { z } from 'zod';
import { agentState } from './agent.ts';
import { cloudInitChanges, cloudInitSpec, cloudInitView, SEED_DEVICE } from './cloud-init.ts';
import { containerSettings, idRange, limitsChanges, limitsSpec } from './container.ts';
import { filesystems, filesystemViews } from './filesystem.ts';
import { forwards, portForward, portNumber, readiness } from './guest-address.ts';
import { programSpec, programView } from './program.ts';
import { templateView } from './template.ts';
import {
  actor,
  byteCount,
  deviceName,
  durationMs,
  guestId,
  guestName,
  imageReference,
  ipv4Address,
  MEBIBYTE,
  macAddress,
  millisecondsSinceEpoch,
  networkReference,
  operationId,
  printable,
} from './types.ts';

export const guestStates = {
  stopped: 'No process; the guest can be started',
  starting: 'A start is under way',
  running: 'The guest runs',
  paused: 'The process lives, its CPUs stand still; the reason says why',
  stopping: 'A stop is under way',
  unresponsive: 'The process lives but its monitor is silent; the reason says what was seen',
  failed: 'The last start or run failed; the reason says how',
  unknown: 'Not observed yet, or the probe could not tell',
} as const;
export type GuestState = keyof typeof guestStates;
export const guestState = z.enum(Object.keys(guestStates) as [GuestState, ...GuestState[]]);

export const guestTarget = z.enum(['running', 'stopped']);
export type GuestTarget = z.infer<typeof guestTarget>;

export const driverName = z.enum(['qemu', 'lxc', 'fake']);
export type DriverName = z.infer<typeof driverName>;

const label = z.string().max(256);
export const labels = z
  .record(z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$/), label)
  .refine((pairs) => Object.keys(pairs).length <= 64, 'at most 64 labels')
  .describe('Free key-value pairs');

export const cpuSpec = z
  .strictObject({
    count: z.int().min(1).max(512).default(1).describe('Virtual CPUs'),
    topology: z
      .strictObject({ sockets: z.int().min(1), cores: z.int().min(1), threads: z.int().min(1) })
      .optional()
      .describe('How the CPUs are arranged; their product must be the count'),
    model: z
      .string()
      .regex(/^[A-Za-z0-9][A-Za-z0-9._,+=-]{0,127}$/)
      .default('max')
      .describe('CPU model as QEMU names it; `max` is all that the accelerator offers'),
  })
  .refine(
    (cpu) => !cpu.topology || cpu.topology.sockets * cpu.topology.cores * cpu.topology.threads === cpu.count,
    {
      message: 'sockets × cores × threads must equal count',
      path: ['topology'],
    },
  );

export const machineFamilies = ['q35', 'pc', 'microvm'] as const;
export const machineFamily = z.enum(machineFamilies);
export type MachineFamily = z.infer<typeof machineFamily>;

const bootSpec = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('disk').describe('By its own first disk') }),
  z.strictObject({
    kind: z.literal('kernel').describe('A kernel of ours, loaded directly'),
    kernel: imageReference,
    initrd: imageReference.optional(),
    commandLine: printable(2047).default('').describe("The kernel's command line"),
  }),
  z.strictObject({
    kind: z
      .literal('root')
      .describe('By the init of a root file system, on the kernel of the host: as a container'),
    image: imageReference.describe('Of kind root or oci; the guest writes on top of it'),
    ...containerSettings,
  }),
]);

/** What starts before the disk: SeaBIOS, or UEFI by Debian's OVMF with variables of the guest's own. */
export const firmware = z.enum(['bios', 'uefi']);
export type Firmware = z.infer<typeof firmware>;

export const diskName = deviceName.refine(
  (name) => name !== SEED_DEVICE,
  `must not be ${SEED_DEVICE}: that is the disk of cloud-init`,
);

export const diskSpec = z
  .strictObject({
    name: diskName.optional().describe('disk0, disk1 … unless given'),
    image: imageReference.optional().describe('Image under the disk; without it the disk is empty'),
    sizeBytes: byteCount
      .min(512)
      .multipleOf(512)
      .optional()
      .describe('Size; at least that of the image, which is its default'),
    readOnly: z.boolean().default(false),
  })
  .refine((disk) => disk.image !== undefined || disk.sizeBytes !== undefined, 'needs an image or a size');

export const nicSpec = z.strictObject({
  name: deviceName.optional().describe('nic0, nic1 … unless given'),
  network: networkReference,
  mac: macAddress.optional().describe('Chosen once and kept unless given'),
  ipv4: ipv4Address
    .optional()
    .describe(
      'Fixed address; else the next free one of the network, kept. On a network of kind bridge any is let through unless one is given',
    ),
  forwards: forwards.optional(),
});

export const cdromSpec = z.strictObject({
  name: deviceName.optional().describe('cdrom0, cdrom1 … unless given'),
  image: imageReference.optional().describe('Image of kind iso in the drive; without it the drive is empty'),
});

export const qemuSpec = z.strictObject({
  binary: z.string().max(63).default('default').describe('Name of a QEMU binary as in query-host'),
  accel: z.enum(['auto', 'kvm', 'tcg']).default('auto'),
  extraArgs: z
    .array(z.strictObject({ argument: printable(4096).min(1), reason: z.string().min(1).max(256) }))
    .max(64)
    .default([])
    .describe(
      'Further QEMU arguments, each with its reason; administrators only; the guest shows as tainted',
    ),
});

export const agentSpec = z.strictObject({
  enabled: z
    .boolean()
    .optional()
    .describe(
      'Give the guest a channel to an agent, as the QEMU guest agent; by default unless it boots by a kernel',
    ),
});

export const autostartSpec = z.strictObject({
  enabled: z.boolean().default(false).describe('Start the guest after a boot of the host'),
  order: z.int().min(0).max(10_000).default(100).describe('Lower starts earlier'),
  delayMs: durationMs.max(3_600_000).default(0).describe('Wait after this start before the next one'),
});

export const restartPolicySpec = z.strictObject({
  when: z
    .enum(['never', 'on-failure', 'always'])
    .default('never')
    .describe('Acts only after an exit nobody asked for'),
  delayMs: durationMs
    .min(1)
    .max(3_600_000)
    .default(1_000)
    .describe('First delay; doubles with each failure in a row'),
  maxDelayMs: durationMs.min(1).max(86_400_000).default(300_000).describe('Cap of the delay'),
});

/** Settings of a guest that never touch its machine: they apply at once, also while it runs. */
const policySettings = {
  description: z.string().max(4096).default(''),
  labels: labels.default({}),
  autostart: autostartSpec.prefault({}),
  restartPolicy: restartPolicySpec.prefault({}),
  deleteProtection: z.boolean().default(false).describe('Refuse guest-delete until this is false again'),
  stopTimeoutMs: durationMs
    .max(86_400_000)
    .default(60_000)
    .describe('How long guest-stop waits for the guest by default'),
  deleteAfterEndMs: durationMs
    .max(31 * 86_400_000)
    .optional()
    .describe(
      'Delete it so long after a run has ended that is not to be followed by another; never unless given',
    ),
};

/** Settings of a guest's machine: they apply at its next start. */
const machineSettings = {
  memoryBytes: byteCount
    .min(MEBIBYTE)
    .multipleOf(MEBIBYTE)
    .default(256 * MEBIBYTE)
    .describe('Memory, whole MiB'),
  cpu: cpuSpec.prefault({}),
  boot: bootSpec.prefault({ kind: 'disk' }),
  agent: agentSpec.prefault({}),
  qemu: qemuSpec.prefault({}),
  limits: limitsSpec
    .prefault({})
    .describe('Limits of a container, besides memory and CPUs; they apply at once'),
};

/** What a user asks for when a guest is made. */
export const guestSpec = z.strictObject({
  name: guestName,
  driver: driverName.default('qemu'),
  machine: z
    .string()
    .regex(/^[a-z0-9][a-z0-9.-]{0,63}$/)
    .default('q35')
    .describe('q35, pc, microvm, or a versioned machine type; a family is pinned to its newest version'),
  firmware: firmware
    .default('bios')
    .describe('What boots the disk, for good: bios, or uefi, which a microvm does not have'),
  ...machineSettings,
  program: programSpec
    .optional()
    .describe(
      'The main program of a container image: the guest boots the image as a microVM, by the images microvm-kernel and microvm-init unless it names others to boot by, and ends with the program',
    ),
  disks: z.array(diskSpec).max(16).default([]),
  cdroms: z.array(cdromSpec).max(4).default([]).describe('CD-ROM drives; not on a microvm'),
  nics: z.array(nicSpec).max(8).default([]),
  filesystems,
  cloudInit: cloudInitSpec
    .optional()
    .describe('What cloud-init in the guest is told, on a further read-only disk; without it there is none'),
  ...policySettings,
});
export type GuestSpecInput = z.input<typeof guestSpec>;
export type GuestSpec = z.output<typeof guestSpec>;

/** Whether a guest gets the channel: an agent runs where a whole system boots, and the channel costs 1 ms of a start. */
export const wantsAgent = ({
  agent,
  boot,
  program,
}: Pick<GuestSpec, 'agent' | 'boot' | 'program'>): boolean =>
  program !== undefined || (agent.enabled ?? boot.kind !== 'kernel');

/** Every member of an object optional, without its default: absent means unchanged, also inside. */
const changesTo = <S extends Readonly<Record<string, z.ZodType>>>(
  shape: S,
): { [K in keyof S]: z.ZodOptional<Undefaulted<S[K]>> } =>
  Object.fromEntries(
    Object.entries(shape).map(([member, schema]) => {
      const bare =
        schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault
          ? (schema.unwrap() as z.ZodType)
          : schema;
      const change = bare.optional();
      const description = schema.description ?? bare.description;
      return [member, description === undefined ? change : change.describe(description)];
    }),
  ) as { [K in keyof S]: z.ZodOptional<Undefaulted<S[K]>> };
type Undefaulted<T extends z.ZodType> =
  T extends z.ZodDefault<infer U extends z.ZodType>
    ? U
    : T extends z.ZodPrefault<infer U extends z.ZodType>
      ? U
      : T;

/** What guest-update may change: only the members given, also inside of groups; labels are replaced as a whole. */
export const guestChanges = z.strictObject({
  ...changesTo({
    description: policySettings.description,
    labels: policySettings.labels,
    deleteProtection: policySettings.deleteProtection,
    stopTimeoutMs: policySettings.stopTimeoutMs,
    deleteAfterEndMs: policySettings.deleteAfterEndMs.nullable(),
    memoryBytes: machineSettings.memoryBytes,
    boot: machineSettings.boot,
  }),
  autostart: z.strictObject(changesTo(autostartSpec.shape)).optional(),
  restartPolicy: z.strictObject(changesTo(restartPolicySpec.shape)).optional(),
  cpu: z.strictObject(changesTo(cpuSpec.shape)).optional(),
  agent: z.strictObject(changesTo(agentSpec.shape)).optional(),
  qemu: z.strictObject(changesTo(qemuSpec.shape)).optional(),
  limits: limitsChanges.optional().describe('null takes a limit away'),
  cloudInit: cloudInitChanges
    .nullable()
    .optional()
    .describe('Applies at the next start, and in the guest where cloud-init looks again; null takes it away'),
});
export type GuestChanges = z.output<typeof guestChanges>;

export const diskView = z.strictObject({
  name: deviceName,
  image: z.string().optional().describe('Id of the image under it'),
  sizeBytes: byteCount,
  readOnly: z.boolean(),
  serial: z.string().describe('Serial number the guest sees'),
});

export const cdromView = z.strictObject({
  name: deviceName,
  image: z.string().optional().describe('Id of the image in it; absent when it is empty'),
});

export const keptDiskView = z.strictObject({
  name: deviceName,
  image: z.string().optional().describe('Id of the image under it'),
  sizeBytes: byteCount,
  readOnly: z.boolean(),
  serial: z.string().describe('Serial number it has again when it is attached'),
});

export const nicView = z.strictObject({
  name: deviceName,
  network: z.string().describe('Name of the network'),
  mac: macAddress,
  ipv4: z.string().optional().describe('Address kept for it, where the network gives one'),
  forwards: z
    .array(portForward.extend({ hostPort: portNumber }))
    .optional()
    .describe('Ports of the host that are passed on to it'),
});

export const agentView = z.strictObject({
  enabled: z.boolean().describe('Whether the guest has a channel to its agent, from its next start on'),
  state: agentState.describe('By events and by how the last request went; nobody is asked for it'),
  since: millisecondsSinceEpoch
    .optional()
    .describe('When the state changed, as far as this daemon has seen it'),
  version: z.string().optional().describe('Version of the agent, by its own word'),
});

export const frozen = z.strictObject({
  since: millisecondsSinceEpoch.describe('When it was asked to freeze'),
  thawAt: millisecondsSinceEpoch.describe('When the daemon thaws it by itself'),
  error: z.string().optional().describe('Why the last try to thaw it failed; it is tried again'),
});
export type Frozen = Readonly<z.infer<typeof frozen>>;

export const guestView = z.strictObject({
  id: guestId,
  name: guestName,
  driver: z
    .string()
    .describe('Name of its driver; one that this daemon does not have is the reason of `unknown`'),
  state: guestState,
  reason: z.string().optional().describe('Why, for paused, unresponsive, failed and unknown'),
  silentSince: millisecondsSinceEpoch
    .optional()
    .describe('Since when its monitor is silent, for unresponsive'),
  observedAt: millisecondsSinceEpoch.describe('When the state was last observed'),
  stale: z.boolean().describe('True until the daemon has looked again after its own start'),
  target: guestTarget.describe('What was asked for'),
  targetActor: actor.describe('Who asked for the target'),
  ready: readiness
    .optional()
    .describe('Proof that the guest is up, the first of this run; absent until there is one'),
  frozen: frozen
    .optional()
    .describe('Present while its file systems are frozen by guest-fsfreeze-freeze, or may be'),
  operation: z
    .strictObject({ id: operationId, kind: z.string(), queued: z.int() })
    .optional()
    .describe('What is under way, and how many operations wait behind it'),
  description: z.string(),
  labels,
  memoryBytes: byteCount,
  cpu: cpuSpec,
  machine: z.string().describe('The versioned machine type'),
  firmware,
  boot: bootSpec,
  idRange: idRange.optional().describe('Ids of the host that a container has, for good'),
  limits: limitsSpec.optional().describe('Of a container'),
  disks: z.array(diskView),
  cdroms: z.array(cdromView),
  keptDisks: z
    .array(keptDiskView)
    .describe('Detached and not deleted; guest-disk-attach attaches them again'),
  nics: z.array(nicView),
  filesystems: filesystemViews,
  agent: agentView,
  program: programView.optional().describe('Of a guest that boots a container image'),
  template: templateView.optional().describe('Of a guest that is kept to be forked'),
  forkOf: guestId.optional().describe('The template that its disks lie on'),
  cloudInit: cloudInitView.optional().describe('What cloud-init in the guest is told'),
  qemu: qemuSpec,
  tainted: z
    .array(z.string())
    .describe('Why support may refuse this guest: the reasons of its extra arguments'),
  autostart: autostartSpec,
  restartPolicy: restartPolicySpec,
  deleteProtection: z.boolean(),
  stopTimeoutMs: durationMs,
  deleteAfterEndMs: durationMs.optional(),
  pendingChanges: z.array(z.string()).describe('Settings changed since the start, applied at the next one'),
  process: z
    .strictObject({ pid: z.int(), startedAt: millisecondsSinceEpoch, accel: z.string() })
    .optional()
    .describe('The running process'),
  lastExit: z
    .strictObject({
      at: millisecondsSinceEpoch,
      cause: z.string(),
      detail: z.string().optional(),
      exitCode: z
        .int()
        .optional()
        .describe('Of its main program, or of the init of a container, where it ended by itself'),
      signal: z.int().optional().describe('Number of the signal that ended it'),
    })
    .optional()
    .describe('How the last run ended'),
  restarts: z.strictObject({
    count: z.int().describe('Restarts by policy since the last explicit start'),
    nextAt: millisecondsSinceEpoch.optional().describe('When the policy starts it again'),
  }),
  createdAt: millisecondsSinceEpoch,
  generation: z.int().describe('Grows with every change of the record'),
});
export type GuestView = Readonly<z.infer<typeof guestView>>;
export const guestFields = Object.keys(guestView.shape) as (keyof GuestView)[];
