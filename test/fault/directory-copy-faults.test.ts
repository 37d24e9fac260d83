/**
 * Kill -9 of the daemon, and a failure, at every step of the making of a guest that has a copy of a directory, and of its
 * start, with real QEMU: in the end the guest has its copy, or nothing of it is left.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { boxGuest } from '../harness/box-guests.ts';
import { leaveNothing } from '../harness/leave-nothing.ts';
import { provideMicrovmImages } from '../harness/microvm-images.ts';
import { describeWith } from '../harness/needs.ts';
import { type DaemonHome, type RealDaemon, testDaemonHome } from '../harness/real-daemon.ts';
import { runRoost } from '../harness/roost-cli.ts';
import { testDirectory } from '../harness/test-directory.ts';

const images = provideMicrovmImages();

const steps = [
  'guest-create/directory',
  'guest-create/volumes',
  'guest-create/record',
  'guest-start/volumes',
  'guest-start/launch',
  'guest-start/program',
] as const;
const places = steps.flatMap((step) => ['before', 'after'].map((moment) => `${step}/${moment}`));

const prepare = async (home: DaemonHome): Promise<ReturnType<typeof boxGuest>> => {
  const source = await testDirectory('source');
  await writeFile(join(source, 'file'), 'of the host\n', { mode: 0o600 });
  const daemon = await home.start();
  await images.importInto(daemon);
  await daemon.stop();
  const filesystems = [{ source, target: '/data', mode: 'copy' as const }];
  return boxGuest('web', { filesystems, start: true });
};

const untilSettled = async (daemon: RealDaemon): Promise<void> => {
  const { operations } = await daemon.client.call('query-operations', {
    states: ['queued', 'running', 'undoing'],
  });
  for (const { id } of operations) await daemon.client.call('operation-wait', { operation: id });
};

const expectCopied = async (home: DaemonHome, daemon: RealDaemon): Promise<void> => {
  const script = 'cat /data/file; echo in > /data/new; grep -c " /data " /proc/mounts';
  const { stdout } = await runRoost(home, ['exec', 'web', 'sh', '-c', script]);
  expect(stdout).toBe('of the host\n2\n');
  expect((await daemon.client.call('query-fsck', {})).differences).toEqual([]);
};

describeWith(
  ['root', 'qemu', 'qemu-img', 'sqfstar', 'nft', 'ip', 'dnsmasq', 'tun'],
  'a guest with a copy of a directory',
  () => {
    it.each(places)('whose daemon is killed at %s: the next one finishes it', async (place) => {
      const home = await testDaemonHome();
      const spec = await prepare(home);
      const doomed = await home.start({ crashAt: place });
      await expect(doomed.change('guest-create', spec)).rejects.toThrow(/connection/i);
      await doomed.ended;
      const next = await home.start();
      await untilSettled(next);
      expect(await next.guest('web')).toMatchObject({ state: 'running', ready: { kind: 'agent' } });
      await expectCopied(home, next);
      await leaveNothing({ home, daemon: next });
    });

    it.each(places)('whose making or start fails at %s leaves nothing half done', async (place) => {
      const home = await testDaemonHome();
      const spec = await prepare(home);
      const daemon = await home.start({ failAt: place });
      expect((await daemon.change('guest-create', spec)).state).not.toBe('succeeded');
      expect((await daemon.client.call('query-fsck', {})).differences).toEqual([]);
      const isMade = !place.startsWith('guest-create');
      expect((await daemon.client.call('query-guests', {})).total).toBe(isMade ? 1 : 0);
      if (isMade) await daemon.succeed('guest-start', { guest: 'web' });
      else await daemon.succeed('guest-create', spec);
      await expectCopied(home, daemon);
      await leaveNothing({ home, daemon });
    });
  },
);
