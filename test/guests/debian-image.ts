/**
 * The one Debian that all tests share: built by the product's own code into `.cache/guest-images` of this checkout (or
 * into ROOST_GUEST_IMAGES) by the first who asks, about a minute on an idle machine; everybody else waits for it or finds it.
 *
 *   const path = await debianImage();
 *   await daemon.succeed('image-import', { name: 'debian', format: 'qcow2', path });
 *
 * or, without a daemon, as the backing file of an overlay (`qemu-img create -f qcow2 -F qcow2 -b PATH overlay.qcow2 8G`).
 * It is read-only; nobody writes to it. Debian 12 with systemd, cloud-init (NoCloud alone), sshd, netplan and the QEMU
 * guest agent; no user and no password until a seed gives them; its first boot takes 45 s under TCG on an idle machine.
 * A test that may be the first to ask allows `debianImageTimeoutMs` for it, and a boot takes `debianBootTimeoutMs` at worst.
 */
import { resolve } from 'node:path';
import { ensureDebianImage } from '../../tools/debian-image/ensure-debian-image.ts';
import { ensureDebianRoot } from '../../tools/debian-image/ensure-debian-root.ts';

/** A build under the load of a whole test run. */
export const debianImageTimeoutMs = 900_000;
/** A first boot to the end of cloud-init under TCG, while other guests boot. */
export const debianBootTimeoutMs = 600_000;

const imageDirectory = (): string =>
  process.env['ROOST_GUEST_IMAGES'] ?? resolve(import.meta.dirname, '../../.cache/guest-images');

/** Absolute path of the image, a qcow2 file. Throws RoostError with what to install if it can't be built here. */
export const debianImage = async (signal?: AbortSignal): Promise<string> =>
  await ensureDebianImage({ directory: imageDirectory(), ...(signal === undefined ? {} : { signal }) });

/**
 * The root file system of a Debian with systemd and networkd as an archive, for `image-import` with kind `root`. A minute
 * to build, by the first who asks; needs root.
 */
export const debianRoot = async (signal?: AbortSignal): Promise<string> =>
  await ensureDebianRoot({ directory: imageDirectory(), ...(signal === undefined ? {} : { signal }) });

/** What the package of Roost depends on, so that a guest installs it without a mirror. */
const hostPackages = [
  'qemu-system-x86',
  'qemu-utils',
  'seabios',
  'nftables',
  'dnsmasq-base',
  'xorriso',
  'adduser',
  'debconf',
  // Of containers, with what holds them on a Debian as it is installed.
  'lxc',
  'apparmor',
  'squashfs-tools',
] as const;

/** The same Debian with what Roost itself needs of a host; two minutes to build. */
export const debianHostImage = async (signal?: AbortSignal): Promise<string> =>
  await ensureDebianImage({
    directory: imageDirectory(),
    variant: { name: 'host', furtherPackages: hostPackages },
    ...(signal === undefined ? {} : { signal }),
  });
