/** Linux in guests of a real daemon: booted from its own disk and by a kernel of ours, on every machine, on a network. */
import { beforeAll, expect, it } from 'vitest';
import type { GuestSpecInput } from '../../protocol/guest.ts';
import { MEBIBYTE } from '../../protocol/types.ts';
import type { SmallImage } from '../../tools/small-image/build-small-image.ts';
import { guestImages, guestImagesTimeoutMs } from '../guests/guest-images.ts';
import { type GuestConsole, logIn, openGuestConsole, runInGuest } from '../harness/guest-console.ts';
import { describeWith } from '../harness/needs.ts';
import { type RealDaemon, testDaemonHome } from '../harness/real-daemon.ts';
import { importBootSector, tinyGuest } from '../harness/tiny-guests.ts';

const timeout = 240_000;
let images: SmallImage;

const linuxGuest = (name: string): GuestSpecInput => ({
  name,
  memoryBytes: 192 * MEBIBYTE,
  disks: [{ image: 'small' }],
  nics: [{ network: 'lan' }],
  qemu: { accel: 'tcg' },
});

/** Starts a guest and logs in; nothing of its console is missed, and nothing of an earlier run is seen. */
const startAndLogIn = async (daemon: RealDaemon, guest: string): Promise<GuestConsole> => {
  await daemon.succeed('guest-start', { guest, paused: true });
  const console = await openGuestConsole(daemon, guest, { replayBytes: 0 });
  await daemon.succeed('guest-resume', { guest });
  await logIn(console);
  return console;
};

/** What a line says in a guest's shell; it has to succeed. */
const say = async (console: GuestConsole, line: string): Promise<string> => {
  const { output, status } = await runInGuest(console, line);
  expect({ output, status }).toEqual({ output, status: 0 });
  return output;
};

const stopByButton = async (daemon: RealDaemon, guest: string): Promise<void> => {
  await daemon.succeed('guest-stop', { guest });
  expect(await daemon.guest(guest)).toMatchObject({
    state: 'stopped',
    lastExit: { cause: 'guest-shutdown' },
  });
};

/** Echo requests that a guest's own kernel has seen (/proc/net/snmp, InEchos). */
const echoesSeen = async (console: GuestConsole): Promise<number> => {
  const said = await say(console, `awk '/^Icmp: [0-9]/ {print "echoes=" $10}' /proc/net/snmp`);
  return Number(/echoes=(\d+)/.exec(said)?.[1]);
};

const droppedFrames = async (daemon: RealDaemon, guest: string): Promise<Record<string, number>> =>
  (await daemon.client.call('query-guest-addresses', { guest })).nics[0]?.droppedFrames ?? {};

