/** What a host and its daemon can do and how they fare. */
import { z } from 'zod';
import { byteCount, instanceId, millisecondsSinceEpoch } from './types.ts';

const foreignFirewall = z.strictObject({
  who: z.string().describe('Docker, firewalld, ufw, or a table'),
  chain: z.string().describe('As family, table and name'),
  hint: z.string().describe('What lets our networks pass'),
});
export type ForeignFirewall = Readonly<z.infer<typeof foreignFirewall>>;

const containersView = z.strictObject({
  available: z.boolean().describe('Whether containers can be made here: the driver lxc'),
  why: z.string().optional().describe('What is missing where they cannot'),
  liblxc: z.string().optional().describe('Its version'),
  cgroups: z.enum(['v1', 'v2']).describe('By which hierarchies limits are set'),
  lxcfs: z.boolean().describe('Whether /proc of a container tells its own memory and CPUs'),
  apparmor: z.boolean().describe('Whether AppArmor confines them besides'),
  idmappedSquashfs: z
    .boolean()
    .describe('Whether the kernel maps the ids of a squashfs; where it does not, images are unpacked'),
});

export const hostView = z.strictObject({
  hostname: z.string(),
  kernel: z.string(),
  cpus: z.int(),
  memory: z.strictObject({
    totalBytes: byteCount,
    availableBytes: byteCount.describe('What the kernel says can be had now'),
    committedBytes: byteCount.describe('Promised to guests that have a process'),
  }),
  accelerator: z.strictObject({
    auto: z.enum(['kvm', 'tcg']).describe('What accel auto takes'),
    why: z.string(),
  }),
  controlGroups: z
    .strictObject({ kind: z.enum(['scope', 'cgroup', 'none']), why: z.string() })
    .describe('What each guest has to itself: a scope of systemd, a plain control group, or nothing'),
  containers: containersView.optional(),
  privileged: z.boolean().describe('Whether the daemon runs as root: own uid for each guest, bridges, taps'),
  privilegedWhy: z.string(),
  drivers: z.array(z.strictObject({ name: z.string(), verbs: z.array(z.string()) })),
  foreignFirewalls: z
    .array(foreignFirewall)
    .describe('Rules of others that drop what networks of kind nat forward'),
  qemuBinaries: z.array(
    z.strictObject({
      name: z.string(),
      path: z.string(),
      version: z.string().optional(),
      machines: z.array(z.string()).describe('Versioned machine types, newest first'),
      problem: z.string().optional().describe('Why it cannot be used'),
    }),
  ),
});
export type HostView = Readonly<z.infer<typeof hostView>>;

const loopBlock = z.strictObject({
  at: millisecondsSinceEpoch.describe('When it ended'),
  ms: z.number(),
  cpuMs: z
    .number()
    .describe(
      'Of them on a processor; the rest it waited in the kernel, for a disk, a lock or a new process',
    ),
  work: z
    .string()
    .describe(
      'A command, a step, a commit …; `after X` for what went on from work that had a name; `waiting for a processor` when others had it',
    ),
});

export const daemonView = z.strictObject({
  version: z.string(),
  pid: z.int(),
  startedAt: millisecondsSinceEpoch,
  ready: z.boolean().describe('False until every guest has been looked at after the start'),
  instance: instanceId,
  stateDirectory: z.string(),
  runDirectory: z.string(),
  memoryBytes: byteCount.describe('Resident memory of the daemon'),
  guests: z.int(),
  connections: z.int(),
  eventLoopLagMs: z.strictObject({ p50: z.number(), p99: z.number(), max: z.number() }),
  eventLoopBlocks: z
    .strictObject({
      count: z.int(),
      worst: z.array(loopBlock).describe('The longest since the start, the longest first'),
      latest: z.array(loopBlock).describe('The newest first'),
    })
    .describe('Times the event loop stood still for 20 ms or more, and during what'),
  commitMs: z.strictObject({ p50: z.number(), p99: z.number(), max: z.number() }).describe('Durable commits'),
  lastEventSequence: z.int(),
});
export type DaemonView = Readonly<z.infer<typeof daemonView>>;

export const poolView = z.strictObject({
  name: z.string(),
  kind: z.string(),
  path: z.string(),
  totalBytes: byteCount,
  freeBytes: byteCount,
});
export type PoolView = Readonly<z.infer<typeof poolView>>;
