/**
 * A Debian from the image, as its user has it: one guest under SeaBIOS and one under UEFI, booted to cloud-init's end,
 * reached by name and by SSH, upgraded to another kernel, stopped by its power button, and gone without a trace. Four
 * boots, two at a time; the neighbour is the small image.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, expect, it } from 'vitest';
import type { GuestSpecInput } from '../../protocol/guest.ts';
import { MEBIBYTE } from '../../protocol/types.ts';
import { debianBootTimeoutMs, debianImage, debianImageTimeoutMs } from '../guests/debian-image.ts';
import { guestImages } from '../guests/guest-images.ts';
import { type KernelPackage, newerKernel } from '../guests/newer-kernel.ts';
import { type GuestConsole, logIn, openGuestConsole, runInGuest } from '../harness/guest-console.ts';
import { describeWith } from '../harness/needs.ts';
import { type DaemonHome, type RealDaemon, testDaemonHome } from '../harness/real-daemon.ts';
import { roostProgram } from '../harness/roost-cli.ts';
import { testDirectory } from '../harness/test-directory.ts';

const USER = 'ada';
const GIBIBYTE = 1024 * MEBIBYTE;
let image: string;
let smallDisk: string;
let kernel: KernelPackage;

interface Key {
  readonly path: string;
  readonly publicKey: string;
}

const makeKey = async (home: DaemonHome): Promise<Key> => {
  const path = join(await testDirectory('key'), 'id');
  await home.run(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f', path]);
  return { path, publicKey: (await readFile(`${path}.pub`, 'utf8')).trim() };
};

const debian = (name: string, key: Key, more: Partial<GuestSpecInput>): GuestSpecInput => ({
  name,
  memoryBytes: GIBIBYTE,
  disks: [{ image: 'debian', sizeBytes: 6 * GIBIBYTE }],
  nics: [{ network: 'lan' }],
  cloudInit: { user: USER, sshKeys: [key.publicKey] },
  qemu: { accel: 'tcg' },
  stopTimeoutMs: debianBootTimeoutMs,
  ...more,
});

/** ssh(1) asks again by itself while the server is not there yet. */
const sshOptions = (key: Key): readonly string[] => [
  '-i',
  key.path,
  ...[
    'BatchMode=yes',
    'StrictHostKeyChecking=no',
    'UserKnownHostsFile=/dev/null',
    'LogLevel=ERROR',
    'ConnectTimeout=30',
    'ConnectionAttempts=10',
  ].flatMap((option) => ['-o', option]),
];

/** Starts a guest with its console open, so that nothing that it writes is missed. */
const start = async (daemon: RealDaemon, guest: string): Promise<GuestConsole> => {
  await daemon.succeed('guest-start', { guest, paused: true });
  const console = await openGuestConsole(daemon, guest, { replayBytes: 0 });
  await daemon.succeed('guest-resume', { guest });
  return console;
};

const CLOUD_INIT_END = /Cloud-init v\. \S+ finished at [^\n]*DataSourceNoCloud/;

