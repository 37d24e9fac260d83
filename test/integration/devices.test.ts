/**
 * Disks and NICs that come and go, on real QEMU: seen from inside of a Linux guest while it runs and after a stop, and
 * with guests that have no system to let go of anything.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, expect, it } from 'vitest';
import type { GuestSpecInput } from '../../protocol/guest.ts';
import { MEBIBYTE } from '../../protocol/types.ts';
import type { SmallImage } from '../../tools/small-image/build-small-image.ts';
import { bootSectorIso } from '../guests/boot-cdrom.ts';
import { guestImages, guestImagesTimeoutMs } from '../guests/guest-images.ts';
import { type GuestConsole, logIn, openGuestConsole, runInGuest } from '../harness/guest-console.ts';
import { describeWith } from '../harness/needs.ts';
import { type RealDaemon, testDaemonHome } from '../harness/real-daemon.ts';
import { importBootSector, tinyGuest } from '../harness/tiny-guests.ts';

/** Two starts of a Linux under emulation, on a machine that may have much else to do. */
const timeout = 480_000;
let images: SmallImage;

const linuxGuest: GuestSpecInput = {
  name: 'ada',
  memoryBytes: 192 * MEBIBYTE,
  disks: [{ image: 'small' }],
  nics: [{ network: 'lan' }],
  qemu: { accel: 'tcg' },
};

const startAndLogIn = async (daemon: RealDaemon): Promise<GuestConsole> => {
  await daemon.succeed('guest-start', { guest: 'ada', paused: true });
  const console = await openGuestConsole(daemon, 'ada', { replayBytes: 0 });
  await daemon.succeed('guest-resume', { guest: 'ada' });
  await logIn(console);
  return console;
};

/** What a line says in the guest's shell, its last line alone; it has to succeed. */
const say = async (console: GuestConsole, line: string): Promise<string> => {
  const { output, status } = await runInGuest(console, line);
  expect({ output, status }).toEqual({ output, status: 0 });
  const lines = output.split(/\r?\n/);
  return lines.at(-2) ?? '';
};

/** A shell without udev has nothing that tells of a device, so it looks; it gives up after a minute. */
const awaitInGuest = (console: GuestConsole, condition: string): Promise<string> =>
  say(
    console,
    `n=0; until ${condition}; do n=$((n+1)); [ $n -lt 600 ] || break; usleep 100000; done; ${condition}`,
  );

const pciAddress = async (console: GuestConsole, path: string): Promise<string> => {
  const where = await say(console, `readlink -f ${path}`);
  return /\/(0000:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f])\/virtio\d+\//.exec(where)?.[1] ?? where;
};

const blockDevices = async (console: GuestConsole): Promise<string> =>
  await say(console, 'echo $(cd /sys/block && echo vd*)');

