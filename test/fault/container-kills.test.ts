/**
 * Kill -9 of each part of a container: while it runs, while it is paused, and while it has frozen a group of its own. The
 * daemon tells the right end, the policy acts, the agent is back, and no process, group, link or mount is left.
 */
import { expect, it } from 'vitest';
import { groupsOf, membersOf, type Part, pidOf } from '../harness/container-processes.ts';
import {
  agentUp,
  beginWithBusybox,
  type ContainerHome,
  shellIn,
  startContainer,
  watchEvents,
} from '../harness/containers.ts';
import { leaveNothing } from '../harness/leave-nothing.ts';
import { describeWith } from '../harness/needs.ts';

const parts = ['warden', 'lxc-start', 'init'] as const satisfies readonly Part[];
const situations = ['that runs', 'that is paused', 'that has frozen a group of its own'] as const;
type Situation = (typeof situations)[number];

/** As the container's root does it, in its own namespace of control groups. */
const FREEZE_OWN = `
  mkdir /run/groups
  mount -t cgroup -o freezer freezer /run/groups || mount -t cgroup2 groups /run/groups
  mkdir /run/groups/own
  sleep 10000 <&- >&- 2>&- &
  echo $! > /run/groups/own/cgroup.procs
  if [ -e /run/groups/own/freezer.state ]; then echo FROZEN > /run/groups/own/freezer.state
  else echo 1 > /run/groups/own/cgroup.freeze; fi
`;

const bring = async (at: ContainerHome, situation: Situation): Promise<void> => {
  switch (situation) {
    case 'that runs':
      return;
    case 'that is paused':
      await at.daemon.succeed('guest-pause', { guest: 'one' });
      return;
    case 'that has frozen a group of its own':
      await shellIn(at, 'one')(FREEZE_OWN);
  }
};

const begin = async (situation: Situation): Promise<ContainerHome> => {
  const at = await beginWithBusybox();
  await at.daemon.succeed('network-create', { name: 'lan' });
  await startContainer(at, 'one', {
    nics: [{ network: 'lan' }],
    restartPolicy: { when: 'on-failure', delayMs: 1, maxDelayMs: 50 },
  });
  await bring(at, situation);
  return at;
};

const kill = async ({ daemon }: ContainerHome, part: Part): Promise<number> => {
  const warden = (await daemon.guest('one')).process?.pid ?? 0;
  process.kill(await pidOf(warden, part), 'SIGKILL');
  return warden;
};

/** What is paused dies, or does anything else, once it goes on. */
const letGo = async ({ daemon }: ContainerHome): Promise<void> => {
  await daemon.change('guest-resume', { guest: 'one' });
};

/** It runs, with its agent and its NIC, and the host has what the ledger has. */
const expectWell = async (at: ContainerHome): Promise<void> => {
  expect(await shellIn(at, 'one')('cat /sys/class/net/eth0/operstate')).toBe('up');
  expect((await at.daemon.client.call('query-fsck', {})).differences).toEqual([]);
};

