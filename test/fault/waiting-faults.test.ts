/**
 * Kill -9 of the daemon, and a failure, at every step of making a fork that is to wait, and of handing it to whoever asks,
 * with real QEMU. It is whole or it is gone, and who asks gets a guest that is itself; the ledger equals the host.
 */
import { expect, it } from 'vitest';
import { leaveMother } from '../harness/box-guests.ts';
import { leaveNothing } from '../harness/leave-nothing.ts';
import { provideMicrovmImages } from '../harness/microvm-images.ts';
import { describeWith } from '../harness/needs.ts';
import { type DaemonHome, type RealDaemon, testDaemonHome } from '../harness/real-daemon.ts';
import { runRoost } from '../harness/roost-cli.ts';
import { placesBetween } from '../harness/step-places.ts';
import { hasWaited, untilWaiting } from '../harness/waiting-forks.ts';

const images = provideMicrovmImages();

const makingSteps = [
  'directory',
  'volumes',
  'record',
  'ports',
  'launch',
  'resume',
  'prepare',
  'hold',
] as const;
const takingSteps = ['record', 'volumes', 'ports', 'launch', 'resume', 'announce', 'program'] as const;

const fork = async (daemon: RealDaemon, name: string): Promise<void> =>
  void (await daemon.succeed('guest-fork', { template: 'mother', name }));

const expectItself = async (home: DaemonHome, daemon: RealDaemon, name: string): Promise<void> => {
  const { id, nics } = await daemon.guest(name);
  const files = ['/etc/hostname', '/etc/machine-id', '/sys/class/net/eth0/address'];
  const { stdout } = await runRoost(home, ['exec', name, 'cat', ...files]);
  expect(stdout).toBe(`${name}\n${id.replaceAll('-', '')}\n${nics[0]?.mac ?? ''}\n`);
};

describeWith(['root', 'qemu', 'qemu-img', 'sqfstar', 'nft', 'ip', 'dnsmasq', 'tun'], 'waiting forks', () => {
  it.each(placesBetween(makingSteps))(
    'a daemon killed at %s of making one: the next finishes it',
    async (place) => {
      const home = await testDaemonHome();
      await leaveMother(home, images);
      const doomed = await home.start({ crashAt: `guest-prepare/${place}` });
      await fork(doomed, 'one');
      await doomed.ended;
      const daemon = await home.start();
      await untilWaiting({ home, daemon }, 'mother', 1);
      await fork(daemon, 'two');
      expect(await hasWaited(daemon, 'two')).toBe(true);
      await expectItself(home, daemon, 'two');
      await leaveNothing({ home, daemon });
    },
  );

  it.each(placesBetween(makingSteps))('a failure at %s of making one leaves nothing of it', async (place) => {
    const home = await testDaemonHome();
    await leaveMother(home, images);
    const daemon = await home.start({ failAt: `guest-prepare/${place}` });
    const watcher = daemon.client.events();
    await daemon.client.call('events-subscribe', { events: ['OPERATION_CHANGED'] });
    await fork(daemon, 'one');
    for await (const { data } of watcher)
      if ('kind' in data && data['kind'] === 'guest-prepare' && data['state'] === 'failed') break;
    expect((await daemon.guest('mother')).template?.waiting).toBe(0);
    await fork(daemon, 'two');
    await expectItself(home, daemon, 'two');
    await leaveNothing({ home, daemon });
  });

  it.each(placesBetween(takingSteps))(
    'a daemon killed at %s of handing one over: the next does',
    async (place) => {
      const home = await testDaemonHome();
      await leaveMother(home, images);
      const daemon = await home.start();
      await fork(daemon, 'one');
      await untilWaiting({ home, daemon }, 'mother', 1);
      await daemon.stop();
      const doomed = await home.start({ crashAt: `guest-start/${place}` });
      await untilWaiting({ home, daemon: doomed }, 'mother', 1);
      await expect(doomed.change('guest-fork', { template: 'mother', name: 'two' })).rejects.toThrow(
        /connection/i,
      );
      await doomed.ended;
      const next = await home.start();
      expect(await next.guestWhen('two', ({ ready }) => ready !== undefined)).toMatchObject({
        state: 'running',
      });
      expect(await hasWaited(next, 'two')).toBe(true);
      await expectItself(home, next, 'two');
      await leaveNothing({ home, daemon: next });
    },
  );
});