describeWith(['root', 'qemu', 'qemu-img', 'nft', 'ip', 'dnsmasq', 'tun'], 'devices of a Linux guest', () => {
  beforeAll(async () => {
    images = await guestImages();
  }, guestImagesTimeoutMs);

  it('come and go while it runs, carry data and traffic, and stay where they are', { timeout }, async () => {
    const home = await testDaemonHome();
    const daemon = await home.start();
    await daemon.succeed('image-import', { name: 'small', path: images.smallDisk });
    for (const name of ['lan', 'dmz']) await daemon.succeed('network-create', { name, kind: 'isolated' });
    await daemon.succeed('guest-create', linuxGuest);
    using console = await startAndLogIn(daemon);
    expect(await blockDevices(console)).toBe('vda');

    await daemon.succeed('guest-disk-attach', { guest: 'ada', name: 'data', sizeBytes: 16 * MEBIBYTE });
    await daemon.succeed('guest-disk-attach', {
      guest: 'ada',
      name: 'copy',
      image: 'small',
      sizeBytes: 1024 * MEBIBYTE,
    });
    await awaitInGuest(console, '[ -b /dev/vdc ]');
    const { disks } = await daemon.guest('ada');
    expect(disks.map(({ name }) => name)).toEqual(['disk0', 'data', 'copy']);
    expect(await say(console, 'cat /sys/block/vdb/serial; echo')).toBe(disks[1]?.serial);
    expect(await say(console, 'cat /sys/block/vdb/size')).toBe('32768');
    // The further disk on the same image begins with the same boot sector.
    await say(console, 'cmp -n 440 /dev/vda /dev/vdc');
    await say(console, 'echo kept on a plugged disk | dd of=/dev/vdb conv=fsync 2>/dev/null');
    await daemon.succeed('guest-disk-resize', { guest: 'ada', disk: 'data', sizeBytes: 32 * MEBIBYTE });
    await awaitInGuest(console, '[ $(cat /sys/block/vdb/size) = 65536 ]');

    await daemon.succeed('guest-nic-attach', { guest: 'ada', network: 'dmz' });
    await awaitInGuest(console, '[ -e /sys/class/net/eth1 ]');
    const nic = (await daemon.guest('ada')).nics[1];
    expect(nic).toMatchObject({ name: 'nic1', network: 'dmz' });
    expect(await say(console, 'cat /sys/class/net/eth1/address')).toBe(nic?.mac);
    await say(console, 'ip link set eth1 up && udhcpc -n -q -f -i eth1 -s /etc/udhcpc/default.script');
    expect(await say(console, 'ip -4 -o address show eth1')).toContain(`inet ${nic?.ipv4}/`);
    const { networks } = await daemon.client.call('query-networks', { names: ['dmz'] });
    await say(console, `ping -c 1 -W 10 ${networks[0]?.gateway}`);
    const places = {
      data: await pciAddress(console, '/sys/block/vdb'),
      copy: await pciAddress(console, '/sys/block/vdc'),
      nic1: await pciAddress(console, '/sys/class/net/eth1'),
    };
    expect(places.data).toMatch(/^0000:/);

    // The one between goes; the others stay where they are.
    await daemon.succeed('guest-disk-detach', { guest: 'ada', disk: 'data' });
    expect(await blockDevices(console)).toBe('vda vdc');
    expect(await pciAddress(console, '/sys/block/vdc')).toBe(places.copy);
    await daemon.succeed('guest-disk-attach', { guest: 'ada', name: 'data' });
    await awaitInGuest(console, '[ -b /dev/vdb ]');
    expect(await pciAddress(console, '/sys/block/vdb')).toBe(places.data);
    expect(await say(console, 'head -n 1 /dev/vdb')).toBe('kept on a plugged disk');
    expect((await daemon.guest('ada')).disks.find(({ name }) => name === 'data')?.serial).toBe(
      disks[1]?.serial,
    );

    await daemon.succeed('guest-stop', { guest: 'ada' });
    using again = await startAndLogIn(daemon);
    const serialOf = async (disk: string): Promise<string> =>
      await say(again, `cat /sys/block/${disk}/serial; echo`);
    const addresses: Record<string, string> = {};
    for (const disk of ['vdb', 'vdc'])
      addresses[await serialOf(disk)] = await pciAddress(again, `/sys/block/${disk}`);
    const serials = new Map((await daemon.guest('ada')).disks.map(({ name, serial }) => [name, serial]));
    expect(addresses[serials.get('data') ?? '']).toBe(places.data);
    expect(addresses[serials.get('copy') ?? '']).toBe(places.copy);
    expect(await pciAddress(again, '/sys/class/net/eth1')).toBe(places.nic1);

    await daemon.succeed('guest-nic-detach', { guest: 'ada', nic: 'nic0' });
    expect(await say(again, 'echo $(cd /sys/class/net && echo eth*)')).toBe('eth1');
    await daemon.succeed('guest-disk-detach', { guest: 'ada', disk: 'copy', delete: true });
    expect((await daemon.guest('ada')).keptDisks).toEqual([]);
    await daemon.succeed('guest-stop', { guest: 'ada' });
    await daemon.succeed('guest-delete', { guest: 'ada' });
    for (const network of ['lan', 'dmz']) await daemon.succeed('network-delete', { network });
    await daemon.succeed('image-delete', { image: 'small' });
    await daemon.stop();
    expect(await home.compare()).toEqual({ ledger: [], host: [] });
  });

  it('come and go on pc as well, each in its slot', { timeout }, async () => {
    const home = await testDaemonHome();
    const daemon = await home.start();
    await daemon.succeed('image-import', { name: 'small', path: images.smallDisk });
    await daemon.succeed('network-create', { name: 'lan', kind: 'isolated' });
    await daemon.succeed('guest-create', { ...linuxGuest, machine: 'pc' });
    using console = await startAndLogIn(daemon);
    await daemon.succeed('guest-disk-attach', { guest: 'ada', name: 'data', sizeBytes: 16 * MEBIBYTE });
    await daemon.succeed('guest-nic-attach', { guest: 'ada', network: 'lan' });
    await awaitInGuest(console, '[ -b /dev/vdb ]');
    await awaitInGuest(console, '[ -e /sys/class/net/eth1 ]');
    expect(await pciAddress(console, '/sys/block/vdb')).toBe('0000:00:06.0');
    expect(await pciAddress(console, '/sys/class/net/eth1')).toBe('0000:00:07.0');
    await say(console, 'echo kept | dd of=/dev/vdb conv=fsync 2>/dev/null');

    await daemon.succeed('guest-disk-detach', { guest: 'ada', disk: 'data' });
    expect(await blockDevices(console)).toBe('vda');
    await daemon.succeed('guest-disk-attach', { guest: 'ada', name: 'data' });
    await awaitInGuest(console, '[ -b /dev/vdb ]');
    expect(await pciAddress(console, '/sys/block/vdb')).toBe('0000:00:06.0');
    expect(await say(console, 'head -n 1 /dev/vdb')).toBe('kept');
    await daemon.succeed('guest-nic-detach', { guest: 'ada', nic: 'nic0' });
    expect(await say(console, 'echo $(cd /sys/class/net && echo eth*)')).toBe('eth1');
    await daemon.succeed('guest-delete', { guest: 'ada', force: true });
    await daemon.stop();
  });
});

