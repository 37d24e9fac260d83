/** Many forks of one template at once: all come up forked, no two are alike in anything, all go, and nothing is left. */
import { expect, it } from 'vitest';
import type { GuestView } from '../../protocol/guest.ts';
import { MEBIBYTE } from '../../protocol/types.ts';
import { leaveNothing } from '../harness/leave-nothing.ts';
import { provideMicrovmImages, wasForked } from '../harness/microvm-images.ts';
import { describeWith } from '../harness/needs.ts';
import { type DaemonHome, testDaemonHome } from '../harness/real-daemon.ts';
import { runRoost } from '../harness/roost-cli.ts';
import { figure, progress, sized, timeoutMs } from './scale.ts';

/** What a guest says of itself; it has to be what the daemon says of it. Resolves with its first random bytes. */
const identify = async (home: DaemonHome, { name, id, nics }: GuestView): Promise<string> => {
  const clock = '/sys/devices/system/clocksource/clocksource0/current_clocksource';
  const inside = `hostname; cat /etc/machine-id /sys/class/net/eth0/address ${clock}; ip -4 address show eth0`;
  const { stdout } = await runRoost(home, ['exec', name, 'sh', '-c', inside]);
  const [hostname, machineId, mac, clockSource] = stdout.split('\n');
  const [nic] = nics;
  expect({ hostname, machineId, mac, clockSource }).toEqual({
    hostname: name,
    machineId: id.replaceAll('-', ''),
    mac: nic?.mac,
    // One that counts ticks instead is slow, and never at rest: so many of them leave the host no time.
    clockSource: 'tsc',
  });
  expect(stdout).toContain(`inet ${nic?.ipv4 ?? 'none'}/`);
  const [drawn = ''] = (await runRoost(home, ['logs', name])).stdout.split('\n');
  expect(drawn).toMatch(/^[0-9a-f]{32} /);
  return drawn;
};

describeWith(
  ['root', 'qemu', 'qemu-img', 'sqfstar', 'nft', 'ip', 'dnsmasq', 'tun'],
  'forks of one template at once',
  () => {
    const images = provideMicrovmImages();

    it('differ in everything, and leave nothing', { timeout: timeoutMs }, async () => {
      const count = sized({ short: 20, long: 100 });
      const home = await testDaemonHome();
      const daemon = await home.start();
      await images.importInto(daemon);
      await daemon.succeed('network-create', { name: 'lan', kind: 'nat' });
      await daemon.succeed('guest-create', {
        name: 'mother',
        machine: 'microvm',
        memoryBytes: 96 * MEBIBYTE,
        // The first that they do is to draw random bytes.
        program: {
          image: 'box',
          command: ['sh', '-c', 'head -c 16 /dev/urandom | md5sum; exec sleep 100000'],
        },
        nics: [{ network: 'lan' }],
        qemu: { accel: 'tcg' },
      });
      await daemon.succeed('template-create', { guest: 'mother' });

      const begun = performance.now();
      const names = Array.from({ length: count }, (_, index) => `fork${index}`);
      await Promise.all(names.map((name) => daemon.succeed('guest-fork', { template: 'mother', name })));
      const tookMs = performance.now() - begun;
      progress(`${count} forks ready after ${(tookMs / 1000).toFixed(1)} s`);
      figure(`${count} forks at once: ms until all are ready`, Math.round(tookMs));

      const forks = await Promise.all(names.map((name) => daemon.guest(name)));
      const drawn: string[] = [];
      for (const fork of forks) {
        expect(await wasForked(fork)).toBe(true);
        drawn.push(await identify(home, fork));
      }
      const addresses = forks.flatMap(({ nics }) => nics.flatMap(({ mac, ipv4 }) => [mac, ipv4]));
      expect(addresses).toHaveLength(2 * count);
      for (const own of [drawn, addresses]) expect(new Set(own).size).toBe(own.length);
      await leaveNothing({ home, daemon });
    });
  },
);
