/**
 * Kill -9 of the daemon, and a failure, at every step of making a template and of a fork's start, with real QEMU. A template
 * that the next daemon finishes can be forked; a fork is itself, whether it was forked or booted in the end; the ledger
 * equals the host.
 */
import { expect, it } from 'vitest';
import { leaveMother } from '../harness/box-guests.ts';
import { provideMicrovmImages } from '../harness/microvm-images.ts';
import { describeWith } from '../harness/needs.ts';
import { type DaemonHome, type RealDaemon, testDaemonHome } from '../harness/real-daemon.ts';
import { runRoost } from '../harness/roost-cli.ts';
import { placesBetween } from '../harness/step-places.ts';

const images = provideMicrovmImages();

const templateSteps = ['volumes', 'ports', 'launch', 'resume', 'prepare', 'keep', 'share', 'record'] as const;
const remakingSteps = ['another', ...templateSteps] as const;
const forkSteps = ['volumes', 'ports', 'launch', 'resume', 'program'] as const;

const untilSettled = async (daemon: RealDaemon): Promise<void> => {
  const { operations } = await daemon.client.call('query-operations', {
    states: ['queued', 'running', 'undoing'],
  });
  for (const { id } of operations) await daemon.client.call('operation-wait', { operation: id });
};

/** A fork made now is itself, and so is every other that is there. */
const expectSound = async (home: DaemonHome, daemon: RealDaemon): Promise<void> => {
  await daemon.succeed('guest-fork', { template: 'mother', name: 'probe' });
  const { guests } = await daemon.client.call('query-guests', {});
  for (const { name = '', id = '', state, template, nics = [] } of guests) {
    if (template || state !== 'running') continue;
    const { stdout } = await runRoost(home, [
      'exec',
      name,
      'cat',
      '/etc/machine-id',
      '/sys/class/net/eth0/address',
    ]);
    expect(stdout).toBe(`${id.replaceAll('-', '')}\n${nics[0]?.mac ?? ''}\n`);
  }
};

const finish = async (home: DaemonHome, daemon: RealDaemon): Promise<void> => {
  const { guests } = await daemon.client.call('query-guests', {});
  for (const name of [...guests.flatMap(({ name = '' }) => (name === 'mother' ? [] : [name])), 'mother'])
    await daemon.succeed('guest-delete', { guest: name, force: true });
  await daemon.succeed('network-delete', { network: 'lan' });
  await daemon.stop();
  const { ledger, host } = await home.compare();
  expect(host).toEqual(ledger);
};

const places = (steps: readonly string[]): readonly string[] =>
  steps.flatMap((step) => ['before', 'after'].map((moment) => `${step}/${moment}`));

describeWith(['root', 'qemu', 'qemu-img', 'sqfstar', 'nft', 'ip', 'dnsmasq', 'tun'], 'forks', () => {
  it.each(places(templateSteps))(
    'a daemon killed at %s of template-create: the next one finishes it',
    async (place) => {
      const home = await testDaemonHome();
      await leaveMother(home, images, false);
      const doomed = await home.start({ crashAt: `template-create/${place}` });
      await expect(doomed.change('template-create', { guest: 'mother' })).rejects.toThrow(/connection/i);
      await doomed.ended;
      const next = await home.start();
      await untilSettled(next);
      expect(await next.guest('mother')).toMatchObject({ state: 'paused', reason: 'template' });
      await expectSound(home, next);
      await finish(home, next);
    },
  );

  it.each(places(templateSteps))(
    'a failure at %s of template-create leaves a guest that can become one',
    async (place) => {
      const home = await testDaemonHome();
      await leaveMother(home, images, false);
      const daemon = await home.start({ failAt: `template-create/${place}` });
      await daemon.change('template-create', { guest: 'mother' });
      await daemon.succeed('template-create', { guest: 'mother' });
      expect(await daemon.guest('mother')).toMatchObject({ state: 'paused', reason: 'template' });
      await expectSound(home, daemon);
      await finish(home, daemon);
    },
  );

  /** What lies on the disks of the template that is to be made anew. */
  const loseMemory = async (daemon: RealDaemon): Promise<void> => {
    await daemon.succeed('guest-fork', { template: 'mother', name: 'old' });
    await daemon.succeed('guest-stop', { guest: 'mother' });
  };

  it.each(placesBetween(remakingSteps))(
    'a daemon killed at %s of making a template anew: the next one finishes it',
    async (place) => {
      const home = await testDaemonHome();
      await leaveMother(home, images);
      const doomed = await home.start({ crashAt: `template-create/${place}` });
      await loseMemory(doomed);
      await expect(doomed.change('template-create', { guest: 'mother' })).rejects.toThrow(/connection/i);
      await doomed.ended;
      const next = await home.start();
      await untilSettled(next);
      expect(await next.guest('mother')).toMatchObject({ state: 'paused', reason: 'template' });
      await expectSound(home, next);
      await finish(home, next);
    },
  );

  it.each(placesBetween(remakingSteps))(
    'a failure at %s of making a template anew leaves one that can be made anew, and its forks',
    async (place) => {
      const home = await testDaemonHome();
      await leaveMother(home, images);
      const daemon = await home.start({ failAt: `template-create/${place}` });
      await loseMemory(daemon);
      await daemon.change('template-create', { guest: 'mother' });
      await daemon.succeed('guest-fork', { template: 'mother', name: 'between' });
      await daemon.succeed('template-create', { guest: 'mother' });
      expect(await daemon.guest('mother')).toMatchObject({ state: 'paused', reason: 'template' });
      await expectSound(home, daemon);
      await finish(home, daemon);
    },
  );

  it.each(places(forkSteps))('a daemon killed at %s of a fork: the next one starts it', async (place) => {
    const home = await testDaemonHome();
    await leaveMother(home, images);
    const doomed = await home.start({ crashAt: `guest-start/${place}` });
    await expect(doomed.change('guest-fork', { template: 'mother', name: 'one' })).rejects.toThrow(
      /connection/i,
    );
    await doomed.ended;
    const next = await home.start();
    await untilSettled(next);
    expect(await next.guest('one')).toMatchObject({ state: 'running', ready: { kind: 'agent' } });
    await expectSound(home, next);
    await finish(home, next);
  });
});
