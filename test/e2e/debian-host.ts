/** A Debian with systemd, which is a guest of a test's daemon and a host of its own. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { MEBIBYTE } from '../../protocol/types.ts';
import { openGuestConsole } from '../harness/guest-console.ts';
import type { DaemonHome, RealDaemon } from '../harness/real-daemon.ts';
import { testDirectory } from '../harness/test-directory.ts';

const USER = 'ada';
const GIBIBYTE = 1024 * MEBIBYTE;

/** A Debian with systemd, and its root by SSH. */
export interface Host {
  /** Runs a script there and gives its output; fails as it does. */
  run(script: string): Promise<string>;
  /** The same as words. */
  lines(script: string): Promise<readonly string[]>;
  put(path: string): Promise<void>;
  /** Boots it anew and waits until it answers again. */
  reboot(): Promise<void>;
}

const sshOptions = (key: string): readonly string[] => [
  '-i',
  key,
  ...[
    'BatchMode=yes',
    'StrictHostKeyChecking=no',
    'UserKnownHostsFile=/dev/null',
    'LogLevel=ERROR',
    'ConnectTimeout=30',
    'ConnectionAttempts=60',
    'ServerAliveInterval=30',
  ].flatMap((option) => ['-o', option]),
];

const CLOUD_INIT_END = /Cloud-init v\. \S+ finished at/;

/** Makes and boots the guest `host` of an image. */
export const makeHost = async (home: DaemonHome, daemon: RealDaemon, image: string): Promise<Host> => {
  const key = join(await testDirectory('key'), 'id');
  await home.run(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f', key]);
  await daemon.succeed('image-import', { name: 'debian', path: image });
  await daemon.succeed('network-create', { name: 'lan', kind: 'nat' });
  await daemon.succeed('guest-create', {
    name: 'host',
    memoryBytes: 3 * GIBIBYTE,
    cpu: { count: 2 },
    disks: [{ image: 'debian', sizeBytes: 8 * GIBIBYTE }],
    nics: [{ network: 'lan' }],
    cloudInit: { user: USER, sshKeys: [(await readFile(`${key}.pub`, 'utf8')).trim()] },
    qemu: { accel: 'tcg' },
  });
  await daemon.succeed('guest-start', { guest: 'host', paused: true });
  const console = await openGuestConsole(daemon, 'host', { replayBytes: 0 });
  onTestFinished(() => console[Symbol.dispose]());
  await daemon.succeed('guest-resume', { guest: 'host' });
  const address = (await daemon.guest('host')).nics[0]?.ipv4 ?? 'none';
  const run = async (script: string): Promise<string> =>
    await home.run(['ssh', ...sshOptions(key), `${USER}@${address}`, `sudo bash -euc ${quoted(script)}`]);
  await console.seen(CLOUD_INIT_END);
  return {
    run,
    lines: async (script) => (await run(script)).trim().split('\n').filter(Boolean),
    put: async (path) => {
      await home.run(['scp', '-q', ...sshOptions(key), path, `${USER}@${address}:/tmp/`]);
    },
    reboot: async () => {
      // The connection may end before ssh is told how.
      await run('systemctl reboot').catch(() => undefined);
      await console.seen(CLOUD_INIT_END);
      await run('systemctl is-system-running --wait || true');
    },
  };
};

/** As one word of a shell. */
const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;