describeWith(
  ['root', 'qemu', 'qemu-img', 'nft', 'ip', 'dnsmasq', 'tun', 'ovmf', 'mmdebstrap', 'ssh'],
  'a Debian guest',
  () => {
    beforeAll(async () => {
      image = await debianImage();
      smallDisk = (await guestImages()).smallDisk;
      kernel = await newerKernel();
    }, debianImageTimeoutMs);

    it('boots by both firmwares, is reached by name and key, boots a newer kernel, stops cleanly and leaves nothing', {
      timeout: 4 * debianBootTimeoutMs,
    }, async () => {
      const home = await testDaemonHome();
      const daemon = await home.start();
      const key = await makeKey(home);
      await daemon.succeed('image-import', { name: 'debian', path: image });
      await daemon.succeed('image-import', { name: 'small', path: smallDisk });
      await daemon.succeed('network-create', { name: 'lan', kind: 'nat' });
      const addressOf = async (guest: string): Promise<string> =>
        (await daemon.guest(guest)).nics[0]?.ipv4 ?? 'none';
      const ssh = async (guest: string, ...argv: readonly string[]): Promise<string> =>
        (await home.run(['ssh', ...sshOptions(key), `${USER}@${await addressOf(guest)}`, ...argv])).trim();

      /** Boots to the end of cloud-init and installs the other kernel; gives the console. */
      const bootAndUpgrade = async (guest: string): Promise<GuestConsole> => {
        const console = await start(daemon, guest);
        await console.seen(CLOUD_INIT_END);
        expect(await ssh(guest, 'hostname')).toBe(guest);
        expect(await ssh(guest, 'cloud-init', 'status')).toBe('status: done');
        const warned = ['sudo', 'grep', '-E', "'WARNING|ERROR'", '/var/log/cloud-init.log', '||', 'true'];
        expect(await ssh(guest, ...warned)).toBe('');
        expect(await ssh(guest, 'systemctl', '--failed', '--no-legend', '--plain')).toBe('');
        expect(await ssh(guest, 'uname', '-r')).not.toBe(kernel.release);
        // The file system has grown into the guest's own disk.
        const kilobytes = Number((await ssh(guest, 'df', '--output=size', '/')).split('\n')[1]);
        expect(kilobytes).toBeGreaterThan(5 * MEBIBYTE);
        const target = `${USER}@${await addressOf(guest)}:kernel.deb`;
        await home.run(['scp', ...sshOptions(key), kernel.path, target]);
        // An initramfs for this machine alone: one for every machine takes eight minutes under emulation.
        await ssh(guest, 'echo', 'MODULES=dep', '|', 'sudo', 'tee', '/etc/initramfs-tools/conf.d/modules');
        await ssh(guest, 'sudo', 'dpkg', '--install', 'kernel.deb');
        return console;
      };
      /** By the command line alone: waits until the guest is up, asks where it is, logs in. */
      const findAsUser = async (guest: string): Promise<void> => {
        const cache = await testDirectory('cache');
        const socket = join(home.runDirectory, 'roost.sock');
        const roost = async (...argv: readonly string[]): Promise<string> => {
          const program = [process.execPath, roostProgram, '--socket', socket];
          return (await home.run(['env', `XDG_CACHE_HOME=${cache}`, ...program, ...argv])).trim();
        };
        await roost('wait', guest);
        expect((await daemon.guest(guest)).ready).toBeDefined();
        expect(await roost('address', guest)).toContain(await addressOf(guest));
        expect(await roost('ssh', guest, '--identity', key.path, '--', 'hostname')).toBe(guest);
      };
      /** Waits for the newer kernel on the console, and asks it. */
      const seeNewerKernel = async (guest: string, console: GuestConsole): Promise<void> => {
        await console.seen(`Linux version ${kernel.release}`);
        await console.seen(`${guest} login: `);
        expect(await ssh(guest, 'uname', '-r')).toBe(kernel.release);
      };

      const underBios = async (): Promise<void> => {
        await daemon.succeed('guest-create', debian('web', key, {}));
        {
          using _console = await bootAndUpgrade('web');
          expect(await ssh('web', 'ls', '/sys/firmware')).not.toContain('efi');
          await findAsUser('web');
          await ssh('web', 'echo', 'kept', '>note');
          await daemon.succeed('guest-stop', { guest: 'web' });
        }
        expect(await daemon.guest('web')).toMatchObject({
          state: 'stopped',
          lastExit: { cause: 'guest-shutdown' },
        });
        using again = await start(daemon, 'web');
        await seeNewerKernel('web', again);
        expect(await ssh('web', 'cat', 'note')).toBe('kept');
      };
      const underUefi = async (): Promise<void> => {
        await daemon.succeed('guest-create', debian('efi', key, { firmware: 'uefi' }));
        using console = await bootAndUpgrade('efi');
        await ssh('efi', 'test', '-e', '/sys/firmware/efi');
        // The connection may end before ssh is told how.
        await ssh('efi', 'sudo', 'systemctl', 'reboot').catch(() => undefined);
        await seeNewerKernel('efi', console);
      };
      await Promise.all([underBios(), underUefi()]);

      await daemon.succeed('guest-create', {
        name: 'neighbour',
        memoryBytes: 192 * MEBIBYTE,
        disks: [{ image: 'small' }],
        nics: [{ network: 'lan' }],
        qemu: { accel: 'tcg' },
      });
      {
        using neighbour = await start(daemon, 'neighbour');
        await logIn(neighbour);
        const { output, status } = await runInGuest(neighbour, 'ping -c 1 -W 30 web');
        expect({ output, status }).toEqual({ output, status: 0 });
        expect(output).toContain(`(${await addressOf('web')})`);
      }
      expect(await ssh('web', 'getent', 'hosts', 'efi')).toContain(await addressOf('efi'));

      // The host sees it end by itself, because it was asked to: the journal says so.
      await daemon.succeed('guest-stop', { guest: 'web' });
      const { events } = await daemon.client.call('query-events', { since: 0, events: ['GUEST_EXITED'] });
      const exits = events.filter(({ data }) => data['name'] === 'web').map(({ data }) => data['cause']);
      expect(exits).toEqual(['guest-shutdown', 'guest-shutdown']);

      for (const guest of ['web', 'efi', 'neighbour'])
        await daemon.succeed('guest-delete', { guest, force: true });
      await daemon.succeed('network-delete', { network: 'lan' });
      for (const name of ['debian', 'small']) await daemon.succeed('image-delete', { image: name });
      await daemon.stop();
      expect(await home.compare()).toEqual({ ledger: [], host: [] });
    });
  },
);
