/** A guest as clients see it: pure, from what is recorded and seen. */
import type { GuestView } from '../../protocol/guest.ts';
import type { NetworkId, OperationId } from '../../protocol/types.ts';
import { cloudInitViewOf } from '../cloud-init/render-seed.ts';
import type {
  AppliedSettings,
  GuestRecord,
  GuestStatus,
  StoredProgram,
  StoredSpec,
} from '../inventory/guest-table.ts';
import { copiesIn } from './filesystems.ts';

export interface ViewedGuest {
  readonly record: GuestRecord;
  readonly status: GuestStatus;
  /** See `Guest.missingDriver`. */
  readonly missingDriver?: string | undefined;
  readonly stale: boolean;
  readonly agent: Omit<GuestView['agent'], 'enabled'>;
  /** Of a template: how many of its forks wait for somebody. */
  readonly waiting?: number;
  readonly operation?:
    | { readonly id: OperationId; readonly kind: string; readonly queued: number }
    | undefined;
}

/** What a launch with this spec applies, to be held against later ones. */
export const machineSettings = ({
  memoryBytes,
  cpu,
  boot,
  agent,
  qemu,
  limits,
  cloudInit,
}: StoredSpec): AppliedSettings => ({
  memoryBytes,
  cpu,
  boot,
  agent,
  qemu,
  limits,
  ...(cloudInit === undefined ? {} : { cloudInit: cloudInit.digest }),
});

const MACHINE_SETTINGS = ['memoryBytes', 'cpu', 'boot', 'agent', 'qemu', 'limits', 'cloudInit'] as const;

/** JSON with the members of every object in order, so that equal values are equal texts. */
const canonical = (value: unknown): string | undefined =>
  JSON.stringify(value, (_member, inner: unknown) =>
    typeof inner === 'object' && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );

/** Settings of the machine that differ from those the running process was launched with. */
export const pendingChanges = (record: GuestRecord, status: GuestStatus): string[] => {
  const { applied } = status;
  if (!applied) return [];
  const wanted = machineSettings(record.spec);
  return MACHINE_SETTINGS.filter((setting) => canonical(applied[setting]) !== canonical(wanted[setting]));
};

const diskViews = (record: GuestRecord): GuestView['disks'] =>
  record.spec.disks.map((disk, index) => ({
    name: disk.name,
    ...(disk.image === undefined ? {} : { image: disk.image }),
    sizeBytes: disk.sizeBytes,
    readOnly: disk.readOnly,
    serial: record.machine.disks[index]?.serial ?? '',
  }));

const filesystemViews = ({ record, status }: ViewedGuest): NonNullable<GuestView['filesystems']> => [
  ...record.spec.filesystems.map((filesystem, index) => {
    const name = record.machine.filesystems?.[index]?.name ?? '';
    const lostAt = status.process?.lostFilesystems?.[name];
    return { name, ...filesystem, mode: 'share' as const, ...(lostAt === undefined ? {} : { lostAt }) };
  }),
  ...copiesIn(record.spec).map(({ disk, copyOf }) => ({ name: disk, ...copyOf, mode: 'copy' as const })),
];

const programViewOf = ({ environment: _secrets, argv, ...rest }: StoredProgram): GuestView['program'] => ({
  ...rest,
  argv: [...argv],
});

/** Nothing is said of a process that nobody can look at. */
const observedViews = ({ status, missingDriver }: ViewedGuest): Partial<GuestView> =>
  missingDriver === undefined
    ? observedOf(status)
    : { state: 'unknown', reason: `this daemon has no driver called ${missingDriver}` };

const observedOf = (status: GuestStatus): Partial<GuestView> => ({
  ...(status.reason === undefined ? {} : { reason: status.reason }),
  ...(status.process?.silentSince === undefined ? {} : { silentSince: status.process.silentSince }),
  ...(status.process === undefined
    ? {}
    : {
        process: {
          pid: status.process.pid,
          startedAt: status.process.startedAt,
          accel: status.process.accel,
        },
      }),
  ...(status.state === 'running' && status.process?.ready !== undefined
    ? { ready: status.process.ready }
    : {}),
  ...(status.process?.frozen === undefined ? {} : { frozen: status.process.frozen }),
  ...(status.lastExit === undefined ? {} : { lastExit: status.lastExit }),
});

export const guestView = (guest: ViewedGuest, networkName: (id: NetworkId) => string): GuestView => {
  const { record, status } = guest;
  const { spec } = record;
  const filesystems = filesystemViews(guest);
  return {
    id: record.id,
    name: record.name,
    driver: spec.driver,
    state: status.state,
    observedAt: status.observedAt,
    stale: guest.stale,
    target: record.target,
    targetActor: record.targetActor,
    ...(guest.operation === undefined ? {} : { operation: guest.operation }),
    description: spec.description,
    labels: spec.labels,
    memoryBytes: spec.memoryBytes,
    cpu: spec.cpu,
    machine: record.machine.type,
    firmware: spec.firmware,
    boot: spec.boot,
    ...(spec.idRange === undefined ? {} : { idRange: spec.idRange }),
    ...(spec.boot.kind === 'root' ? { limits: spec.limits } : {}),
    disks: diskViews(record),
    cdroms: spec.cdroms.map(({ name, image }) => ({ name, ...(image === undefined ? {} : { image }) })),
    keptDisks: [...spec.keptDisks],
    nics: spec.nics.map((nic) => ({
      name: nic.name,
      network: networkName(nic.network),
      mac: nic.mac,
      ...(nic.ipv4 === undefined ? {} : { ipv4: nic.ipv4 }),
      ...(nic.forwards === undefined || nic.forwards.length === 0
        ? {}
        : { forwards: nic.forwards.map((forward) => ({ ...forward })) }),
    })),
    ...(filesystems.length === 0 ? {} : { filesystems }),
    agent: { enabled: spec.agent.enabled, ...guest.agent },
    ...(spec.program === undefined ? {} : { program: programViewOf(spec.program) }),
    ...(spec.template === undefined
      ? {}
      : { template: { madeAt: spec.template.madeAt, waiting: guest.waiting ?? 0 } }),
    ...(spec.forkOf === undefined ? {} : { forkOf: spec.forkOf }),
    ...(spec.cloudInit === undefined
      ? {}
      : { cloudInit: cloudInitViewOf({ ...record, ...spec, cloudInit: spec.cloudInit }) }),
    qemu: spec.qemu,
    tainted: spec.qemu.extraArgs.map((extra) => extra.reason),
    autostart: spec.autostart,
    restartPolicy: spec.restartPolicy,
    deleteProtection: spec.deleteProtection,
    stopTimeoutMs: spec.stopTimeoutMs,
    ...(spec.deleteAfterEndMs === undefined ? {} : { deleteAfterEndMs: spec.deleteAfterEndMs }),
    pendingChanges: pendingChanges(record, status),
    restarts: {
      count: status.restartCount,
      ...(status.restartAt === undefined ? {} : { nextAt: status.restartAt }),
    },
    createdAt: record.createdAt,
    generation: record.generation,
    ...observedViews(guest),
  };
};
