/**
 * Microvms for tests that look at the init and not at Roost's driver: Debian's cloud kernel with its PVH entry, the
 * initramfs of `guest/`, and a root file system of busybox made on the spot.
 */
import { execFileSync } from 'node:child_process';
import { copyFile, mkdir, symlink, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { tscKhz } from '../../drivers/qemu/time-stamp-counter.ts';
import { MicrovmAgent } from '../../drivers/roost-agent/microvm-agent.ts';
import { buildInitramfs } from '../../guest/initramfs.ts';
import { extractPvhKernel } from '../../guest/pvh-kernel.ts';
import { exec } from '../../lib/exec.ts';
import { buildNative } from '../../tools/build-native.mjs';
import { resolvePackages } from '../../tools/small-image/build-small-image.ts';
import { unpackPackage } from '../../tools/small-image/debian-packages.ts';
import { guestImages } from './guest-images.ts';
import { type RawQemu, startRawQemu } from './raw-qemu.ts';

const never = new AbortController().signal;
const passwd = 'root:x:0:0:root:/root:/bin/sh\nweb:x:101:102::/srv:/bin/sh\n';
const group = 'root:x:0:\nweb:x:102:\nlogs:x:200:web\n';

export interface MicrovmParts {
  readonly vmlinux: string;
  readonly initramfs: string;
  readonly rootDisk: string;
}

/** The unpacked kernel package of the small images. */
const kernelFolder = async (): Promise<{ readonly image: string; readonly modules: string }> => {
  await guestImages();
  const { kernel } = await resolvePackages(never);
  const images =
    process.env['ROOST_GUEST_IMAGES'] ?? resolve(import.meta.dirname, '../../.cache/guest-images');
  const { folder } = await unpackPackage(kernel, join(images, 'packages'), never);
  const release = kernel.name.replace(/^linux-image-/, '');
  return { image: join(folder, `boot/vmlinuz-${release}`), modules: join(folder, 'lib/modules', release) };
};

/** Makes everything anew in a directory; a second or two. */
export const makeMicrovmParts = async (directory: string): Promise<MicrovmParts> => {
  buildNative();
  const kernel = await kernelFolder();
  const parts = {
    vmlinux: join(directory, 'vmlinux'),
    initramfs: join(directory, 'initramfs.cpio'),
    rootDisk: join(directory, 'root.squashfs'),
  };
  await extractPvhKernel(kernel.image, parts.vmlinux, never);
  const init = resolve(import.meta.dirname, '../../build/guest/roost-init');
  await writeFile(parts.initramfs, await buildInitramfs({ init, moduleFolder: kernel.modules }));
  await makeRootDisk(directory, parts.rootDisk);
  return parts;
};

const makeRootDisk = async (directory: string, path: string): Promise<void> => {
  const root = join(directory, 'root');
  for (const name of ['bin', 'etc', 'srv']) await mkdir(join(root, name), { recursive: true });
  const busybox = execFileSync('which', ['busybox'], { encoding: 'utf8' }).trim();
  await copyFile(busybox, join(root, 'bin/busybox'));
  const { stdout } = await exec([busybox, '--list'], { signal: never });
  for (const applet of stdout.split('\n').filter((name) => name !== '' && name !== 'busybox')) {
    await symlink('busybox', join(root, 'bin', applet));
  }
  await writeFile(join(root, 'etc/passwd'), passwd);
  await writeFile(join(root, 'etc/group'), group);
  const options = ['-comp', 'lz4', '-all-root', '-quiet', '-no-progress'];
  await exec(['mksquashfs', root, path, ...options], { signal: never });
};

export interface MicrovmOptions {
  readonly machine: 'microvm' | 'q35';
  /** Holds the sockets; one guest each. */
  readonly directory: string;
  readonly parts: MicrovmParts;
  /** Words for the init beside the root's disk. */
  readonly settings?: string;
  /** A disk to write to, with the serial number `upper`; raw. */
  readonly upper?: string;
  /** A file that is its memory, and whether what it writes there is seen by others. */
  readonly memory?: { readonly path: string; readonly share: 'on' | 'off' };
  readonly extra?: readonly string[];
}

/** What KVM would tell the kernel, and without it nobody does: without, it hangs now and then. */
export const microvmSockets = (
  directory: string,
): { readonly control: string; readonly streams: string } => ({
  control: join(directory, 'control'),
  streams: join(directory, 'streams'),
});

export const startMicrovm = async (options: MicrovmOptions): Promise<RawQemu> => {
  const { machine, directory, parts, settings = '', upper, memory, extra = [] } = options;
  const bus = machine === 'q35' ? 'pci' : 'device';
  const commandLine = `quiet panic=-1 tsc_early_khz=${await tscKhz()} tsc=reliable cryptomgr.notests no_timer_check lsm=`;
  const sockets = microvmSockets(directory);
  const port = (id: string, path: string, name: string): readonly string[] => [
    '-chardev',
    `socket,id=${id},path=${path},server=on,wait=off`,
    '-device',
    // With an id QEMU tells when the guest opens it.
    `virtserialport,bus=serial.0,chardev=${id},name=${name},id=${id}-port`,
  ];
  const disk = (id: string, path: string, rest: string): readonly string[] => [
    '-drive',
    `file=${path},format=raw,if=none,id=${id}${rest}`,
    '-device',
    `virtio-blk-${bus},drive=${id},serial=${id}`,
  ];
  return await startRawQemu(machine, 'tcg', [
    '-no-reboot',
    '-m',
    '256',
    ...(memory
      ? ['-object', `memory-backend-file,id=mem,size=256M,mem-path=${memory.path},share=${memory.share}`]
      : []),
    ...(memory ? ['-machine', 'memory-backend=mem'] : []),
    ...(machine === 'microvm' ? ['-global', 'virtio-mmio.force-legacy=false'] : []),
    '-kernel',
    parts.vmlinux,
    '-initrd',
    parts.initramfs,
    '-append',
    `${commandLine} roost.root=serial:root ${settings}`,
    '-device',
    `virtio-serial-${bus},id=serial`,
    ...port('control', sockets.control, 'org.roost.control.0'),
    ...port('streams', sockets.streams, 'org.roost.streams.0'),
    ...disk('root', parts.rootDisk, ',readonly=on'),
    ...(upper === undefined ? [] : disk('upper', upper, '')),
    '-netdev',
    'user,id=net',
    '-device',
    `virtio-net-${bus},netdev=net`,
    ...extra,
  ]);
};

/** Waits until the guest has opened a port, and greets its agent. */
export const connectToMicrovm = async (qemu: RawQemu, directory: string): Promise<MicrovmAgent> => {
  await qemu.waitForEvent('VSERPORT_CHANGE');
  return await MicrovmAgent.connect(microvmSockets(directory), never);
};