describeWith(['qemu', 'qemu-img'], 'devices of a guest without a system', () => {
  it('stay attached when it does not let go in time, or when it is stopped meanwhile', async () => {
    const home = await testDaemonHome();
    const daemon = await home.start();
    await importBootSector(daemon, 'idle');
    await daemon.succeed('guest-create', { ...tinyGuest('deaf', 'idle'), start: true });
    await daemon.succeed('guest-disk-attach', { guest: 'deaf', name: 'data', sizeBytes: MEBIBYTE });
    const late = await daemon.change('guest-disk-detach', { guest: 'deaf', disk: 'data', timeoutMs: 1 });
    expect(late).toMatchObject({ state: 'failed', error: { class: 'DeadlineExceeded' } });
    expect((await daemon.guest('deaf')).disks.map(({ name }) => name)).toEqual(['disk0', 'data']);

    const waiting = await daemon.client.call('guest-disk-detach', { guest: 'deaf', disk: 'data' });
    await daemon.succeed('guest-stop', { guest: 'deaf', force: true });
    const cut = await daemon.client.call('operation-wait', { operation: waiting.operation });
    expect(['cancelled', 'failed']).toContain(cut.state);
    expect((await daemon.guest('deaf')).disks.map(({ name }) => name)).toEqual(['disk0', 'data']);

    await daemon.succeed('guest-disk-resize', { guest: 'deaf', disk: 'data', sizeBytes: 2 * MEBIBYTE });
    const shrunk = daemon.client.call('guest-disk-resize', {
      guest: 'deaf',
      disk: 'data',
      sizeBytes: MEBIBYTE,
    });
    await expect(shrunk).rejects.toMatchObject({ wire: { class: 'InvalidArgument' } });
    await daemon.succeed('guest-disk-detach', { guest: 'deaf', disk: 'data' });
    const last = daemon.client.call('guest-disk-detach', { guest: 'deaf', disk: 'disk0' });
    await expect(last).rejects.toMatchObject({ wire: { class: 'FailedPrecondition' } });
    await daemon.succeed('guest-start', { guest: 'deaf' });
    await daemon.succeed('guest-disk-attach', { guest: 'deaf', name: 'data' });
    expect((await daemon.guest('deaf')).disks[1]).toMatchObject({ name: 'data', sizeBytes: 2 * MEBIBYTE });
    await daemon.succeed('guest-delete', { guest: 'deaf', force: true });
    await daemon.stop();
  });

  it('come to a microvm only while it is stopped', async () => {
    const home = await testDaemonHome();
    const daemon = await home.start();
    await importBootSector(daemon, 'idle');
    await daemon.succeed('guest-create', {
      ...tinyGuest('small', 'idle', { machine: 'microvm' }),
      start: true,
    });
    const disk = { guest: 'small', name: 'data', sizeBytes: MEBIBYTE };
    await expect(daemon.client.call('guest-disk-attach', disk)).rejects.toMatchObject({
      wire: { class: 'Unsupported' },
    });
    await daemon.succeed('guest-stop', { guest: 'small', force: true });
    await daemon.succeed('guest-disk-attach', disk);
    await daemon.succeed('guest-start', { guest: 'small' });
    await daemon.succeed('guest-delete', { guest: 'small', force: true });
    await daemon.stop();
  });
});

describeWith(['qemu', 'qemu-img'], 'a CD-ROM drive', () => {
  it.each(['q35', 'pc'])(
    'of %s boots an installer while the disk is empty, and changes its medium',
    async (machine) => {
      const home = await testDaemonHome();
      const daemon = await home.start();
      const path = join(home.stateDirectory, 'installer.iso');
      await writeFile(path, bootSectorIso('idle'));
      await daemon.succeed('image-import', { name: 'installer', kind: 'iso', path });
      await daemon.succeed('guest-create', {
        ...tinyGuest('fresh', 'idle', {
          machine,
          disks: [{ sizeBytes: MEBIBYTE }],
          cdroms: [{}, { name: 'install', image: 'installer' }],
        }),
        start: true,
      });
      using console = await openGuestConsole(daemon, 'fresh');
      await console.seen('ROOST-BOOT-SECTOR');
      const inUse = daemon.client.call('image-delete', { image: 'installer' });
      await expect(inUse).rejects.toMatchObject({ wire: { class: 'FailedPrecondition' } });
      // The other drive boots as well once the medium is there.
      await daemon.succeed('guest-cdrom-eject', { guest: 'fresh', cdrom: 'install' });
      await daemon.succeed('guest-cdrom-insert', { guest: 'fresh', image: 'installer' });
      expect((await daemon.guest('fresh')).cdroms.map(({ image }) => image !== undefined)).toEqual([
        true,
        false,
      ]);
      await daemon.succeed('guest-reset', { guest: 'fresh' });
      await console.seen('ROOST-BOOT-SECTOR');
      await daemon.succeed('guest-cdrom-eject', { guest: 'fresh' });
      await daemon.succeed('image-delete', { image: 'installer' });
      await daemon.succeed('guest-delete', { guest: 'fresh', force: true });
      await daemon.stop();
    },
  );
});
