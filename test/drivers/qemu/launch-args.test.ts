/** Golden command lines, one argument per line. After a wanted change: `npx vitest run test/drivers/qemu -u`. */
import { describe, expect, it } from 'vitest';
import type { GuestPlace, Launch, PinnedMachine } from '../../../drivers/driver.ts';
import { type LaunchArgsInput, launchArgs } from '../../../drivers/qemu/launch-args.ts';
import { fitMachine, pinMachine } from '../../../drivers/qemu/machine.ts';
import { systemdScopes } from '../../../lib/control-groups.ts';
import type { BlockSource } from '../../../protocol/block-source.ts';
import {
  type GuestSpec,
  type GuestSpecInput,
  guestSpec,
  type MachineFamily,
  wantsAgent,
} from '../../../protocol/guest.ts';
import type { NetPort, PortForward } from '../../../protocol/net-port.ts';
import type { GuestId, InstanceId, MacAddress } from '../../../protocol/types.ts';

const stateRoot = '/var/lib/roost';
const id = '5a9c7f5a-1b2c-4d3e-8f90-a1b2c3d4e5f6' as GuestId;
const GIBIBYTE = 1024 ** 3;
const types: Readonly<Record<MachineFamily, string>> = {
  q35: 'pc-q35-7.2',
  pc: 'pc-i440fx-7.2',
  microvm: 'microvm',
};

const mac = (last: number): MacAddress => `52:54:00:00:00:${String(last).padStart(2, '0')}` as MacAddress;

interface Wanted {
  readonly spec?: Partial<GuestSpecInput>;
  readonly family?: MachineFamily;
  readonly disks?: readonly BlockSource[];
  readonly nics?: readonly NetPort[];
  readonly cdroms?: readonly (BlockSource | undefined)[];
  readonly boot?: Launch['boot'];
  readonly seed?: BlockSource;
  readonly memory?: Pick<Launch, 'forkable' | 'forkOf' | 'receives'>;
  readonly credentials?: Launch['place']['credentials'] | undefined;
  readonly accel?: LaunchArgsInput['accel'];
  readonly firmwarePath?: string;
  readonly groupDirectory?: string;
  readonly groupArgv?: NonNullable<LaunchArgsInput['groupArgv']>;
  readonly tscKhz?: number;
  readonly firmware?: NonNullable<PinnedMachine['firmware']>;
  /** A record as an earlier Roost wrote it. */
  readonly formatVersion?: number;
}

const guest = { uid: 1_879_048_193, gid: 1_879_048_193, groups: [990, 991] };

/** The record, also as an earlier Roost would have written it. */
const pin = (
  spec: GuestSpec,
  family: MachineFamily,
  { formatVersion, firmware }: Pick<Wanted, 'formatVersion' | 'firmware'>,
): PinnedMachine => {
  const basics = { type: types[family], family, serialPrefix: '0123456789ab', firmware };
  if (formatVersion === undefined) return pinMachine(spec, basics);
  return fitMachine(spec, { ...pinMachine({ ...spec, disks: [], nics: [] }, basics), formatVersion });
};

const launchOf = (wanted: Wanted): Launch => {
  const { family = 'q35', disks = [], nics = [], boot = { kind: 'disk' } } = wanted;
  const spec: GuestSpec = guestSpec.parse({
    name: 'web1',
    disks: disks.map(({ sizeBytes }) => ({ sizeBytes })),
    nics: nics.map((nic) => ({ network: 'default', mac: nic.mac })),
    cdroms: (wanted.cdroms ?? []).map(() => ({})),
    ...wanted.spec,
  });
  const credentials = 'credentials' in wanted ? wanted.credentials : guest;
  return {
    place: {
      id,
      number: 1,
      instance: 'abcde' as InstanceId,
      stateDirectory: `${stateRoot}/guests/${id}`,
      runDirectory: `/run/roost/guests/${id}`,
      ...(credentials === undefined ? {} : { credentials }),
    },
    name: spec.name,
    machine: pin(spec, family, wanted),
    ...(wanted.firmware === undefined
      ? {}
      : { firmwareVariablesPath: `${stateRoot}/pools/default/${id}/firmware-variables.fd` }),
    memoryBytes: spec.memoryBytes,
    cpu: spec.cpu,
    qemu: spec.qemu,
    agent:
      wanted.formatVersion === undefined &&
      wantsAgent({ ...spec, boot: { kind: boot.kind } as GuestSpec['boot'] }),
    ...(spec.program === undefined ? {} : { ownInit: true }),
    boot,
    disks,
    nics,
    ...(wanted.seed === undefined ? {} : { seed: wanted.seed }),
    ...wanted.memory,
    ...(wanted.cdroms === undefined ? {} : { cdroms: wanted.cdroms }),
    ...(spec.filesystems.length === 0 ? {} : { filesystems: spec.filesystems }),
  };
};

