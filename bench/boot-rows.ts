/**
 * A whole Debian from its start until a program has run in it by ssh, against QEMU started by hand with the same disk, the
 * same seed and the same command line. Each sample is a first boot of a guest made for it, so that both sides do all of
 * cloud-init's work. The NIC is user-mode: it needs nothing of the host, and is the same for both.
 */
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { type AddressInfo, connect, createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { setLinkUp } from '../native/index.ts';
import { MEBIBYTE } from '../protocol/types.ts';
import { debianImage } from '../test/guests/debian-image.ts';
import { openByHand } from './by-hand.ts';
import { type Instance, type InstanceOptions, startInstance } from './instance.ts';
import { type Figure, type SampleLimits, takeFigure } from './measure.ts';
import { byHandRequest, PEER } from './start-rows.ts';

const limits: SampleLimits = { warmUps: 0, samples: 3, budgetMs: 900_000 };
const run = promisify(execFile);
const GUEST = 'debian';
const USER = 'bench';
/** Between two attempts while the guest's server is not there; nothing tells when it will be. */
const RETRY_MS = 100;
/** A first packet to a guest without an address is lost, and is not sent again soon. */
const GREETING_MS = 2_000;

/** Made before the bench leaves the host's network. */
export const prepareDebian = async (signal: AbortSignal): Promise<void> => void (await debianImage(signal));

export const bootToSsh = async (options: InstanceOptions): Promise<readonly Figure[]> => {
  // The network namespace is the bench's own, and new.
  setLinkUp('lo');
  const instance = await startInstance(options);
  const byHand = await openByHand(instance.scratchDirectory);
  try {
    const debian = await prepare(instance, options.signal);
    const roost = (): Promise<number> =>
      debian.sample(async () => {
        const { operation } = await instance.client.call('guest-start', { guest: GUEST });
        return async () => {
          await instance.finished(operation);
          await instance.succeed('guest-stop', { guest: GUEST, force: true });
        };
      });
    const peer = (): Promise<number> =>
      debian.sample(async () => {
        await byHand.start(await byHandRequest(instance, GUEST));
        return () => byHand.end();
      });
    const sides = { roost, peer: { name: PEER, sample: peer } };
    return [await takeFigure('boot-to-ssh', 's', sides, limits, options)];
  } finally {
    await byHand.close();
    await instance.close();
  }
};

interface Debian {
  /** Seconds from before `start` until a program has run in the guest. `start` gives what ends it. */
  sample(start: () => Promise<() => Promise<void>>): Promise<number>;
}

const prepare = async (instance: Instance, signal: AbortSignal): Promise<Debian> => {
  const key = join(instance.scratchDirectory, 'key');
  await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', key]);
  const publicKey = (await readFile(`${key}.pub`, 'utf8')).trim();
  const port = await freePort();
  await instance.succeed('image-import', { name: GUEST, path: await debianImage(signal) });
  await instance.succeed('network-create', { name: 'outward', kind: 'user' });
  return {
    sample: async (start) => {
      await instance.succeed('guest-create', {
        name: GUEST,
        memoryBytes: 1024 * MEBIBYTE,
        cpu: { count: 2 },
        disks: [{ image: GUEST }],
        nics: [{ network: 'outward', forwards: [{ hostPort: port, guestPort: 22 }] }],
        cloudInit: { user: USER, sshKeys: [publicKey] },
        // One socket less that the other side would have to make.
        agent: { enabled: false },
      });
      // Makes the seed, which both sides boot with; a guest that is paused touches nothing.
      await instance.succeed('guest-start', { guest: GUEST, paused: true });
      await instance.succeed('guest-stop', { guest: GUEST, force: true });
      const begun = performance.now();
      const end = await start();
      try {
        await logIn(port, key, signal);
        return (performance.now() - begun) / 1000;
      } finally {
        await end();
        await instance.succeed('guest-delete', { guest: GUEST });
      }
    },
  };
};

/** Runs a program in the guest, as soon as it is let in. */
const logIn = async (port: number, key: string, signal: AbortSignal): Promise<void> => {
  const settings = ['BatchMode=yes', 'StrictHostKeyChecking=no', 'UserKnownHostsFile=/dev/null'];
  const options = [...settings, 'LogLevel=ERROR'].flatMap((option) => ['-o', option]);
  const argv = ['-F', 'none', '-i', key, '-p', String(port), ...options, `${USER}@127.0.0.1`, 'true'];
  for (;;) {
    try {
      if (await greets(port)) {
        await run('ssh', argv, { signal });
        return;
      }
    } catch {
      // Greeted, but not let in yet.
    }
    await delay(RETRY_MS, undefined, { signal });
  }
};

/** Whether an SSH server answers. User-mode networking accepts every connection by itself, so the first byte tells. */
const greets = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port, timeout: GREETING_MS });
    const end = (answer: boolean): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.once('data', () => end(true));
    for (const event of ['error', 'close', 'timeout']) socket.once(event, () => end(false));
  });

const freePort = async (): Promise<number> => {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
};