describeWith(['root', 'lxc', 'sqfstar', 'nft', 'ip', 'dnsmasq'], 'a container', () => {
  for (const situation of situations)
    it.each(parts)(`${situation} and whose %s is killed is begun again by its policy`, async (part) => {
      const at = await begin(situation);
      const { daemon } = at;
      const warden = await kill(at, part);
      if (situation === 'that is paused' && part === 'init') await letGo(at);
      const again = await daemon.guestWhen(
        'one',
        ({ state, agent, process }) =>
          state === 'running' && agent.state === 'connected' && process?.pid !== warden,
      );
      expect(again).toMatchObject({ lastExit: { cause: 'killed' }, restarts: { count: 1 } });
      await expectWell(at);
      await leaveNothing(at);
    });

  it.each(situations)('%s and whose agent is killed has it back, in the same run', async (situation) => {
    const at = await begin(situation);
    const { daemon } = at;
    const warden = (await daemon.guest('one')).process?.pid ?? 0;
    const before = await pidOf(warden, 'agent');
    const events = await watchEvents(at);
    await kill(at, 'agent');
    if (situation === 'that is paused') await letGo(at);
    const became =
      (wanted: string) => (heard: { readonly event: string; readonly data: Record<string, unknown> }) =>
        heard.event === 'GUEST_AGENT_CHANGED' && heard.data['state'] === wanted;
    await events.waitForEvent(became('absent'));
    await events.waitForEvent(became('connected'), undefined, events.events.findIndex(became('absent')));
    expect(await pidOf(warden, 'agent')).not.toBe(before);
    expect(await daemon.guest('one')).toMatchObject({ state: 'running', process: { pid: warden } });
    await expectWell(at);
    await leaveNothing(at);
  });

  it.each(['that runs', 'that has frozen a group of its own'] as const)(
    '%s and whose init ends well has shut itself down',
    async (situation) => {
      const at = await begin(situation);
      const { daemon } = at;
      await daemon.succeed('guest-stop', { guest: 'one' });
      expect(await daemon.guest('one')).toMatchObject({
        state: 'stopped',
        lastExit: { cause: 'guest-shutdown' },
      });
      expect((await daemon.client.call('query-fsck', {})).differences).toEqual([]);
      await leaveNothing(at);
    },
  );

  it.each(situations)(
    '%s and is killed while no daemon is there is found to have ended',
    async (situation) => {
      const at = await begin(situation);
      await at.daemon.succeed('guest-update', { guest: 'one', restartPolicy: { when: 'never' } });
      const { id } = await at.daemon.guest('one');
      const { instance } = await at.daemon.client.call('query-daemon', {});
      const warden = (await at.daemon.guest('one')).process?.pid ?? 0;
      await at.daemon.kill9();
      process.kill(warden, 'SIGKILL');
      const next = { ...at, daemon: await at.home.start() };
      expect(await next.daemon.guest('one')).toMatchObject({
        state: 'failed',
        lastExit: { cause: 'unknown' },
      });
      expect(await membersOf(instance, id)).toEqual([]);
      expect(await groupsOf(instance, id)).toEqual([]);
      await next.daemon.succeed('guest-start', { guest: 'one' });
      await agentUp(next.daemon, 'one');
      await expectWell(next);
      await leaveNothing(next);
    },
  );

  it.each(situations)(
    '%s and whose warden is stopped is unresponsive, holds up nobody, and ends by force',
    async (situation) => {
      const at = await begin(situation);
      const { id, process: { pid } = { pid: 0 } } = await at.daemon.guest('one');
      const { instance } = await at.daemon.client.call('query-daemon', {});
      process.kill(pid, 'SIGSTOP');
      await at.daemon.kill9();
      const daemon = await at.home.start();
      expect(await daemon.guest('one')).toMatchObject({ state: 'unresponsive', reason: 'stopped' });
      expect((await daemon.client.call('query-guests', {})).total).toBe(1);
      await daemon.succeed('guest-stop', { guest: 'one', force: true });
      expect(await daemon.guest('one')).toMatchObject({ state: 'stopped', lastExit: { cause: 'asked' } });
      expect(await membersOf(instance, id)).toEqual([]);
      expect((await daemon.client.call('query-fsck', {})).differences).toEqual([]);
      await leaveNothing({ ...at, daemon });
    },
  );

  it('whose warden is stopped is the same again once that goes on, also under another daemon', async () => {
    const at = await begin('that runs');
    const { pid } = (await at.daemon.guest('one')).process ?? { pid: 0 };
    process.kill(pid, 'SIGSTOP');
    await at.daemon.kill9();
    const next = { ...at, daemon: await at.home.start() };
    expect(await next.daemon.guest('one')).toMatchObject({ state: 'unresponsive', reason: 'stopped' });
    process.kill(pid, 'SIGCONT');
    await next.daemon.guestWhen(
      'one',
      ({ state, agent }) => state === 'running' && agent.state === 'connected',
    );
    expect(await next.daemon.guest('one')).toMatchObject({ process: { pid } });
    await expectWell(next);
    await leaveNothing(next);
  });
});
