/**
 * Roost as a service of a real host: a Debian guest with systemd, in which the package is installed, upgraded, hurt and
 * purged, while tiny guests and a container of its own run on. Two boots under emulation.
 */
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { buildDeb } from '../../tools/package/build-deb.ts';
import { bootSectorBanner, bootSectorDisk, bootSectorFarewell } from '../guests/boot-sector.ts';
import { debianBootTimeoutMs, debianHostImage, debianImageTimeoutMs } from '../guests/debian-image.ts';
import { describeWith } from '../harness/needs.ts';
import { testDaemonHome } from '../harness/real-daemon.ts';
import { makeDirectory } from '../harness/test-directory.ts';
import {
  CONTAINERS_LEFT,
  containerLivesOn,
  containerPid,
  killContainer,
  makeContainer,
  useContainer,
} from './containers-on-host.ts';
import { type Host, makeHost } from './debian-host.ts';

const { signal } = new AbortController();

let image: string;
let directory: string;
/** The package, one with a higher version, and one that knows no layout of today. */
let packages: { readonly first: string; readonly next: string; readonly older: string };

/** What an instance has on its host besides files. */
const LEFT = `${CONTAINERS_LEFT}; pidof qemu-system-x86_64 dnsmasq || true; ip -o link | grep -o "r[btv][a-z0-9]*:" || true; nft list tables`;

const GUEST = 'roost show NAME --json | python3 -c "import json,sys; print(json.load(sys.stdin)';
const stateOf = (name: string): string => `${GUEST.replace('NAME', name)}['state'])"`;
const pidOf = (name: string): string => `${GUEST.replace('NAME', name)}['process']['pid'])"`;
const idOf = (name: string): string => `${GUEST.replace('NAME', name)}['id'])"`;

/** A disk and a NIC that come while the guest runs, under the hardened unit. */
const plug = (guest: string): string =>
  `roost disk attach ${guest} --size 8MiB && roost nic attach ${guest} inner`;

/** How soon a daemon that stands still is taken for stuck; the unit's own time unless given. */
const HANG_SECONDS = 20;
const watchdogOf = (seconds: number | undefined): string =>
  [
    'cd /run/systemd/system && mkdir -p roostd.service.d',
    seconds === undefined
      ? 'rm roostd.service.d/hang.conf'
      : `printf '[Service]\\nWatchdogSec=${seconds}\\nTimeoutAbortSec=2\\n' > roostd.service.d/hang.conf`,
    'systemctl daemon-reload',
    'systemctl restart roostd',
  ].join(' && ');

const install = async (host: Host, path: string): Promise<string> => {
  await host.put(path);
  const name = path.split('/').at(-1) ?? '';
  // What dpkg says goes with its failure.
  return await host.run(
    `DEBIAN_FRONTEND=noninteractive dpkg --install /tmp/${name} 2>&1 && rm /tmp/${name} || { rm /tmp/${name}; echo failed; }`,
  );
};

/** A guest of this kind says so itself when it was asked to power off and did. */
const makeGuests = async (host: Host): Promise<void> => {
  const scratch = await makeDirectory('boot-sector');
  const path = join(scratch, 'acpi.raw');
  await writeFile(path, bootSectorDisk('acpi'));
  await host.put(path);
  await rm(scratch, { recursive: true });
  await host.run(
    'roost image import acpi --format raw /tmp/acpi.raw && roost network create inner --subnet 10.77.0.0/24',
  );
  const spec = '--image acpi --network inner --memory 32MiB --stop-timeout 2m';
  await host.run(`roost create lives ${spec} --autostart --start && roost create dies ${spec} --start`);
};

const livesOn = async (host: Host, pid: string): Promise<void> => {
  expect(await host.run(`${stateOf('lives')}; ${pidOf('lives')}`)).toBe(`running\n${pid}\n`);
};

