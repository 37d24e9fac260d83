/**
 * A command line of ours read back: what `launchArgs` was given, as far as the arguments tell. Whoever uses it holds the
 * result against `launchArgs` again, so that what was not understood is noticed and nothing is believed that was.
 */
import { createHash } from 'node:crypto';
import { resolve } from 'node:path';
import type { BlockSource } from '../../protocol/block-source.ts';
import { SEED_DEVICE } from '../../protocol/cloud-init.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { GuestSpec, MachineFamily } from '../../protocol/guest.ts';
import type { NetPort, PortForward } from '../../protocol/net-port.ts';
import { type MacAddress, MEBIBYTE, macAddress } from '../../protocol/types.ts';
import type { GuestPlace, Launch, PinnedFirmware, PinnedMachine } from '../driver.ts';
import { cdromId, diskId, netdevId, nicId, topNode } from './devices.ts';
import { FORMAT_VERSION, familyOfType } from './machine.ts';

/** Arguments that have no value behind them. */
const SWITCHES: ReadonlySet<string> = new Set(['-nodefaults', '-no-user-config', '-S', '-enable-kvm']);

export interface CommandLine {
  readonly binaryPath: string;
  readonly accel: 'kvm' | 'tcg';
  /** Firmware that is no part of the pinned machine. */
  readonly firmwarePath?: string;
  readonly launch: Omit<Launch, 'place'>;
}

/** What the host tells beside the arguments. */
export interface AroundCommandLine {
  readonly place: Pick<GuestPlace, 'id' | 'stateDirectory'>;
  /** The link of a tap, by its descriptor in the process. */
  readonly linkOf: (descriptor: number) => string | undefined;
  readonly firmwareOf: (codePath: string) => PinnedFirmware | undefined;
  /** Virtual size of a disk, by the node on top of it. */
  readonly sizeOf: (node: string) => number | undefined;
}

type Properties = Readonly<Record<string, unknown>>;

const misread = (what: string): RoostError =>
  new RoostError('Unsupported', `Its command line does not tell ${what}`, {
    hint: 'Shut it down from inside, or end the process.',
  });

class Arguments {
  readonly binaryPath: string;
  readonly #given: readonly (readonly [string, string])[];

  constructor(argv: readonly string[]) {
    this.binaryPath = argv[0] ?? '';
    const given: (readonly [string, string])[] = [];
    for (let at = 1; at < argv.length; at += 1) {
      const argument = argv[at] ?? '';
      if (SWITCHES.has(argument)) given.push([argument, '']);
      else {
        at += 1;
        given.push([argument, argv[at] ?? '']);
      }
    }
    this.#given = given;
  }

  has(argument: string): boolean {
    return this.#given.some(([name]) => name === argument);
  }

  find(argument: string): string | undefined {
    return this.#given.find(([name]) => name === argument)?.[1];
  }

  require(argument: string): string {
    const value = this.find(argument);
    if (value === undefined) throw misread(argument);
    return value;
  }

  /** The values that are JSON objects. */
  objects(argument: string): readonly Properties[] {
    return this.#given.flatMap(([name, value]) =>
      name === argument && value.startsWith('{') ? [JSON.parse(value) as Properties] : [],
    );
  }
}

const text = (properties: Properties | undefined, member: string): string => {
  const value = properties?.[member];
  if (typeof value !== 'string') throw misread(member);
  return value;
};

/** Devices whose id begins so, with the name behind. */
const named = (
  devices: readonly Properties[],
  prefix: string,
): readonly { readonly name: string; readonly device: Properties }[] =>
  devices.flatMap((device) => {
    const { id } = device;
    return typeof id === 'string' && id.startsWith(prefix) ? [{ name: id.slice(prefix.length), device }] : [];
  });

const addressIn = (family: MachineFamily, device: Properties): string =>
  family === 'pc' ? text(device, 'addr') : text(device, 'bus');

const driveIn = (family: MachineFamily, device: Properties): string =>
  family === 'pc' ? `${text(device, 'bus')}:${String(device['unit'])}` : text(device, 'bus');

