/**
 * The recipe of a Debian image: packages, files, and the commands that make a disk of them, from data alone. Pure;
 * test/golden/debian holds the whole of it.
 *
 * The disk has a GUID partition table and boots by itself under SeaBIOS (boot sector, GRUB in the BIOS boot partition)
 * and under UEFI (shim and Debian's signed GRUB in the EFI system partition). Both read /boot/grub/grub.cfg from the
 * root file system, found by its label, and that is the file that Debian's kernel packages have written anew: a kernel
 * upgrade inside the guest is booted by both. It is made without a loop device and without mounting it.
 */
import { type Action, inRoot, ROOT, run } from './actions.ts';
import { bootstrap, type RecipeInput } from './bootstrap.ts';
import { guestSources, settings } from './settings.ts';

export const DISK = 'disk.raw';
/** Small on purpose: a guest's disk is larger, and the file system grows into it at the first boot. */
export const DISK_BYTES = 2 * 1024 ** 3;
export const ROOT_LABEL = 'roost-root';

const CORE = 'core.img';
const SECTOR_BYTES = 512;
/** In sectors: one MiB for GRUB's core, 64 MiB for the EFI system partition, the rest for the root file system. */
const layout = { bios: 2048, esp: 4096, root: 135_168 } as const;
const ESP_SECTORS = layout.root - layout.esp;
/** The second copy of the partition table lies behind the last partition, which ends on a MiB. */
const ROOT_SECTORS = DISK_BYTES / SECTOR_BYTES - layout.root - 2048;

const guids = {
  bios: '21686148-6449-6E6F-744E-656564454649',
  esp: 'C12A7328-F81F-11D2-BA4B-00A0C93EC93B',
  root: '4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709',
} as const;

export const packages = [
  'linux-image-cloud-amd64',
  'systemd-sysv',
  'systemd-resolved',
  'systemd-timesyncd',
  'libnss-resolve',
  'dbus',
  'cloud-init',
  'cloud-guest-utils',
  'openssh-server',
  'qemu-guest-agent',
  'netplan.io',
  'grub-cloud-amd64',
  'grub-efi-amd64-signed',
  'shim-signed',
  'bash-completion',
  'ca-certificates',
  'curl',
  'iproute2',
  'iputils-ping',
  'less',
  'nano',
  'sudo',
  'zstd',
] as const;

/** Units whose work is for machines that live for years between boots, or that have LVM. */
const disabledUnits = [
  'apt-daily.timer',
  'apt-daily-upgrade.timer',
  'e2scrub_all.timer',
  'e2scrub_reap.service',
] as const;

/** Each guest makes keys of its own. */
const hostKeys = ['rsa', 'dsa', 'ecdsa', 'ed25519'].flatMap((kind) => [
  `/etc/ssh/ssh_host_${kind}_key`,
  `/etc/ssh/ssh_host_${kind}_key.pub`,
]);

const KERNEL_ARGUMENTS = 'console=tty0 console=ttyS0,115200';

const SERIAL = `serial --unit=0 --speed=115200
terminal_input serial console
terminal_output serial console
`;

/** Until a kernel package has update-grub write it anew; the links at / name the newest kernel. */
const GRUB_CONFIG = `${SERIAL}set timeout=0
search --no-floppy --label ${ROOT_LABEL} --set=root
menuentry 'Debian GNU/Linux' {
  linux /vmlinuz root=LABEL=${ROOT_LABEL} ro ${KERNEL_ARGUMENTS}
  initrd /initrd.img
}
`;

const GRUB_DEFAULTS = `# Read by update-grub, which the kernel packages run.
GRUB_DEFAULT=0
GRUB_TIMEOUT=0
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX="${KERNEL_ARGUMENTS}"
GRUB_CMDLINE_LINUX_DEFAULT=""
GRUB_TERMINAL="serial console"
GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"
GRUB_DISABLE_OS_PROBER=true
`;

const FIND_ROOT = `search --no-floppy --label ${ROOT_LABEL} --set=root
set prefix=($root)/boot/grub
`;

/**
 * One data source, so that none on the network is waited for. The locale is the one that the image has (nothing has to be
 * generated for it; cloud-init's schema knows no `false` here, and warns of it) unless a user asks for another;
 * keys of kinds that are slow to make and that no client of today needs are left out.
 */
const CLOUD_CONFIG = `datasource_list: [ NoCloud, None ]
locale: C.UTF-8
ssh_genkeytypes: [ ed25519, ecdsa ]
`;

/** Neighbours are known by their bare names to the network's own DNS, which has to be asked for them. */
const RESOLVED_CONFIG = `[Resolve]
ResolveUnicastSingleLabel=yes
`;

const FSTAB = `LABEL=${ROOT_LABEL} / ext4 errors=remount-ro 0 1
LABEL=ROOST-ESP /boot/efi vfat umask=0077,nofail 0 2
`;

