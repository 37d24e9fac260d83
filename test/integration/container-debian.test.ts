/** A whole Debian in a container: systemd as its init, networkd and resolved on a network of ours, and its orderly end. */
import { join } from 'node:path';
import { beforeAll, expect, it } from 'vitest';
import { MEBIBYTE } from '../../protocol/types.ts';
import { debianImageTimeoutMs, debianRoot } from '../guests/debian-image.ts';
import {
  beginWithBusybox,
  type ContainerHome,
  execIn,
  initPidOf,
  lxcInfo,
  shellIn,
  startContainer,
  watchEvents,
} from '../harness/containers.ts';
import { leaveNothing } from '../harness/leave-nothing.ts';
import { describeWith } from '../harness/needs.ts';
import { roostProgram, runRoost } from '../harness/roost-cli.ts';
import { Terminal } from '../harness/terminal.ts';

/** Its first boot on a machine that has much else to do. */
const bootTimeoutMs = 240_000;

/** A Debian called `deb` and a small neighbour `box` on one network, when systemd has started all that it starts. */
const begin = async (root: string): Promise<ContainerHome> => {
  const at = await beginWithBusybox();
  const { daemon } = at;
  await daemon.succeed('image-import', { name: 'debian', kind: 'root', path: root });
  await daemon.succeed('network-create', { name: 'lan', kind: 'nat' });
  const nics = [{ network: 'lan' }];
  await startContainer(at, 'box', { nics });
  await startContainer(at, 'deb', { image: 'debian', memoryBytes: 256 * MEBIBYTE, nics });
  return at;
};

/** What systemd says of itself when it has done all that a boot is; it cannot be asked before its bus is there. */
const booted = (at: ContainerHome): Promise<string> =>
  shellIn(
    at,
    'deb',
  )(
    'until said=$(systemctl is-system-running --wait 2>/dev/null) || [ -n "$said" ]; do sleep 0.1; done; echo $said',
  );

describeWith(
  ['root', 'lxc', 'mmdebstrap', 'sqfstar', 'nft', 'ip', 'dnsmasq'],
  'a Debian in a container',
  () => {
    let root: string;
    beforeAll(async () => {
      root = await debianRoot();
    }, debianImageTimeoutMs);

    it('comes up whole, with its services, its journal, and neighbours by name', {
      timeout: bootTimeoutMs,
    }, async () => {
      const at = await begin(root);
      const { daemon, home } = at;
      expect(await booted(at)).toBe('running');
      const shell = shellIn(at, 'deb');
      expect(await shell('systemctl --failed --no-legend')).toBe('');
      expect(await shell('cat /proc/1/comm; hostname; systemd-detect-virt')).toBe('systemd\ndeb\nlxc');

      const [deb, box] = await Promise.all(
        ['deb', 'box'].map(async (name) => (await daemon.guest(name)).nics[0]),
      );
      expect((await lxcInfo(home, (await daemon.guest('deb')).id)).get('IP')).toContain(deb?.ipv4);
      expect(await shell('ip -o -4 address show dev eth0')).toContain(`inet ${deb?.ipv4}/24`);
      expect(
        await shell('/usr/lib/systemd/systemd-networkd-wait-online --any; networkctl status eth0 --no-pager'),
      ).toContain(deb?.ipv4);
      expect(await shell('getent ahostsv4 box')).toContain(box?.ipv4);
      expect(await shell('ping -c 1 -W 5 box')).toContain('1 received');
      expect(await shellIn(at, 'box')(`ping -c 1 -W 5 ${deb?.ipv4}`)).toContain('1 packets received');

      await shell(
        'printf "[Service]\\nExecStart=/bin/sh -c \\"echo said by a service; exec sleep 1000\\"\\n" >/etc/systemd/system/mine.service',
      );
      await shell('systemctl daemon-reload && systemctl start mine');
      expect(await shell('systemctl is-active mine')).toBe('active');
      expect(await shell('until journalctl -u mine -o cat | grep "said by"; do sleep 0.1; done')).toBe(
        'said by a service',
      );
      expect(await shell('systemd-run --wait --quiet --pipe id -u')).toBe('0');
      expect(
        await shell('su -s /bin/sh nobody -c "id -un; ping -c 1 -W 5 127.0.0.1 >/dev/null && echo pinged"'),
      ).toBe('nobody\npinged');
      await leaveNothing(at);
    });

    it('is used at a terminal, reboots, and ends in an orderly way when it is asked to', {
      timeout: bootTimeoutMs,
    }, async () => {
      const at = await begin(root);
      const { daemon, home } = at;
      await booted(at);
      const socket = join(home.runDirectory, 'roost.sock');
      const terminal = new Terminal(
        `stty rows 33 cols 99; ROOST_SOCKET="${socket}" "${process.execPath}" "${roostProgram}" exec -it deb bash -l; echo "code $?"`,
      );
      await terminal.seen('root@deb:');
      terminal.type('stty size; shopt login_shell\r');
      await terminal.seen('33 99');
      await terminal.seen('login_shell    \ton');
      terminal.type('exit 6\r');
      await terminal.ended();
      expect(terminal.output).toMatch(/code 6\r\n/);

      const { id, process: before } = await daemon.guest('deb');
      const init = await initPidOf(home, id);
      await shellIn(at, 'deb')('echo kept >/root/note; echo over >/run/note');
      const events = await watchEvents(at);
      await execIn(at, 'deb')('systemctl', 'reboot');
      for (const state of ['absent', 'connected'])
        await events.waitForEvent(
          ({ event, data }) =>
            event === 'GUEST_AGENT_CHANGED' && data['name'] === 'deb' && data['state'] === state,
          AbortSignal.timeout(bootTimeoutMs),
        );
      expect((await daemon.guest('deb')).process).toEqual(before);
      expect(await initPidOf(home, id)).not.toBe(init);
      expect(await shellIn(at, 'deb')('cat /root/note; ls /run/note 2>/dev/null || echo gone')).toBe(
        'kept\ngone',
      );
      await booted(at);

      // A shell that somebody has open heeds no SIGTERM either.
      const open = new Terminal(
        `ROOST_SOCKET="${socket}" "${process.execPath}" "${roostProgram}" exec -it deb bash -l`,
      );
      await open.seen('root@deb:');
      // Programs of the agent are no service of systemd's, and do not hold it up.
      await daemon.client.call('guest-exec', {
        guest: 'deb',
        path: 'sh',
        arg: ['-c', 'trap "" TERM; sleep 1000'],
      });
      await daemon.succeed('guest-stop', { guest: 'deb', timeoutMs: 60_000 });
      expect(await daemon.guest('deb')).toMatchObject({
        state: 'stopped',
        lastExit: { cause: 'guest-shutdown' },
      });
      await open.ended();
      expect((await runRoost(home, ['logs', 'deb'])).stdout).toContain('Halting system');
      await daemon.succeed('guest-start', { guest: 'deb' });
      await daemon.guestWhen('deb', ({ agent }) => agent.state === 'connected');
      await booted(at);
      await execIn(at, 'deb')('systemctl', 'poweroff');
      expect(await daemon.guestWhen('deb', ({ state }) => state === 'stopped')).toMatchObject({
        target: 'stopped',
        lastExit: { cause: 'guest-shutdown' },
      });
      await leaveNothing(at);
    });
  },
);
