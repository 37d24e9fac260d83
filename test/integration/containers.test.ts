/** The life of a container: busybox under liblxc, on a real bridge, through the daemon's own socket. */
import { readFile } from 'node:fs/promises';
import { expect, it } from 'vitest';
import {
  agentUp,
  beginWithBusybox,
  container,
  execIn,
  groupFile,
  initOf,
  initPidOf,
  liblxc,
  lxcInfo,
  shellIn,
  startContainer,
  tracesOf,
  watchEvents,
} from '../harness/containers.ts';
import { leaveNothing } from '../harness/leave-nothing.ts';
import { describeWith } from '../harness/needs.ts';
import { waitForConsole } from '../harness/real-daemon.ts';

const FREEZER = { v1: 'freezer.state', v2: 'cgroup.events' } as const;

describeWith(['root', 'lxc', 'sqfstar', 'nft', 'ip', 'dnsmasq'], 'a container in a real daemon', () => {
  it('is created, started, paused, resumed, reset, stopped and deleted without a trace', async () => {
    const at = await beginWithBusybox();
    const { home, daemon } = at;
    await daemon.succeed('network-create', { name: 'lan' });
    const before = await tracesOf(at);
    const id = await daemon.succeed('guest-create', container('one', { nics: [{ network: 'lan' }] }));
    expect(await daemon.guest('one')).toMatchObject({ state: 'stopped', driver: 'lxc', machine: 'lxc-1' });

    const events = await watchEvents(at);
    await daemon.succeed('guest-start', { guest: 'one' });
    const running = await daemon.guestWhen('one', ({ ready }) => ready !== undefined);
    expect(running).toMatchObject({
      state: 'running',
      process: { accel: 'lxc' },
      ready: { kind: 'agent' },
      agent: { state: 'connected' },
    });
    const info = await lxcInfo(home, id);
    expect([info.get('State'), info.get('IP')]).toEqual(['RUNNING', running.nics[0]?.ipv4]);

    await daemon.succeed('guest-pause', { guest: 'one' });
    expect((await daemon.guest('one')).state).toBe('paused');
    expect((await lxcInfo(home, id)).get('State')).toBe('FROZEN');
    expect(await readFile(await groupFile(at, 'one', FREEZER), 'utf8')).toMatch(/^FROZEN$|^frozen 1$/m);
    expect(await execIn(at, 'one')('true')).toMatchObject({ stdout: '', stderr: /paused/ });
    await daemon.succeed('guest-resume', { guest: 'one' });
    expect((await daemon.guest('one')).state).toBe('running');
    expect((await lxcInfo(home, id)).get('State')).toBe('RUNNING');
    const shell = shellIn(at, 'one');
    await shell('touch /root/kept /tmp/kept');

    const init = await initPidOf(home, id);
    const seen = events.events.length;
    await daemon.succeed('guest-reset', { guest: 'one' });
    await events.waitForEvent(
      ({ event, data }) => event === 'GUEST_AGENT_CHANGED' && data['state'] === 'connected',
      undefined,
      seen,
    );
    expect((await daemon.guest('one')).process).toEqual(running.process);
    expect(await initPidOf(home, id)).not.toBe(init);
    expect(await shell('ls /root/kept /tmp/kept; cat /sys/class/net/eth0/address')).toBe(
      `/root/kept\n/tmp/kept\n${running.nics[0]?.mac}`,
    );
    const console = await waitForConsole(daemon, 'one', (text) => text.split('busybox is up').length > 2);
    expect(console).not.toContain('busybox goes down');

    await daemon.succeed('guest-stop', { guest: 'one' });
    const stopped = await daemon.guest('one');
    expect(stopped).toMatchObject({ state: 'stopped', lastExit: { cause: 'guest-shutdown' } });
    expect(stopped.process).toBeUndefined();
    expect((await lxcInfo(home, id)).get('State')).toBe('STOPPED');
    await daemon.succeed('guest-delete', { guest: 'one' });
    expect(await tracesOf(at)).toEqual(before);
    expect(await liblxc(home, 'lxc-ls')).toBe('');
    await leaveNothing(at);
  });

  it('that does not heed SIGPWR is ended by force after the deadline, and at once where that is asked', async () => {
    const at = await beginWithBusybox();
    const { daemon } = at;
    await startContainer(at, 'deaf', { init: initOf("trap '' PWR") });
    await daemon.succeed('guest-stop', { guest: 'deaf', timeoutMs: 200 });
    expect(await daemon.guest('deaf')).toMatchObject({ state: 'stopped', lastExit: { cause: 'asked' } });
    await daemon.succeed('guest-start', { guest: 'deaf' });
    await daemon.succeed('guest-pause', { guest: 'deaf' });
    await daemon.succeed('guest-stop', { guest: 'deaf', force: true });
    expect(await daemon.guest('deaf')).toMatchObject({ state: 'stopped', lastExit: { cause: 'asked' } });
    await leaveNothing(at);
  });

  it('is started again by its policy when its init fails, and not when it ends well', async () => {
    const at = await beginWithBusybox();
    const { daemon } = at;
    await startContainer(at, 'tough', {
      init: ['/bin/sh', '-c', 'until [ -e /run/end ]; do sleep 0.1; done; . /run/end'],
      restartPolicy: { when: 'on-failure', delayMs: 1, maxDelayMs: 50 },
    });
    const end = (status: number) =>
      execIn(at, 'tough')('sh', '-c', `echo "rm /run/end; exit ${status}" >/run/new; mv /run/new /run/end`);
    const first = (await daemon.guest('tough')).process?.pid;
    await end(5);
    const again = await daemon.guestWhen(
      'tough',
      ({ state, process, agent }) =>
        state === 'running' && process?.pid !== first && agent.state === 'connected',
    );
    expect(again).toMatchObject({ restarts: { count: 1 }, lastExit: { cause: 'crashed', exitCode: 5 } });
    await end(0);
    expect(await daemon.guestWhen('tough', ({ state }) => state === 'stopped')).toMatchObject({
      target: 'stopped',
      targetActor: 'guest',
      lastExit: { cause: 'guest-shutdown' },
    });
    await leaveNothing(at);
  });

  it('that is killed, or its warden, is started again by its policy', async () => {
    const at = await beginWithBusybox();
    const { home, daemon } = at;
    await daemon.succeed('network-create', { name: 'lan' });
    await startContainer(at, 'tough', {
      nics: [{ network: 'lan' }],
      restartPolicy: { when: 'on-failure', delayMs: 1, maxDelayMs: 50 },
    });
    const { id, process: first } = await daemon.guest('tough');
    const another = (than: number | undefined) =>
      daemon.guestWhen(
        'tough',
        ({ state, process: { pid } = { pid: than }, agent }) =>
          state === 'running' && pid !== than && agent.state === 'connected',
      );
    process.kill(await initPidOf(home, id), 'SIGKILL');
    const second = await another(first?.pid);
    expect(second).toMatchObject({ restarts: { count: 1 }, lastExit: { cause: 'killed' } });
    process.kill(second.process?.pid ?? 0, 'SIGKILL');
    const third = await another(second.process?.pid);
    expect(third).toMatchObject({ restarts: { count: 2 }, lastExit: { cause: 'killed' } });
    expect(await shellIn(at, 'tough')('cat /sys/class/net/eth0/operstate')).toBe('up');
    await leaveNothing(at);
  });

  it('that reboots goes on in the same run, with its NIC and what it wrote', async () => {
    const at = await beginWithBusybox();
    const { home, daemon } = at;
    await daemon.succeed('network-create', { name: 'lan' });
    await startContainer(at, 'one', { nics: [{ network: 'lan' }] });
    const { id, process: before, nics } = await daemon.guest('one');
    const shell = shellIn(at, 'one');
    await shell('echo kept >/root/note');
    const init = await initPidOf(home, id);
    const events = await watchEvents(at);
    await execIn(at, 'one')('reboot', '-f');
    await events.waitForEvent(
      ({ event, data }) => event === 'GUEST_AGENT_CHANGED' && data['state'] === 'connected',
    );
    expect(events.events).toContainEqual(
      expect.objectContaining({
        event: 'GUEST_DRIVER_EVENT',
        data: expect.objectContaining({ event: 'RESET', data: { guest: true, reason: 'guest-reset' } }),
      }),
    );
    expect(events.events).not.toContainEqual(expect.objectContaining({ event: 'GUEST_EXITED' }));
    expect((await daemon.guest('one')).process).toEqual(before);
    expect(await initPidOf(home, id)).not.toBe(init);
    expect(await shell('cat /root/note; ip -o -4 address show eth0')).toMatch(
      new RegExp(`^kept\\n.* ${nics[0]?.ipv4}/`),
    );
    await execIn(at, 'one')('poweroff', '-f');
    expect(await daemon.guestWhen('one', ({ state }) => state === 'stopped')).toMatchObject({
      target: 'stopped',
      lastExit: { cause: 'guest-shutdown' },
    });
    await leaveNothing(at);
  });

  it('goes on as it was when it is given another name, and shows what a start would run', async () => {
    const at = await beginWithBusybox();
    const { home, daemon } = at;
    const id = await daemon.succeed('guest-create', container('one'));
    const plan = await daemon.client.call('guest-plan', { guest: 'one' });
    await daemon.succeed('guest-start', { guest: 'one' });
    await agentUp(daemon, 'one');
    const { process: before } = await daemon.guest('one');
    const argv = (await readFile(`/proc/${before?.pid}/cmdline`, 'utf8')).split('\0').slice(0, -1);
    expect(plan.argv).toEqual(argv);
    expect(await shellIn(at, 'one')('hostname; echo kept >/root/note')).toBe('one');
    await daemon.succeed('guest-stop', { guest: 'one' });
    await daemon.succeed('guest-rename', { guest: 'one', newName: 'two' });
    await daemon.succeed('guest-start', { guest: 'two' });
    await agentUp(daemon, 'two');
    expect(await shellIn(at, 'two')('hostname; cat /root/note')).toBe('two\nkept');
    expect((await liblxc(home, 'lxc-ls')).trim()).toBe(id);
    await leaveNothing(at);
  });
});