describeWith(
  ['root', 'qemu', 'qemu-img', 'nft', 'ip', 'dnsmasq', 'tun', 'mmdebstrap', 'ssh', 'dpkg-deb'],
  'Roost as a service',
  () => {
    beforeAll(async () => {
      image = await debianHostImage();
      directory = await makeDirectory('packages');
      packages = {
        first: await buildDeb({ directory, signal }),
        next: await buildDeb({ directory, version: '0.1.0+next', signal }),
        older: await buildDeb({ directory, version: '0.0.1', layout: 1, signal }),
      };
    }, 2 * debianImageTimeoutMs);
    afterAll(async () => {
      await rm(directory, { recursive: true, force: true });
    });

    it('is installed, upgraded, killed and purged, and its guests live as long as they should', {
      timeout: 4 * debianBootTimeoutMs,
    }, async () => {
      const home = await testDaemonHome();
      const daemon = await home.start();
      const host = await makeHost(home, daemon, image);

      await install(host, packages.first);
      expect(await host.run('systemctl is-active roostd.service roostd.socket roost-guests.service')).toBe(
        'active\nactive\nactive\n',
      );
      expect(await host.run('stat -c "%a %U %G" /run/roost/roost.sock')).toBe('660 root roost\n');
      await makeGuests(host);
      const pid = (await host.run(pidOf('lives'))).trim();
      const scope = `roost-$(roost daemon --json | grep -o '"instance": *"[a-z0-9]*"' | cut -d '"' -f 4)-$(${idOf('NAME')}).scope`;
      const groupOf = (name: string): string => scope.replace('NAME', name);
      expect(await host.run(`cat /proc/${pid}/cgroup; echo ${groupOf('lives')}`)).toMatch(
        /^0::\/roost\.slice\/(roost-[a-z0-9]{5}-[0-9a-f-]{36}\.scope)\n\1\n$/,
      );
      await host.run(plug('lives'));
      await makeContainer(host);
      await useContainer(host);
      const cage = await containerPid(host);
      expect(await host.run('resolvectl query --legend=no lives.inner')).toContain('10.77.0.');

      // Restarted: the same process, in the same scope, with a new daemon that can plug.
      const daemonPid = 'systemctl show --property=MainPID --value roostd';
      const before = await host.run(daemonPid);
      await host.run('systemctl restart roostd');
      expect(await host.run(daemonPid)).not.toBe(before);
      await livesOn(host, pid);
      await containerLivesOn(host, cage);
      await host.run(plug('lives'));

      // Killed: systemd starts it again; clients wait at the socket meanwhile.
      await host.run(`kill -9 $(${daemonPid}); roost wait --until running lives`);
      expect(await host.run('systemctl show --property=NRestarts --value roostd')).toBe('1\n');
      await livesOn(host, pid);

      // It stands still: the watchdog ends it, and the next one takes the guest over.
      await host.run(watchdogOf(HANG_SECONDS));
      await host.run(`kill -STOP $(${daemonPid}); roost wait --until running lives`);
      expect(await host.run('journalctl --unit roostd --grep "Watchdog timeout" --quiet')).not.toBe('');
      await livesOn(host, pid);
      await host.run(watchdogOf(undefined));
      await livesOn(host, pid);
      await containerLivesOn(host, cage);

      // Upgraded without a blink, and no way back to what could not read the inventory.
      await install(host, packages.next);
      expect(await host.run("dpkg-query --show --showformat='${Version}' roost")).toBe('0.1.0+next');
      await livesOn(host, pid);
      const refusal = await install(host, packages.older);
      expect(refusal).toContain('was written by a newer Roost');
      expect(refusal).toContain('failed');
      expect(await host.run("dpkg-query --show --showformat='${Version} ${Status}' roost")).toBe(
        '0.1.0+next install ok installed',
      );
      await livesOn(host, pid);
      await containerLivesOn(host, cage);
      await killContainer(host);
      await livesOn(host, pid);

      // One is out of memory: it is killed alone.
      await host.run(
        `systemctl set-property --runtime ${groupOf('dies')} MemoryMax=4M MemorySwapMax=0; roost wait --until stopped dies || true`,
      );
      expect(await host.run(stateOf('dies'))).toBe('failed\n');
      expect(await host.run('journalctl --dmesg --grep "out of memory: Killed process"')).toContain('qemu');
      await livesOn(host, pid);
      expect(await host.run('systemctl is-active roostd')).toBe('active\n');
      await host.run('roost start dies');

      // The host boots: the guest was asked, said its last words, and is back.
      const bootId = 'cat /proc/sys/kernel/random/boot_id';
      const boot = await host.run(bootId);
      await host.reboot();
      expect(await host.run(bootId)).not.toBe(boot);
      await host.run('roost wait --until running lives && roost wait cage');
      const runs = (await host.run('roost logs lives')).split(bootSectorBanner.trim());
      expect(runs.length).toBeGreaterThan(2);
      expect(runs.at(-2)?.trim()).toMatch(new RegExp(`${bootSectorFarewell.trim()}\\s*$`));
      expect(await host.run(stateOf('dies'))).toBe('stopped\n');
      const ends = await host.run('roost history lives');
      expect(ends).toContain('policy:host-shutdown');
      expect(ends).toContain('policy:autostart');
      expect(await host.run('roost fsck')).toContain('agree');

      // Stopped, guests run on. Removed, they are shut down and the host is as it was. Purged, what holds data stays
      // unless somebody says yes.
      const pidNow = (await host.run(pidOf('lives'))).trim();
      await host.run('systemctl stop roostd.socket roostd.service');
      expect((await host.run('pidof qemu-system-x86_64')).trim()).toBe(pidNow);
      await host.run('DEBIAN_FRONTEND=noninteractive dpkg --remove roost');
      expect(await host.lines(LEFT)).toEqual([]);
      expect(await host.run('ls /etc/roost /var/lib/roost')).toContain('roostd.yaml');
      await host.run('DEBIAN_FRONTEND=noninteractive dpkg --purge roost 2>&1');
      expect(
        await host.lines('ls --directory /etc/roost /run/roost /var/lib/roost 2>/dev/null || true'),
      ).toEqual(['/var/lib/roost']);
      await host.run('echo roost roost/purge-guests boolean true | debconf-set-selections');
      await install(host, packages.first);
      expect(await host.run('roost ls')).toContain('lives');
      await host.run('DEBIAN_FRONTEND=noninteractive dpkg --purge roost 2>&1');
      expect(
        await host.lines('ls --directory /etc/roost /run/roost /var/lib/roost 2>/dev/null || true'),
      ).toEqual([]);
      expect(await host.lines(LEFT)).toEqual([]);

      await daemon.succeed('guest-delete', { guest: 'host', force: true });
      await daemon.stop();
    });
  },
);