describeWith(['root', 'qemu', 'qemu-img', 'nft', 'ip', 'dnsmasq', 'tun'], 'Linux in a guest', () => {
  beforeAll(async () => {
    images = await guestImages();
  }, guestImagesTimeoutMs);

  it('finds its address and its neighbour by name, and keeps its disk over a stop', { timeout }, async () => {
    const home = await testDaemonHome();
    const daemon = await home.start();
    await daemon.succeed('image-import', { name: 'small', path: images.smallDisk });
    await daemon.succeed('network-create', { name: 'lan', kind: 'nat' });
    for (const name of ['ada', 'bob']) await daemon.succeed('guest-create', linuxGuest(name));
    await importBootSector(daemon, 'idle');
    await daemon.succeed('guest-create', {
      ...tinyGuest('deaf', 'idle', { nics: [{ network: 'lan' }] }),
      start: true,
    });
    const consoles = await Promise.all(['ada', 'bob'].map((guest) => startAndLogIn(daemon, guest)));
    using atAda = consoles[0] as GuestConsole;
    using atBob = consoles[1] as GuestConsole;
    const { networks } = await daemon.client.call('query-networks', { names: ['lan'] });
    const adasNics = (await daemon.guest('ada')).nics;
    const [adasAddress, bobsAddress] = await Promise.all(
      ['ada', 'bob'].map(async (guest) => (await daemon.guest(guest)).nics[0]?.ipv4 ?? 'none'),
    );
    expect(adasAddress).not.toBe(bobsAddress);

    expect(await say(atAda, 'hostname')).toMatch(/^ada\r$/m);
    expect(await say(atAda, 'cat /sys/class/net/eth0/address')).toContain(adasNics[0]?.mac);
    expect(await say(atAda, 'ip -4 -o address show eth0')).toContain(`inet ${adasAddress}/`);
    expect(await say(atBob, 'ip -4 -o address show eth0')).toContain(`inet ${bobsAddress}/`);
    await say(atAda, `ping -c 1 -W 10 ${networks[0]?.gateway}`);
    expect(await say(atAda, 'nslookup bob.lan')).toContain(bobsAddress);
    // Once by the name alone, which the network's own domain completes, and once in full.
    await say(atAda, 'ping -c 1 -W 10 bob');
    expect(await say(atAda, 'ping -c 1 -W 10 bob.lan')).toContain(`(${bobsAddress})`);

    for (const [guest, address] of [
      ['ada', adasAddress],
      ['bob', bobsAddress],
    ] as const)
      expect((await daemon.client.call('guest-wait', { guest })).ready).toMatchObject({
        kind: 'lease',
        address,
      });
    // Asked at its address for all that time, a guest without a system has proven nothing.
    await expect(daemon.client.call('guest-wait', { guest: 'deaf', timeoutMs: 1 })).rejects.toMatchObject({
      wire: { class: 'DeadlineExceeded' },
    });
    await daemon.succeed('guest-delete', { guest: 'deaf', force: true });
    await daemon.succeed('image-delete', { image: 'idle' });

    await say(atAda, 'echo kept over a stop >/root/note && sync');
    await stopByButton(daemon, 'ada');
    await daemon.succeed('guest-rename', { guest: 'ada', newName: 'eve' });
    using atEve = await startAndLogIn(daemon, 'eve');
    expect(await say(atEve, 'cat /root/note')).toMatch(/^kept over a stop\r$/m);
    expect((await daemon.guest('eve')).nics).toEqual(adasNics);
    expect(await say(atBob, 'nslookup eve.lan')).toContain(adasAddress);
    expect((await runInGuest(atBob, 'nslookup ada.lan')).output).toContain('NXDOMAIN');

    await stopByButton(daemon, 'eve');
    // What a guest has proven holds until its machine begins anew.
    expect((await daemon.guest('bob')).ready).toBeDefined();
    await daemon.succeed('guest-reset', { guest: 'bob' });
    await daemon.guestWhen('bob', ({ ready }) => ready === undefined);
    await daemon.succeed('guest-stop', { guest: 'bob', force: true });
    for (const guest of ['eve', 'bob']) await daemon.succeed('guest-delete', { guest });
    await daemon.succeed('network-delete', { network: 'lan' });
    await daemon.succeed('image-delete', { image: 'small' });
    await daemon.stop();
    expect(await home.compare()).toEqual({ ledger: [], host: [] });
  });

  it('reaches nobody under a MAC or IPv4 address that is not its own, and is counted', {
    timeout,
  }, async () => {
    const home = await testDaemonHome();
    const daemon = await home.start();
    await daemon.succeed('image-import', { name: 'small', path: images.smallDisk });
    await daemon.succeed('network-create', { name: 'lan', kind: 'nat' });
    for (const name of ['mallory', 'bob']) await daemon.succeed('guest-create', linuxGuest(name));
    const consoles = await Promise.all(['mallory', 'bob'].map((guest) => startAndLogIn(daemon, guest)));
    using atMallory = consoles[0] as GuestConsole;
    using atBob = consoles[1] as GuestConsole;
    const [mallorysNic, bobsNic] = await Promise.all(
      ['mallory', 'bob'].map(async (guest) => (await daemon.guest(guest)).nics[0]),
    );
    const bob = bobsNic?.ipv4 ?? 'none';
    const claimed = bob.replace(/\.\d+$/, '.200');
    // So that the forged packet needs no ARP, which would be a forged one too.
    const knowBob = `arp -i eth0 -s ${bob} ${bobsNic?.mac}`;
    await say(atMallory, `ping -c 1 -W 10 ${bob}`);
    const before = await echoesSeen(atBob);
    expect(await droppedFrames(daemon, 'mallory')).toEqual({});

    await say(atMallory, `ip address add ${claimed}/24 dev eth0 && ${knowBob}`);
    await say(atMallory, `! ping -c 1 -W 1 -I ${claimed} ${bob}`);
    expect(await droppedFrames(daemon, 'mallory')).toEqual({ forged_ipv4: 1 });
    await say(atMallory, `! arping -c 1 -w 1 -I eth0 -s ${claimed} ${bob}`);
    expect(await droppedFrames(daemon, 'mallory')).toEqual({ forged_ipv4: 1, forged_arp: 1 });
    await say(atMallory, `ip address del ${claimed}/24 dev eth0`);

    const wear = (mac: string | undefined): string =>
      `ip link set eth0 down && ip link set eth0 address ${mac} && ip link set eth0 up && ${knowBob}`;
    await say(atMallory, wear('52:54:00:66:66:66'));
    await say(atMallory, `! ping -c 1 -W 1 ${bob}`);
    expect((await droppedFrames(daemon, 'mallory'))['forged_mac']).toBeGreaterThan(0);
    await say(atMallory, wear(mallorysNic?.mac));

    // What is sent later arrives alone: of the rest nothing did.
    await say(atMallory, `ping -c 1 -W 10 ${bob}`);
    expect(await echoesSeen(atBob)).toBe(before + 1);
    const known = await say(atBob, 'cat /proc/net/arp');
    expect(known).toContain(mallorysNic?.mac);
    expect(known).not.toContain('52:54:00:66:66:66');
    expect(known).not.toContain(claimed);
    expect(await droppedFrames(daemon, 'bob')).toEqual({});

    for (const guest of ['mallory', 'bob']) await daemon.succeed('guest-delete', { guest, force: true });
    await daemon.succeed('network-delete', { network: 'lan' });
    await daemon.stop();
  });

  // A microvm without KVM has nothing to measure the TSC by, so it is told.
  it.each(['q35', 'microvm'])(
    'boots on %s by a kernel and a ramdisk of ours',
    { timeout },
    async (machine) => {
      const home = await testDaemonHome();
      const daemon = await home.start();
      await daemon.succeed('image-import', { name: 'vmlinuz', kind: 'kernel', path: images.vmlinuz });
      await daemon.succeed('image-import', { name: 'tiny', kind: 'initrd', path: images.tinyInitramfs });
      await daemon.succeed('guest-create', {
        name: 'direct',
        machine,
        memoryBytes: 192 * MEBIBYTE,
        boot: {
          kind: 'kernel',
          kernel: 'vmlinuz',
          initrd: 'tiny',
          commandLine: 'console=ttyS0 quiet roost.mark=from-the-spec tsc_early_khz=2000000',
        },
        qemu: { accel: 'tcg' },
        start: true,
      });
      using console = await openGuestConsole(daemon, 'direct');
      await console.seen('ROOST-GUEST-READY');
      await console.seen('tiny# ');
      const { output } = await runInGuest(console, 'grep -o roost.mark=.* /proc/cmdline');
      expect(output).toContain('roost.mark=from-the-spec');
      expect((await daemon.guest('direct')).machine).toContain(machine);
      await stopByButton(daemon, 'direct');
    },
  );

  it('leaves the oldest machine to those who need it: a boot sector on pc', { timeout }, async () => {
    const home = await testDaemonHome();
    const daemon = await home.start();
    await importBootSector(daemon, 'acpi');
    await daemon.succeed('guest-create', { ...tinyGuest('old', 'acpi', { machine: 'pc' }), start: true });
    expect((await daemon.guest('old')).machine).toMatch(/^pc-i440fx-/);
    using console = await openGuestConsole(daemon, 'old');
    await console.seen('ROOST-BOOT-SECTOR');
    await stopByButton(daemon, 'old');
  });
});