const forwardIn = (value: unknown): PortForward => {
  const [, protocol, hostAddress = '', hostPort, guestPort] =
    /^(tcp|udp):([^:]*):(\d+)-:(\d+)$/.exec(text(value as Properties, 'str')) ?? [];
  if (protocol !== 'tcp' && protocol !== 'udp') throw misread('a forwarded port');
  return { protocol, hostAddress, hostPort: Number(hostPort), guestPort: Number(guestPort) };
};

class Reading {
  readonly #args: Arguments;
  readonly #around: AroundCommandLine;
  readonly #devices: readonly Properties[];
  readonly #nodes: ReadonlyMap<string, Properties>;
  readonly #family: MachineFamily;
  readonly #type: string;

  constructor(args: Arguments, around: AroundCommandLine) {
    this.#args = args;
    this.#around = around;
    this.#devices = args.objects('-device');
    this.#nodes = new Map(args.objects('-blockdev').map((node) => [text(node, 'node-name'), node]));
    this.#type = args.require('-machine').split(',')[0] ?? '';
    const family = familyOfType(this.#type);
    if (family === undefined) throw misread('which machine it is');
    this.#family = family;
  }

  machine(): PinnedMachine {
    const family = this.#family;
    const disks = named(this.#devices, diskId('')).map(({ name, device }) => ({
      name,
      serial: text(device, 'serial'),
      address: addressIn(family, device),
    }));
    const nics = named(this.#devices, nicId('')).map(({ name, device }) => ({
      name,
      mac: this.#macOf(device),
      address: addressIn(family, device),
    }));
    const cdroms = named(this.#devices, cdromId('')).map(({ name, device }) => ({
      name,
      address: driveIn(family, device),
    }));
    const seed = this.#devices.find(({ id }) => id === SEED_DEVICE);
    const firmware = this.#firmware();
    return {
      formatVersion: FORMAT_VERSION,
      type: this.#type,
      cpuModel: this.#args.require('-cpu'),
      disks,
      nics,
      ...(firmware === undefined ? {} : { firmware }),
      ...(cdroms.length === 0 ? {} : { cdroms }),
      settings: {
        family,
        serialPrefix: createHash('sha256').update(this.#around.place.id).digest('hex').slice(0, 12),
        nextSerial: Math.max(0, ...disks.map(({ serial }) => Number(/-(\d+)$/.exec(serial)?.[1] ?? -1) + 1)),
        ports: this.#devices.filter(({ driver }) => driver === 'pcie-root-port').length,
        ...(seed === undefined ? {} : { seed: addressIn(family, seed) }),
      },
    };
  }

  disks(machine: PinnedMachine): readonly BlockSource[] {
    return machine.disks.map(({ name }) => this.#source(diskId(name), 0));
  }

  cdroms({ cdroms = [] }: PinnedMachine): readonly (BlockSource | undefined)[] {
    return cdroms.map(({ name }) =>
      this.#nodes.has(topNode(cdromId(name))) ? this.#source(cdromId(name), 0) : undefined,
    );
  }

  seed(): { readonly seed?: BlockSource } {
    return this.#nodes.has(topNode(SEED_DEVICE)) ? { seed: this.#source(SEED_DEVICE, 0) } : {};
  }

  nics(machine: PinnedMachine): readonly NetPort[] {
    const netdevs = new Map(this.#args.objects('-netdev').map((each) => [text(each, 'id'), each]));
    return machine.nics.map(({ name, mac }): NetPort => {
      const netdev = netdevs.get(netdevId(name));
      if (netdev?.['type'] === 'tap') {
        const link = this.#around.linkOf(Number(text(netdev, 'fd')));
        if (link === undefined) throw misread(`which tap its NIC ${name} has`);
        return { kind: 'tap', link, mac };
      }
      const forwards = Array.isArray(netdev?.['hostfwd']) ? netdev['hostfwd'].map(forwardIn) : [];
      return { kind: 'user', mac, ...(forwards.length === 0 ? {} : { forwards }) };
    });
  }

  cpu(): GuestSpec['cpu'] {
    const [, count, sockets, cores, threads] =
      /^cpus=(\d+),sockets=(\d+),cores=(\d+),threads=(\d+)$/.exec(this.#args.require('-smp'))?.map(Number) ??
      [];
    if (!count || !sockets || !cores || !threads) throw misread('its CPUs');
    const isPlain = sockets === 1 && threads === 1;
    return {
      count,
      model: this.#args.require('-cpu'),
      ...(isPlain ? {} : { topology: { sockets, cores, threads } }),
    };
  }

  memoryBytes(): number {
    const [, mebibytes] = /^size=(\d+)M$/.exec(this.#args.require('-m')) ?? [];
    if (mebibytes === undefined) throw misread('its memory');
    return Number(mebibytes) * MEBIBYTE;
  }

  boot(): Launch['boot'] {
    const kernel = this.#args.find('-kernel');
    if (kernel === undefined) return { kind: 'disk' };
    const initrd = this.#args.find('-initrd');
    return {
      kind: 'kernel',
      kernelPath: this.#path(kernel),
      ...(initrd === undefined ? {} : { initrdPath: this.#path(initrd) }),
      commandLine: this.#args.find('-append') ?? '',
    };
  }

  firmwareVariablesPath(): { readonly firmwareVariablesPath?: string } {
    const node = this.#nodes.get('firmware-variables');
    return node === undefined
      ? {}
      : { firmwareVariablesPath: this.#path(text(node['file'] as Properties, 'filename')) };
  }

  hasAgent(): boolean {
    return this.#devices.some(({ driver }) => driver === 'virtserialport');
  }

  #firmware(): PinnedFirmware | undefined {
    const node = this.#nodes.get('firmware-code');
    if (node === undefined) return undefined;
    const firmware = this.#around.firmwareOf(this.#path(text(node['file'] as Properties, 'filename')));
    if (firmware === undefined) throw misread('what its firmware variables were made of');
    return firmware;
  }

  #macOf(device: Properties): MacAddress {
    const mac = macAddress.safeParse(device['mac']).data;
    if (mac === undefined) throw misread('a MAC address');
    return mac;
  }

  #source(id: string, depth: number): BlockSource {
    const name = `${id}-${depth}`;
    const format = this.#nodes.get(name);
    const driver = text(format, 'driver');
    if (driver !== 'qcow2' && driver !== 'raw') throw misread(`the format of ${name}`);
    return {
      format: driver,
      path: this.#path(text(this.#nodes.get(`${name}-file`), 'filename')),
      readOnly: format?.['read-only'] === true,
      sizeBytes: this.#around.sizeOf(name) ?? 0,
      ...(typeof format?.['backing'] === 'string' ? { backing: this.#source(id, depth + 1) } : {}),
    };
  }

  /** QEMU works in its guest's own directory. */
  #path(path: string): string {
    return resolve(this.#around.place.stateDirectory, path);
  }
}

/** Errors: Unsupported for one that is not ours, or not of this release. */
export const readCommandLine = (
  argv: readonly string[],
  name: string,
  around: AroundCommandLine,
): CommandLine => {
  const args = new Arguments(argv);
  const reading = new Reading(args, around);
  const machine = reading.machine();
  const firmwarePath = args.find('-bios');
  return {
    binaryPath: args.binaryPath,
    accel: args.has('-enable-kvm') ? 'kvm' : 'tcg',
    ...(firmwarePath === undefined ? {} : { firmwarePath }),
    launch: {
      name,
      machine,
      memoryBytes: reading.memoryBytes(),
      cpu: reading.cpu(),
      qemu: { binary: 'default', accel: 'auto', extraArgs: [] },
      agent: reading.hasAgent(),
      boot: reading.boot(),
      ...reading.firmwareVariablesPath(),
      disks: reading.disks(machine),
      nics: reading.nics(machine),
      ...reading.seed(),
      cdroms: reading.cdroms(machine),
    },
  };
};
