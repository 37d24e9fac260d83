/** A stored spec with a user's changes in it: pure. Members of a group that are not given stay as they are. */
import { type LimitsSpec, limitsSpec } from '../../protocol/container.ts';
import { RoostError } from '../../protocol/errors.ts';
import {
  autostartSpec,
  cpuSpec,
  type GuestChanges,
  type GuestSpec,
  qemuSpec,
  restartPolicySpec,
} from '../../protocol/guest.ts';
import { issuesOf } from '../../protocol/wire.ts';
import { changeCloudInit } from '../cloud-init/change-cloud-init.ts';
import type { StoredSpec } from '../inventory/guest-table.ts';
import { refuseOtherRoot } from './container-spec.ts';
import { runsProgram } from './runs-program.ts';

interface Checked<T> {
  safeParse(
    value: unknown,
  ): { success: true; data: T } | { success: false; error: Parameters<typeof issuesOf>[0] };
}

/** A group with the changes in it, checked as a whole. Errors: InvalidArgument. */
const merged = <T extends object>(
  name: string,
  schema: Checked<T>,
  before: T,
  changes: object | undefined,
): T => {
  if (changes === undefined) return before;
  const result = schema.safeParse({ ...before, ...changes });
  if (result.success) return result.data;
  const issues = issuesOf(result.error);
  const words = issues.map((issue) => `${[name, issue.path].filter(Boolean).join('.')}: ${issue.message}`);
  throw new RoostError('InvalidArgument', `The change does not fit: ${words.join('; ')}`, {
    data: { issues },
    hint: 'Change the members that belong together in one request.',
  });
};

/** `boot` is resolved already, because its images are looked up. */
export type SpecChanges = Omit<GuestChanges, 'boot'> & { readonly boot?: StoredSpec['boot'] | undefined };

/** Those that are null are taken away. */
const changeLimits = (before: LimitsSpec, changes: GuestChanges['limits'] = {}): LimitsSpec =>
  limitsSpec.parse(
    Object.fromEntries(
      Object.entries({ ...before, ...changes }).filter(([, limit]) => limit !== null && limit !== undefined),
    ),
  );

/** Errors: InvalidArgument. */
export const changeSpec = (spec: StoredSpec, changes: SpecChanges): StoredSpec => {
  if (runsProgram(spec) && changes.boot?.kind === 'disk')
    throw new RoostError('InvalidArgument', 'A guest that runs a container image boots by a kernel', {
      hint: 'Name a kernel and an initial ramdisk, or leave boot out.',
    });
  if (changes.boot) refuseOtherRoot(spec.boot, changes.boot);
  const { cloudInit: told, deleteAfterEndMs: before, ...rest } = spec;
  const { deleteAfterEndMs = before } = changes;
  const cloudInit = changeCloudInit(told, changes.cloudInit);
  return {
    ...rest,
    ...(cloudInit === undefined ? {} : { cloudInit }),
    ...(deleteAfterEndMs === undefined || deleteAfterEndMs === null ? {} : { deleteAfterEndMs }),
    description: changes.description ?? spec.description,
    labels: changes.labels ?? spec.labels,
    deleteProtection: changes.deleteProtection ?? spec.deleteProtection,
    stopTimeoutMs: changes.stopTimeoutMs ?? spec.stopTimeoutMs,
    memoryBytes: changes.memoryBytes ?? spec.memoryBytes,
    boot: changes.boot ?? spec.boot,
    autostart: merged('autostart', autostartSpec, spec.autostart, changes.autostart),
    restartPolicy: merged('restartPolicy', restartPolicySpec, spec.restartPolicy, changes.restartPolicy),
    agent: { enabled: changes.agent?.enabled ?? spec.agent.enabled },
    cpu: merged('cpu', cpuSpec, spec.cpu, changes.cpu),
    limits: changeLimits(spec.limits, changes.limits),
    qemu: merged('qemu', qemuSpec, spec.qemu, changes.qemu),
  };
};

/** A stored spec as a driver pins it again: devices with their names and MACs. */
export const specToRepin = (
  name: string,
  machineType: string,
  { program: _running, ...spec }: StoredSpec,
): GuestSpec => ({
  ...spec,
  name,
  machine: machineType,
  boot: spec.boot,
  disks: spec.disks.map((disk) => ({ name: disk.name, sizeBytes: disk.sizeBytes, readOnly: disk.readOnly })),
  cdroms: spec.cdroms.map(({ name }) => ({ name })),
  filesystems: spec.filesystems.map((shared) => ({ ...shared, mode: 'share' })),
  nics: spec.nics.map((nic) => ({ name: nic.name, network: nic.network, mac: nic.mac })),
});