const argsOf = (wanted: Wanted): readonly string[] =>
  launchArgs({
    launch: launchOf(wanted),
    launcherPath: '/usr/lib/roost/roost-launcher',
    binaryPath: '/usr/bin/qemu-system-x86_64',
    accel: wanted.accel ?? 'tcg',
    stateRoot,
    ...(wanted.firmwarePath === undefined ? {} : { firmwarePath: wanted.firmwarePath }),
    virtiofsdPath: '/usr/lib/qemu/virtiofsd',
    ...(wanted.groupDirectory === undefined ? {} : { groupDirectory: wanted.groupDirectory }),
    ...(wanted.groupArgv === undefined ? {} : { groupArgv: wanted.groupArgv }),
    ...(wanted.tscKhz === undefined ? {} : { tscKhz: wanted.tscKhz }),
  });

const overlay: BlockSource = {
  format: 'qcow2',
  path: `${stateRoot}/pools/default/${id}/disk0.qcow2`,
  readOnly: false,
  sizeBytes: 2 * GIBIBYTE,
  backing: {
    format: 'qcow2',
    path: `${stateRoot}/images/debian/image.qcow2`,
    readOnly: true,
    sizeBytes: 2 * GIBIBYTE,
  },
};
const rawDisk = (name: string, readOnly = false): BlockSource => ({
  format: 'raw',
  path: `/srv/disks/${name}.raw`,
  readOnly,
  sizeBytes: GIBIBYTE,
});
const seed: BlockSource = {
  format: 'raw',
  path: `${stateRoot}/pools/default/${id}/seed-0123.iso`,
  readOnly: true,
  sizeBytes: 1024 ** 2,
};
const told = { spec: { cloudInit: {} }, seed };
const iso: BlockSource = {
  format: 'raw',
  path: `${stateRoot}/images/installer/image.raw`,
  readOnly: true,
  sizeBytes: GIBIBYTE,
};
const tap = (last: number): NetPort => ({ kind: 'tap', link: `rabcde${last}`, mac: mac(last) });
const user = (last: number, forwards: readonly PortForward[] = []): NetPort => ({
  kind: 'user',
  mac: mac(last),
  ...(forwards.length === 0 ? {} : { forwards }),
});
const kernelBoot: Launch['boot'] = {
  kind: 'kernel',
  kernelPath: `${stateRoot}/images/kernel/vmlinuz`,
  initrdPath: `${stateRoot}/images/initrd/initrd.img`,
  commandLine: 'console=ttyS0 quiet root=LABEL=a,b',
};

const ovmf = {
  codePath: '/usr/share/OVMF/OVMF_CODE_4M.fd',
  variablesTemplatePath: '/usr/share/OVMF/OVMF_VARS_4M.fd',
};

