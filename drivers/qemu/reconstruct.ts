/**
 * What a live process of ours is, without any record: read from its command line and asked of QEMU itself. The two must
 * agree, and the command line that would be made of the result must be the one it has, or nothing of it is believed.
 */
import { readFile } from 'node:fs/promises';
import { deadline } from '../../lib/abort.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { FoundProcess, GuestPlace, ReconstructedGuest } from '../driver.ts';
import { commandLineOf } from '../processes/find-processes.ts';
import { monitorPath } from '../processes/guest-files.ts';
import { Monitor, type MonitorOptions, toContractError } from '../processes/monitor.ts';
import { silentError } from '../processes/process-guest.ts';
import { descriptorNumbers } from '../processes/process-interface.ts';
import { cdromId, diskId, nicId } from './devices.ts';
import { knownFirmware } from './firmware.ts';
import { launchArgs } from './launch-args.ts';
import { type CommandLine, readCommandLine } from './read-command-line.ts';

const FIRST_TAPS = 64;

const refusal = (found: FoundProcess, why: string): RoostError =>
  new RoostError(
    'FailedPrecondition',
    `What process ${found.process.pid}, guest ${found.name}, is cannot be told: ${why}`,
    {
      data: { pid: found.process.pid, guest: found.guest },
      hint: 'Shut it down from inside, or end the process; its disks stay.',
    },
  );

/** Links of the process's taps, by descriptor: as the kernel tells in /proc/PID/fdinfo (`iff:`). */
const linksOf = async (pid: number): Promise<ReadonlyMap<number, string>> => {
  const links = new Map<number, string>();
  for (let fd: number = descriptorNumbers.further; fd < descriptorNumbers.further + FIRST_TAPS; fd += 1) {
    const info = await readFile(`/proc/${pid}/fdinfo/${fd}`, 'utf8').catch(() => '');
    const link = /^iff:\s*(\S+)$/m.exec(info)?.[1];
    if (link !== undefined) links.set(fd, link);
  }
  return links;
};

interface Asked {
  readonly name: string;
  readonly uuid: string;
  readonly memoryBytes: number;
  readonly cpus: number;
  readonly devices: readonly string[];
  readonly sizes: ReadonlyMap<string, number>;
}

const ask = async (monitor: Pick<Monitor, 'execute'>, signal: AbortSignal): Promise<Asked> => {
  const { name = '' } = await monitor.execute('query-name', {}, signal);
  const { UUID: uuid } = await monitor.execute('query-uuid', {}, signal);
  const memory = await monitor.execute('query-memory-size-summary', {}, signal);
  const cpus = await monitor.execute('query-cpus-fast', {}, signal);
  const peripherals = await monitor.execute('qom-list', { path: '/machine/peripheral' }, signal);
  const blocks = await monitor.execute('query-block', {}, signal);
  const nodes = blocks.flatMap(({ inserted }) =>
    inserted?.['node-name'] === undefined
      ? []
      : [[inserted['node-name'], inserted.image['virtual-size']] as const],
  );
  return {
    name,
    uuid,
    memoryBytes: memory['base-memory'] + (memory['plugged-memory'] ?? 0),
    cpus: cpus.length,
    devices: peripherals.map((each) => each.name).filter((each) => /^(disk|nic|cdrom)-/.test(each)),
    sizes: new Map(nodes),
  };
};

/** In words what QEMU says otherwise; undefined when it agrees. */
const contradiction = ({ launch }: CommandLine, found: FoundProcess, asked: Asked): string | undefined => {
  const { machine } = launch;
  const devices = [
    ...machine.disks.map(({ name }) => diskId(name)),
    ...machine.nics.map(({ name }) => nicId(name)),
    ...(machine.cdroms ?? []).map(({ name }) => cdromId(name)),
  ];
  if (asked.name !== found.name) return `QEMU calls it ${asked.name}`;
  if (asked.uuid !== found.guest) return `QEMU says that it is ${asked.uuid}`;
  if (asked.memoryBytes !== launch.memoryBytes) return 'QEMU has another size of memory';
  if (asked.cpus !== launch.cpu.count) return `QEMU has ${asked.cpus} CPUs`;
  const others = [
    ...devices.filter((id) => !asked.devices.includes(id)),
    ...asked.devices.filter((id) => !devices.includes(id)),
  ];
  return others.length === 0 ? undefined : `devices came or went since it was started: ${others.join(', ')}`;
};

