/**
 * The QMP commands that the driver uses: their arguments as types, their replies as schemas of the members
 * that it reads (qapi/*.json of QEMU 7.2 and later; unknown members are dropped). A command that is not here
 * can't be executed by mistake.
 */
import { z } from 'zod';
import { qmpVersionSchema } from './qmp-types.ts';

type NoArguments = Readonly<Record<string, never>>;

/** Members that depend on `driver` or `type` and that only QEMU checks. */
type OtherMembers = Readonly<Record<string, unknown>>;

/** Arguments of the commands that take any. */
interface QmpArguments {
  readonly qmp_capabilities: { readonly enable?: readonly string[] };
  readonly netdev_add: OtherMembers & { readonly type: string; readonly id: string };
  readonly netdev_del: { readonly id: string };
  readonly device_add: OtherMembers & { readonly driver: string; readonly id: string };
  readonly device_del: { readonly id: string };
  readonly set_link: { readonly name: string; readonly up: boolean };
  readonly 'blockdev-add': OtherMembers & { readonly driver: string; readonly 'node-name': string };
  readonly 'blockdev-del': { readonly 'node-name': string };
  /** By `QmpClient.sendDescriptor`: the descriptor itself travels beside the message as SCM_RIGHTS. */
  readonly getfd: { readonly fdname: string };
  readonly closefd: { readonly fdname: string };
  readonly block_resize: { readonly 'node-name': string; readonly size: number };
  readonly 'query-named-block-nodes': { readonly flat: true };
  readonly 'qom-list': { readonly path: string };
  readonly 'blockdev-open-tray': { readonly id: string; readonly force: boolean };
  readonly 'blockdev-close-tray': { readonly id: string };
  readonly 'blockdev-remove-medium': { readonly id: string };
  /** MigrationCapabilityStatus of qapi/migration.json. */
  readonly 'migrate-set-capabilities': {
    readonly capabilities: readonly { readonly capability: string; readonly state: boolean }[];
  };
  /** In bytes a second and milliseconds. */
  readonly 'migrate-set-parameters': { readonly 'max-bandwidth': number; readonly 'downtime-limit': number };
  readonly migrate: { readonly uri: string };
  readonly 'migrate-incoming': { readonly uri: string };
  readonly 'blockdev-insert-medium': { readonly id: string; readonly 'node-name': string };
}

/** The reply of a command that returns nothing: `{}`. */
const nothing = z.object({});

const machineSchema = z.object({
  name: z.string(),
  alias: z.string().optional(),
  'is-default': z.boolean().optional(),
  'cpu-max': z.number(),
  'hotpluggable-cpus': z.boolean(),
  'numa-mem-supported': z.boolean(),
  deprecated: z.boolean(),
  'default-cpu-type': z.string().optional(),
  'default-ram-id': z.string().optional(),
});

const cpuDefinitionSchema = z.object({
  name: z.string(),
  typename: z.string(),
  'migration-safe': z.boolean().optional(),
  static: z.boolean(),
  'unavailable-features': z.array(z.string()).optional(),
  'alias-of': z.string().optional(),
  deprecated: z.boolean(),
});

const blockSchema = z.object({
  device: z.string(),
  qdev: z.string().optional(),
  type: z.string(),
  removable: z.boolean(),
  locked: z.boolean(),
  tray_open: z.boolean().optional(),
  'io-status': z.enum(['ok', 'failed', 'nospace']).optional(),
  inserted: z
    .object({
      file: z.string(),
      drv: z.string(),
      ro: z.boolean(),
      'node-name': z.string().optional(),
      backing_file_depth: z.number(),
      image: z.object({ 'virtual-size': z.number(), format: z.string() }),
    })
    .optional(),
});

export const qmpReturns = {
  qmp_capabilities: nothing,
  'query-status': z.object({ status: z.string(), running: z.boolean() }),
  'query-kvm': z.object({ enabled: z.boolean(), present: z.boolean() }),
  'query-version': qmpVersionSchema,
  'query-name': z.object({ name: z.string().optional() }),
  'query-uuid': z.object({ UUID: z.string() }),
  'query-memory-size-summary': z.object({
    'base-memory': z.number(),
    'plugged-memory': z.number().optional(),
  }),
  'query-cpus-fast': z.array(z.object({ 'cpu-index': z.number() })),
  'query-commands': z.array(z.object({ name: z.string() })),
  'query-machines': z.array(machineSchema),
  'query-cpu-definitions': z.array(cpuDefinitionSchema),
  'query-qmp-schema': z.array(z.unknown()),
  'query-block': z.array(blockSchema),
  'query-chardev': z.array(
    z.object({ label: z.string(), filename: z.string(), 'frontend-open': z.boolean() }),
  ),
  cont: nothing,
  stop: nothing,
  system_powerdown: nothing,
  system_reset: nothing,
  quit: nothing,
  netdev_add: nothing,
  netdev_del: nothing,
  device_add: nothing,
  device_del: nothing,
  set_link: nothing,
  'blockdev-add': nothing,
  'blockdev-del': nothing,
  getfd: nothing,
  closefd: nothing,
  block_resize: nothing,
  'query-named-block-nodes': z.array(z.object({ 'node-name': z.string().optional() })),
  'qom-list': z.array(z.object({ name: z.string(), type: z.string() })),
  'blockdev-open-tray': nothing,
  'blockdev-close-tray': nothing,
  'blockdev-remove-medium': nothing,
  'blockdev-insert-medium': nothing,
  'migrate-set-capabilities': nothing,
  'migrate-set-parameters': nothing,
  migrate: nothing,
  migrate_cancel: nothing,
  'query-migrate': z.object({ status: z.string().optional() }),
  'migrate-incoming': nothing,
} as const satisfies Readonly<Record<string, z.ZodType>>;

export type QmpCommandName = keyof typeof qmpReturns;

export type QmpCommands = {
  readonly [C in QmpCommandName]: {
    readonly arguments: C extends keyof QmpArguments ? QmpArguments[C] : NoArguments;
    readonly returns: z.infer<(typeof qmpReturns)[C]>;
  };
};