const microvmProgram: Wanted = {
  family: 'microvm',
  tscKhz: 2_600_000,
  boot: { ...kernelBoot, commandLine: '' },
  disks: [rawDisk('root', true), overlay],
  nics: [tap(1)],
  spec: { program: { image: 'app' } },
};
const filesystems = [
  { source: '/srv/site', target: '/usr/share/nginx/html', readOnly: true },
  { source: '/srv/a:b,c=d e', target: '/data' },
];
/** With a system of its own: its memory has the name that QEMU gave it before anybody thought of forks. */
const system: Wanted = { disks: [overlay], nics: [tap(1)], ...told };
const templatePlace: GuestPlace = {
  id: '5f0c7b1e-0000-4000-8000-000000000002' as GuestId,
  number: 2,
  instance: 'abcde' as InstanceId,
  stateDirectory: `${stateRoot}/guests/template`,
  runDirectory: '/run/roost/guests/template',
};

const cases: Readonly<Record<string, Wanted>> = {
  'q35-bare': {},
  'q35-overlay-and-tap': { disks: [overlay], nics: [tap(1)] },
  'pc-overlay-and-tap': { family: 'pc', disks: [overlay], nics: [tap(1)] },
  'microvm-kernel': { family: 'microvm', boot: kernelBoot, disks: [rawDisk('data')], nics: [tap(1)] },
  'microvm-disk': {
    family: 'microvm',
    disks: [overlay],
    firmwarePath: '/usr/share/seabios/bios-microvm.bin',
  },
  'q35-kernel-without-initrd': {
    boot: { kind: 'kernel', kernelPath: '/boot/vmlinuz', commandLine: '' },
  },
  'user-network-with-forwards': {
    credentials: undefined,
    disks: [overlay],
    nics: [
      user(1, [
        { protocol: 'tcp', hostAddress: '127.0.0.1', hostPort: 2222, guestPort: 22 },
        { protocol: 'udp', hostAddress: '0.0.0.0', hostPort: 5353, guestPort: 53 },
      ]),
    ],
  },
  'rootless-user-network': { credentials: undefined, disks: [overlay], nics: [user(1)] },
  'no-groups': { credentials: { uid: 2000, gid: 2000, groups: [] } },
  kvm: {
    accel: 'kvm',
    spec: {
      memoryBytes: 4 * GIBIBYTE,
      cpu: { count: 8, topology: { sockets: 2, cores: 2, threads: 2 }, model: 'host,-avx512f' },
    },
  },
  'q35-uefi': { firmware: ovmf, disks: [overlay], nics: [tap(1)] },
  'pc-uefi': { family: 'pc', firmware: ovmf, disks: [overlay] },
  'q35-many-devices': {
    disks: [overlay, rawDisk('a'), rawDisk('cd', true), rawDisk('b')],
    nics: [tap(1), user(2), tap(3)],
  },
  'q35-without-agent': { disks: [overlay], nics: [tap(1)], spec: { agent: { enabled: false } } },
  'microvm-kernel-with-agent': {
    family: 'microvm',
    boot: kernelBoot,
    disks: [rawDisk('data')],
    nics: [tap(1)],
    spec: { agent: { enabled: true } },
  },
  'form-1-q35-overlay-and-tap': { formatVersion: 1, disks: [overlay], nics: [tap(1)] },
  'form-1-pc-overlay-and-tap': { formatVersion: 1, family: 'pc', disks: [overlay], nics: [tap(1)] },
  'form-1-microvm-disk': {
    formatVersion: 1,
    family: 'microvm',
    disks: [overlay],
    firmwarePath: '/usr/share/seabios/bios-microvm.bin',
  },
  'q35-seed': { disks: [overlay], nics: [tap(1)], ...told },
  'pc-seed': { family: 'pc', disks: [overlay], nics: [tap(1)], ...told },
  'microvm-seed': {
    family: 'microvm',
    disks: [overlay],
    firmwarePath: '/usr/share/seabios/bios-microvm.bin',
    ...told,
  },
  'form-1-q35-seed': { formatVersion: 1, disks: [overlay], nics: [tap(1)], ...told },
  'in-a-scope': { groupArgv: systemdScopes().argv('roost-abcde-1', 'Guest web1 of Roost') },
  'microvm-program': microvmProgram,
  'microvm-template': { ...microvmProgram, memory: { forkable: true } },
  'microvm-receiving': { ...microvmProgram, memory: { forkable: true, receives: true } },
  'microvm-fork': { ...microvmProgram, memory: { forkOf: templatePlace } },
  'q35-system-receiving': { ...system, memory: { forkable: true, receives: true } },
  'q35-system-fork': { ...system, firmware: ovmf, memory: { forkOf: templatePlace } },
  'pc-system-fork': { ...system, family: 'pc', memory: { forkOf: templatePlace } },
  'microvm-system-fork': {
    ...system,
    family: 'microvm',
    firmwarePath: '/usr/share/seabios/bios-microvm.bin',
    memory: { forkOf: templatePlace },
  },
  'q35-program': {
    accel: 'kvm',
    boot: { ...kernelBoot, commandLine: 'ignore_loglevel' },
    disks: [rawDisk('root', true), overlay],
    spec: { program: { image: 'app' } },
  },
  'microvm-directories': {
    ...microvmProgram,
    groupDirectory: `/sys/fs/cgroup/roost-abcde-${id}`,
    spec: { program: { image: 'app' }, filesystems },
  },
  'q35-directories': {
    accel: 'kvm',
    boot: { ...kernelBoot, commandLine: '' },
    disks: [rawDisk('root', true), overlay],
    groupArgv: systemdScopes().argv('roost-abcde-1', 'Guest web1 of Roost'),
    spec: { program: { image: 'app' }, filesystems },
  },
  'q35-cdroms': { disks: [overlay], cdroms: [iso, undefined] },
  'pc-cdroms': { family: 'pc', disks: [overlay], cdroms: [undefined, iso] },
  'extra-arguments': {
    disks: [overlay],
    spec: {
      qemu: {
        extraArgs: [
          { argument: '-device', reason: 'a watchdog' },
          { argument: 'i6300esb', reason: 'a watchdog' },
        ],
      },
    },
  },
};

