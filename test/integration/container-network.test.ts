/** Containers beside machines on one network: they find each other, and neither passes for another. */
import { beforeAll, expect, it } from 'vitest';
import { MEBIBYTE } from '../../protocol/types.ts';
import type { SmallImage } from '../../tools/small-image/build-small-image.ts';
import { guestImages, guestImagesTimeoutMs } from '../guests/guest-images.ts';
import {
  agentUp,
  beginWithBusybox,
  type ContainerHome,
  container,
  execIn,
  shellIn,
  startContainer,
} from '../harness/containers.ts';
import { type GuestConsole, logIn, openGuestConsole, runInGuest } from '../harness/guest-console.ts';
import { leaveNothing } from '../harness/leave-nothing.ts';
import { describeWith } from '../harness/needs.ts';
import type { RealDaemon } from '../harness/real-daemon.ts';

const timeout = 240_000;
const FORGED_MAC = '52:54:00:66:66:66';

/** What a line says in a machine's shell; it has to succeed. */
const say = async (console: GuestConsole, line: string): Promise<string> => {
  const { output, status } = await runInGuest(console, line);
  expect({ output, status }).toEqual({ output, status: 0 });
  return output;
};

/** Asks its network for what it is to know of it, as a system that boots does. */
const DHCP = 'udhcpc -i eth0 -n -q -t 10 -s /etc/udhcpc/default.script >/dev/null 2>&1';

const droppedFrames = async (daemon: RealDaemon, guest: string): Promise<Record<string, number>> =>
  (await daemon.client.call('query-guest-addresses', { guest })).nics[0]?.droppedFrames ?? {};

/** Echo requests that a guest's own kernel has seen (/proc/net/snmp, InEchos). */
const ECHOES_SEEN = `awk '/^Icmp: [0-9]/ {print "echoes=" $10}' /proc/net/snmp`;
const countIn = (said: string): number => Number(/echoes=(\d+)/.exec(said)?.[1]);

/** A machine `vm` that is logged in to, and a container `box`, on a network `lan`. */
const begin = async (images: SmallImage): Promise<ContainerHome & { readonly atVm: GuestConsole }> => {
  const at = await beginWithBusybox();
  const { daemon } = at;
  await daemon.succeed('image-import', { name: 'small', path: images.smallDisk });
  await daemon.succeed('network-create', { name: 'lan', kind: 'nat' });
  const nics = [{ network: 'lan' }];
  await daemon.succeed('guest-create', {
    name: 'vm',
    memoryBytes: 192 * MEBIBYTE,
    disks: [{ image: 'small' }],
    nics,
    qemu: { accel: 'tcg' },
  });
  await daemon.succeed('guest-start', { guest: 'vm', paused: true });
  const atVm = await openGuestConsole(daemon, 'vm', { replayBytes: 0 });
  await daemon.succeed('guest-resume', { guest: 'vm' });
  await startContainer(at, 'box', { nics });
  await shellIn(at, 'box')(DHCP);
  await logIn(atVm);
  return { ...at, atVm };
};

const nicOf = async (
  daemon: RealDaemon,
  guest: string,
): Promise<{ readonly mac: string; readonly ipv4: string }> => {
  const [nic] = (await daemon.guest(guest)).nics;
  return { mac: nic?.mac ?? 'none', ipv4: nic?.ipv4 ?? 'none' };
};