interface Means extends Pick<MonitorOptions, 'silenceAfterMs' | 'log' | 'transcript'> {
  readonly stateRoot: string;
  readonly binaries: Readonly<Record<string, string>>;
}

/** A line to its monitor for these questions alone; nobody else has one to a process without a record. */
const askProcess = async (
  found: FoundProcess,
  place: GuestPlace,
  { silenceAfterMs, log, transcript }: Means,
  signal: AbortSignal,
): Promise<Asked> => {
  using limit = deadline(silenceAfterMs, signal);
  const nothing = (): void => undefined;
  try {
    const monitor = await Monitor.open(
      {
        path: monitorPath(place.runDirectory),
        pid: found.process.pid,
        program: 'QEMU',
        silenceAfterMs,
        log,
        transcript,
        onRing: nothing,
        onSilent: nothing,
        onHeard: nothing,
      },
      limit.signal,
    );
    try {
      return await ask(monitor, limit.signal);
    } finally {
      await monitor.close();
    }
  } catch (error) {
    signal.throwIfAborted();
    if (limit.signal.aborted) throw silentError('unknown');
    throw toContractError(error, 'qmp_capabilities', 'QEMU');
  }
};

/** Errors: FailedPrecondition where nothing trustworthy comes of it; Unavailable when its monitor is silent. */
export const reconstructGuest = async (
  found: FoundProcess,
  place: GuestPlace,
  means: Means,
  signal: AbortSignal,
): Promise<ReconstructedGuest> => {
  const { pid } = found.process;
  const argv = await commandLineOf(pid);
  const asked = await askProcess(found, place, means, signal);
  const links = await linksOf(pid);
  const read = readCommandLine(argv, found.name, {
    place,
    linkOf: (descriptor) => links.get(descriptor),
    firmwareOf: knownFirmware,
    sizeOf: (node) => asked.sizes.get(node),
  });
  const why = contradiction(read, found, asked) ?? strangeArgument(read, place, means.stateRoot, argv);
  if (why !== undefined) throw refusal(found, why);
  const binary = Object.entries(means.binaries).find(([, path]) => path === read.binaryPath)?.[0];
  if (binary === undefined)
    throw refusal(found, `its QEMU ${read.binaryPath} is none that this daemon knows`);
  const uid = await uidOf(pid);
  return { ...read.launch, qemu: { ...read.launch.qemu, binary }, accel: read.accel, uid };
};

/** The real one; the owner of /proc/PID may be root all the same. */
const uidOf = async (pid: number): Promise<number> =>
  Number(/^Uid:\t(\d+)/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1]);

/** What of the command line was not understood: it is made again of what was, and must be the same. */
const strangeArgument = (
  { launch, accel, binaryPath, firmwarePath }: CommandLine,
  place: GuestPlace,
  stateRoot: string,
  argv: readonly string[],
): string | undefined => {
  const again = launchArgs({
    launch: { ...launch, place },
    launcherPath: '',
    binaryPath,
    accel,
    stateRoot,
    ...(firmwarePath === undefined ? {} : { firmwarePath }),
  });
  const own = again.slice(again.indexOf('--') + 1);
  const at = Array.from({ length: Math.max(own.length, argv.length) }).findIndex(
    (_, index) => own[index] !== argv[index],
  );
  return at < 0
    ? undefined
    : `its command line has what this release would not make of it: ${argv[at] ?? 'its end'}`;
};