describe('launchArgs', () => {
  it.each(Object.keys(cases))('%s', async (name) => {
    const lines = argsOf(cases[name] ?? {});
    expect(lines.filter((line) => line.includes('\n'))).toEqual([]);
    await expect(`${lines.join('\n')}\n`).toMatchFileSnapshot(`../../golden/qemu/${name}.args`);
  });

  it('adds a disk without moving what was there', () => {
    const devicesOf = (wanted: Wanted): readonly string[] =>
      argsOf(wanted).filter((argument) => argument.includes('"bus"') && !argument.includes('pcie-root-port'));
    const before = devicesOf({ disks: [overlay], nics: [tap(1)] });
    const after = devicesOf({ disks: [overlay, rawDisk('a')], nics: [tap(1)] });
    // The random number generator, the disk, the NIC, the agent's controller and its port.
    expect(before).toHaveLength(5);
    expect(after.filter((device) => device.includes('disk-disk0'))).toEqual(
      before.filter((device) => device.includes('disk-disk0')),
    );
  });

  it('adds a seed without moving what was there', () => {
    const devicesOf = (wanted: Wanted): readonly string[] =>
      argsOf(wanted).filter((argument) => argument.includes('"bus"') && !argument.includes('pcie-root-port'));
    const before = devicesOf({ disks: [overlay], nics: [tap(1)] });
    const after = devicesOf({ disks: [overlay], nics: [tap(1)], ...told });
    expect(after).toHaveLength(before.length + 1);
    expect(after).toEqual(expect.arrayContaining([...before]));
    expect(after.filter((device) => device.includes('"bootindex"'))).toHaveLength(1);
  });

  it('names paths outside of the state directory as they are', () => {
    const sibling: BlockSource = { ...overlay, path: '/var/lib/roost-other/disk.qcow2' };
    const text = argsOf({ disks: [sibling] }).join('\n');
    expect(text).toContain('"filename":"/var/lib/roost-other/disk.qcow2"');
    expect(text).toContain('"filename":"../../images/debian/image.qcow2"');
  });
});