describeWith(
  ['root', 'lxc', 'sqfstar', 'qemu', 'qemu-img', 'nft', 'ip', 'dnsmasq', 'tun'],
  'a container and a machine on one network',
  () => {
    let images: SmallImage;
    beforeAll(async () => {
      images = await guestImages();
    }, guestImagesTimeoutMs);

    it('reach each other by name, and keep their addresses', { timeout }, async () => {
      const { atVm: console, ...at } = await begin(images);
      using atVm = console;
      const { daemon } = at;
      const [vm, box] = [await nicOf(daemon, 'vm'), await nicOf(daemon, 'box')];
      expect(vm.ipv4).not.toBe(box.ipv4);
      const shell = shellIn(at, 'box');
      expect(await shell('ping -c 1 -W 10 vm')).toContain(`(${vm.ipv4})`);
      expect(await shell('nslookup vm.lan')).toContain(vm.ipv4);
      expect(await say(atVm, 'ping -c 1 -W 10 box')).toContain(`(${box.ipv4})`);
      expect(await say(atVm, 'nslookup box.lan')).toContain(box.ipv4);
      expect(await shell('ip -4 -o address show eth0; ip route; cat /sys/class/net/eth0/address')).toMatch(
        new RegExp(`inet ${box.ipv4}/24[^]*default via [0-9.]+ dev eth0[^]*${box.mac}`),
      );
      // Whole streams too, in both directions: what leaves by a veth has no checksum yet.
      const serve =
        'mkdir -p /tmp/served && head -c 3000000 /dev/zero >/tmp/served/zeros && httpd -p 99 -h /tmp/served';
      await shell(serve);
      expect(await say(atVm, 'wget -q -O - http://box:99/zeros | wc -c')).toMatch(/^3000000\r$/m);
      await say(atVm, serve);
      expect(await shell('wget -q -O - http://vm:99/zeros | wc -c')).toBe('3000000');
      expect([await droppedFrames(daemon, 'vm'), await droppedFrames(daemon, 'box')]).toEqual([{}, {}]);

      await daemon.succeed('guest-stop', { guest: 'box' });
      await daemon.succeed('guest-start', { guest: 'box' });
      await agentUp(daemon, 'box');
      expect(await nicOf(daemon, 'box')).toEqual(box);
      await say(atVm, 'ping -c 1 -W 10 box.lan');
      await leaveNothing(at);
    });

    it('pass nobody off as another by MAC, IPv4 or ARP, either way, and are counted', {
      timeout,
    }, async () => {
      const { atVm: console, ...at } = await begin(images);
      using atVm = console;
      const { daemon } = at;
      const [vm, box] = [await nicOf(daemon, 'vm'), await nicOf(daemon, 'box')];
      const shell = shellIn(at, 'box');
      const claimed = vm.ipv4.replace(/\.\d+$/, '.200');
      const sides = [
        { name: 'box', other: vm, own: box, run: shell, seen: () => say(atVm, ECHOES_SEEN) },
        {
          name: 'vm',
          other: box,
          own: vm,
          run: (line: string) => say(atVm, line),
          seen: () => shell(ECHOES_SEEN),
        },
      ];
      for (const { name, other, own, run, seen } of sides) {
        // So that a forged packet needs no ARP, which would be a forged one too.
        const known = `arp -i eth0 -s ${other.ipv4} ${other.mac}`;
        const wear = (mac: string): string =>
          `ip link set eth0 down && ip link set eth0 address ${mac} && ip link set eth0 up && ${known}`;
        await run(`ping -c 1 -W 10 ${other.ipv4} >/dev/null`);
        const before = countIn(await seen());
        expect(await droppedFrames(daemon, name)).toEqual({});

        await run(`ip address add ${claimed}/24 dev eth0 && ${known}`);
        await run(`! ping -c 1 -W 1 -I ${claimed} ${other.ipv4} >/dev/null`);
        expect(await droppedFrames(daemon, name)).toEqual({ forged_ipv4: 1 });
        await run(`! arping -c 1 -w 1 -I eth0 -s ${claimed} ${other.ipv4} >/dev/null`);
        expect(await droppedFrames(daemon, name)).toEqual({ forged_ipv4: 1, forged_arp: 1 });
        await run(`ip address del ${claimed}/24 dev eth0`);

        await run(wear(FORGED_MAC));
        await run(`! ping -c 1 -W 1 ${other.ipv4} >/dev/null`);
        expect((await droppedFrames(daemon, name))['forged_mac']).toBeGreaterThan(0);
        await run(wear(own.mac));

        // What is sent later arrives alone: of the rest nothing did.
        await run(`ping -c 1 -W 10 ${other.ipv4} >/dev/null`);
        expect(countIn(await seen())).toBe(before + 1);
      }
      const neighbours = (await shell('cat /proc/net/arp')) + (await say(atVm, 'cat /proc/net/arp'));
      expect(neighbours).not.toContain(FORGED_MAC);
      expect(neighbours).not.toContain(claimed);
      await leaveNothing(at);
    });
  },
);

describeWith(['root', 'lxc', 'sqfstar', 'nft', 'ip', 'dnsmasq'], 'a container', () => {
  it('with several NICs has each on its network, and one without any has no network at all', async () => {
    const at = await beginWithBusybox();
    const { daemon } = at;
    for (const name of ['lan', 'other']) await daemon.succeed('network-create', { name, kind: 'nat' });
    await startContainer(at, 'two', { nics: [{ network: 'lan' }, { network: 'other' }] });
    await startContainer(at, 'none');
    const { nics } = await daemon.guest('two');
    const told = await shellIn(at, 'two')('ip -o -4 address');
    expect(told).toContain(`eth0    inet ${nics[0]?.ipv4}/`);
    expect(told).toContain(`eth1    inet ${nics[1]?.ipv4}/`);
    // One way out: that of the first.
    expect(await shellIn(at, 'two')('ip route | grep default')).toMatch(
      /^default via [0-9.]+ dev eth0[^\n]*$/,
    );
    expect(await shellIn(at, 'none')('ip -o link | grep -v " lo:" || echo nothing')).toBe('nothing');
    expect((await execIn(at, 'none')('ping', '-c', '1', '-W', '1', nics[0]?.ipv4 ?? '')).code).not.toBe(0);
    await leaveNothing(at);
  });

  it('is refused a network that gives it no link, and a device while it runs, before anything is made', async () => {
    const at = await beginWithBusybox();
    const { daemon } = at;
    await daemon.succeed('network-create', { name: 'out', kind: 'user' });
    await expect(
      daemon.succeed('guest-create', { ...container('one', { nics: [{ network: 'out' }] }), start: true }),
    ).rejects.toThrow('network out cannot have');
    await daemon.succeed('network-create', { name: 'lan' });
    await startContainer(at, 'two');
    await expect(daemon.succeed('guest-nic-attach', { guest: 'two', network: 'lan' })).rejects.toThrow(
      'takes and gives no device while it runs',
    );
    await daemon.succeed('guest-stop', { guest: 'two' });
    await daemon.succeed('guest-nic-attach', { guest: 'two', network: 'lan' });
    await daemon.succeed('guest-start', { guest: 'two' });
    await agentUp(daemon, 'two');
    expect(await shellIn(at, 'two')('cat /sys/class/net/eth0/address')).toBe(
      (await nicOf(daemon, 'two')).mac,
    );
    await leaveNothing(at);
  });
});