const filesOf = (suite: string): Readonly<Record<string, string>> => ({
  'etc/fstab': FSTAB,
  'etc/default/grub': GRUB_DEFAULTS,
  'etc/default/locale': 'LANG=C.UTF-8\n',
  'etc/apt/sources.list': guestSources(suite),
  'etc/cloud/cloud.cfg.d/90_roost.cfg': CLOUD_CONFIG,
  'etc/systemd/resolved.conf.d/90-roost.conf': RESOLVED_CONFIG,
  'etc/hostname': 'debian\n',
  // Present and empty: systemd makes one at the first boot.
  'etc/machine-id': '',
  'boot/grub/grub.cfg': GRUB_CONFIG,
});

const GRUB_MODULES =
  'biosdisk part_gpt ext2 normal search search_label configfile linux serial terminal echo test';

/** GRUB loads the rest of its modules from /boot/grub, where they stay those of the core whatever is upgraded. */
const bootLoader: readonly Action[] = [
  { kind: 'file', path: `${ROOT}/early.cfg`, text: FIND_ROOT },
  inRoot(
    'boot',
    'grub-mkimage',
    '--format=i386-pc',
    `--output=/${CORE}`,
    '--config=/early.cfg',
    '--prefix=/boot/grub',
    ...GRUB_MODULES.split(' '),
  ),
  inRoot('boot', 'cp', '--recursive', '/usr/lib/grub/i386-pc', '/boot/grub/'),
  run('boot', 'mv', `${ROOT}/${CORE}`, CORE),
  inRoot('boot', 'rm', '/early.cfg'),
];

const partitionTable = [
  'label: gpt',
  `start=${layout.bios}, size=${layout.esp - layout.bios}, type=${guids.bios}`,
  `start=${layout.esp}, size=${ESP_SECTORS}, type=${guids.esp}`,
  `start=${layout.root}, size=${ROOT_SECTORS}, type=${guids.root}`,
  '',
].join('\n');

/** Where GRUB's boot sector is told the place of the core, and the core that of its own rest (GRUB's boot.S, diskboot.S). */
const BOOT_SECTOR_BYTES = 440;
const CORE_PLACE_IN_BOOT_SECTOR = 0x5c;
const REST_PLACE_IN_CORE = 0x1f4;

const copyInto = (from: string, ...options: readonly string[]): Action =>
  run('disk', 'dd', `if=${from}`, `of=${DISK}`, 'conv=notrunc', 'status=none', ...options);

const ESP = `${DISK}@@${layout.esp * SECTOR_BYTES}`;
const toEsp = (from: string, to: string): Action => run('disk', 'mcopy', '-i', ESP, from, `::${to}`);

const disk: readonly Action[] = [
  run('disk', 'truncate', `--size=${DISK_BYTES}`, DISK),
  {
    kind: 'run',
    stage: 'disk',
    argv: ['sfdisk', '--quiet', '--no-tell-kernel', DISK],
    input: partitionTable,
  },
  copyInto(`${ROOT}/usr/lib/grub/i386-pc/boot.img`, `bs=${BOOT_SECTOR_BYTES}`, 'count=1'),
  { kind: 'poke', path: DISK, offset: CORE_PLACE_IN_BOOT_SECTOR, value: layout.bios },
  copyInto(CORE, `bs=${SECTOR_BYTES}`, `seek=${layout.bios}`),
  {
    kind: 'poke',
    path: DISK,
    offset: layout.bios * SECTOR_BYTES + REST_PLACE_IN_CORE,
    value: layout.bios + 1,
  },
  // With a sector a cluster there are enough clusters for FAT32; with fewer, readers take it for FAT16.
  run(
    'disk',
    'mkfs.vfat',
    '-F',
    '32',
    '-s',
    '1',
    '-n',
    'ROOST-ESP',
    `--offset=${layout.esp}`,
    DISK,
    `${ESP_SECTORS / 2}`,
  ),
  run('disk', 'mmd', '-i', ESP, '::/EFI', '::/EFI/BOOT', '::/EFI/debian'),
  toEsp(`${ROOT}/usr/lib/shim/shimx64.efi.signed`, '/EFI/BOOT/BOOTX64.EFI'),
  toEsp(`${ROOT}/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed`, '/EFI/BOOT/grubx64.efi'),
  { kind: 'file', path: 'esp-grub.cfg', text: `${FIND_ROOT}configfile $prefix/grub.cfg\n` },
  toEsp('esp-grub.cfg', '/EFI/debian/grub.cfg'),
  run(
    'disk',
    'mke2fs',
    '-q',
    '-t',
    'ext4',
    '-L',
    ROOT_LABEL,
    '-d',
    ROOT,
    '-E',
    `offset=${layout.root * SECTOR_BYTES}`,
    DISK,
    `${ROOT_SECTORS / 2}k`,
  ),
];

export const recipe = (input: RecipeInput): readonly Action[] => [
  bootstrap(input, packages),
  ...settings({ files: filesOf(input.suite), disabledUnits, removed: hostKeys }),
  ...bootLoader,
  ...disk,
];
