/**
 * Kill -9 of the daemon, and a failure, at every step of the start of a guest that has a directory of the host, with real
 * QEMU and virtiofsd: in the end the guest has its directory and nobody else serves one, or nothing of it is left.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { MEBIBYTE } from '../../protocol/types.ts';
import { directoryServers } from '../harness/directory-servers.ts';
import { leaveNothing } from '../harness/leave-nothing.ts';
import { provideMicrovmImages } from '../harness/microvm-images.ts';
import { describeWith } from '../harness/needs.ts';
import { type DaemonHome, type RealDaemon, testDaemonHome } from '../harness/real-daemon.ts';
import { runRoost } from '../harness/roost-cli.ts';
import { testDirectory } from '../harness/test-directory.ts';

const images = provideMicrovmImages();

const steps = ['volumes', 'ports', 'launch', 'resume', 'program'] as const;
const places = steps.flatMap((step) => ['before', 'after'].map((moment) => `${step}/${moment}`));
/** Of a virtiofsd and the one that it makes in a namespace of its own. */
const SERVERS = 2;

const prepare = async (home: DaemonHome): Promise<{ readonly source: string }> => {
  const source = await testDirectory('source');
  await writeFile(join(source, 'file'), 'of the host\n');
  const daemon = await home.start();
  await images.importInto(daemon);
  await daemon.succeed('guest-create', {
    name: 'web',
    machine: 'microvm',
    memoryBytes: 128 * MEBIBYTE,
    program: { image: 'box', command: ['sleep', '100000'] },
    qemu: { accel: 'tcg' },
    filesystems: [{ source, target: '/data' }],
  });
  await daemon.stop();
  return { source };
};

const untilSettled = async (daemon: RealDaemon): Promise<void> => {
  const { operations } = await daemon.client.call('query-operations', {
    states: ['queued', 'running', 'undoing'],
  });
  for (const { id } of operations) await daemon.client.call('operation-wait', { operation: id });
};

const expectServed = async (home: DaemonHome, daemon: RealDaemon, source: string): Promise<void> => {
  const { stdout } = await runRoost(home, ['exec', 'web', 'sh', '-c', 'cat /data/file; echo in > /data/new']);
  expect(stdout).toBe('of the host\n');
  expect(await readFile(join(source, 'new'), 'utf8')).toBe('in\n');
  expect(directoryServers(home)).toHaveLength(SERVERS);
  expect((await daemon.client.call('query-fsck', {})).differences).toEqual([]);
};

const finish = async (home: DaemonHome, daemon: RealDaemon): Promise<void> => {
  await daemon.succeed('guest-stop', { guest: 'web', force: true });
  expect(directoryServers(home)).toEqual([]);
  await leaveNothing({ home, daemon });
};

describeWith(
  ['root', 'qemu', 'qemu-img', 'sqfstar', 'virtiofsd', 'nft', 'ip', 'dnsmasq', 'tun'],
  'a guest with a directory of the host',
  () => {
    it.each(places)('whose daemon is killed at %s: the next one starts it', async (place) => {
      const home = await testDaemonHome();
      const { source } = await prepare(home);
      const doomed = await home.start({ crashAt: `guest-start/${place}` });
      await expect(doomed.change('guest-start', { guest: 'web' })).rejects.toThrow(/connection/i);
      await doomed.ended;
      const next = await home.start();
      await untilSettled(next);
      expect(await next.guest('web')).toMatchObject({ state: 'running', ready: { kind: 'agent' } });
      await expectServed(home, next, source);
      await finish(home, next);
    });

    it.each(places)(
      'whose start fails at %s: nothing is left of it, and it can be started',
      async (place) => {
        const home = await testDaemonHome();
        const { source } = await prepare(home);
        const daemon = await home.start({ failAt: `guest-start/${place}` });
        expect((await daemon.change('guest-start', { guest: 'web' })).state).toBe('failed');
        expect(directoryServers(home)).toEqual([]);
        expect((await daemon.client.call('query-fsck', {})).differences).toEqual([]);
        await daemon.succeed('guest-start', { guest: 'web' });
        await expectServed(home, daemon, source);
        await finish(home, daemon);
      },
    );
  },
);
