/** Guests forked from a template: each itself, all from one memory; what is gone is booted instead. */
import { truncate } from 'node:fs/promises';
import { expect, test } from 'vitest';
import type { CommandInput } from '../../protocol/commands.ts';
import { MEBIBYTE } from '../../protocol/types.ts';
import { beginWithBox, boxGuest, forkAll } from '../harness/box-guests.ts';
import { openGuestConsole } from '../harness/guest-console.ts';
import { leaveNothing } from '../harness/leave-nothing.ts';
import { provideMicrovmImages, wasForked } from '../harness/microvm-images.ts';
import { describeWith } from '../harness/needs.ts';
import type { DaemonHome, RealDaemon } from '../harness/real-daemon.ts';
import { runRoost } from '../harness/roost-cli.ts';
import { templateArgs } from '../harness/waiting-forks.ts';

const images = provideMicrovmImages();

const begin = () => beginWithBox(images);

const makeTemplate = async (
  daemon: RealDaemon,
  name: string,
  more: Partial<CommandInput<'guest-create'>> = {},
): Promise<void> => {
  await daemon.succeed('guest-create', boxGuest(name, more));
  await daemon.succeed('template-create', { guest: name });
};

/** What the program of a guest has counted, once it is so far. */
const counted = async (home: DaemonHome, guest: string, least: number): Promise<readonly number[]> => {
  for (;;) {
    const { stdout } = await runRoost(home, ['logs', guest]);
    const numbers = stdout.split('\n').slice(0, -1).map(Number);
    if (numbers.length >= least) return numbers;
  }
};

const allDiffer = (values: readonly unknown[]): void => {
  expect(new Set(values).size).toBe(values.length);
};

describeWith(
  ['root', 'qemu', 'qemu-img', 'sqfstar', 'nft', 'ip', 'dnsmasq', 'tun'],
  'a fork of a booted guest',
  () => {
    test.each(['microvm', 'q35'])(
      'on %s is itself in everything, and reaches its neighbours',
      async (machine) => {
        const { home, daemon } = await begin();
        await daemon.succeed('network-create', { name: 'lan', kind: 'nat' });
        await makeTemplate(daemon, 'mother', { machine, nics: [{ network: 'lan' }] });
        expect(await daemon.guest('mother')).toMatchObject({
          state: 'paused',
          reason: 'template',
          target: 'stopped',
        });
        const forks = await forkAll(daemon, 'mother', ['one', 'two', 'three']);
        for (const fork of forks) {
          expect(await wasForked(fork)).toBe(true);
          expect(fork).toMatchObject({ state: 'running', ready: { kind: 'agent' } });
        }
        const told = await Promise.all(
          forks.map(async (fork) => {
            const script =
              'hostname; cat /etc/machine-id; cat /sys/class/net/eth0/address; head -c 16 /dev/urandom | md5sum; ip -4 addr show dev eth0';
            const { stdout } = await runRoost(home, ['exec', fork.name, 'sh', '-c', script]);
            const [hostname, machineId, mac, random] = stdout.split('\n');
            expect(hostname).toBe(fork.name);
            expect(machineId).toBe(fork.id.replaceAll('-', ''));
            expect(mac).toBe(fork.nics[0]?.mac);
            expect(stdout).toContain(`inet ${fork.nics[0]?.ipv4 ?? 'none'}/`);
            return random;
          }),
        );
        allDiffer(told);
        allDiffer([...forks, await daemon.guest('mother')].map(({ nics }) => nics[0]?.mac));
        const ping = await runRoost(home, ['exec', 'one', 'ping', '-c', '1', '-W', '5', 'two']);
        expect(ping.stdout).toContain('1 packets received');
        const clock = Number((await runRoost(home, ['exec', 'one', 'date', '+%s'])).stdout);
        expect(Math.abs(clock - Date.now() / 1000)).toBeLessThan(60);
        await leaveNothing({ home, daemon });
      },
    );

    test.each(['microvm', 'q35'])(
      'of a guest that runs, on %s: it goes on as itself, and its forks from where it was',
      async (machine) => {
        const { home, daemon } = await begin();
        await daemon.succeed('network-create', { name: 'lan', kind: 'nat' });
        const script = 'echo before >/kept; i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done';
        const program = { image: 'box', command: ['sh', '-c', script] };
        const nics = [{ network: 'lan' }];
        await daemon.succeed('guest-create', boxGuest('web', { machine, program, nics, start: true }));
        const before = await daemon.guest('web');
        const boot = (await runRoost(home, ['exec', 'web', 'cat', '/proc/uptime'])).stdout;
        await counted(home, 'web', 5);
        using console = await openGuestConsole(daemon, 'web', { replayBytes: 0 });

        const { error, result } = await daemon.change('template-create', { guest: 'web', name: 'warm' });
        expect(error).toBeUndefined();
        expect(result).toMatchObject({ pausedMs: expect.any(Number), source: before.id });
        const after = await daemon.guest('web');
        expect(after).toMatchObject({ id: before.id, state: 'running' });
        await expect(console.seen('nothing')).rejects.toThrow('it goes on in another process');
        expect(after.nics).toEqual(before.nics);
        expect(after.process?.pid).not.toBe(before.process?.pid);
        expect(await wasForked(after)).toBe(true);
        expect(
          Number((await runRoost(home, ['exec', 'web', 'cat', '/proc/uptime'])).stdout.split(' ')[0]),
        ).toBeGreaterThan(Number(boot.split(' ')[0]));
        expect(await daemon.guest('warm')).toMatchObject({ state: 'paused', reason: 'template' });
        await runRoost(home, ['exec', 'web', 'sh', '-c', 'echo later >/kept']);

        const forks = await forkAll(daemon, 'warm', ['one', 'two']);
        const told = await Promise.all(
          [...forks, after].map(async (fork) => {
            expect(await wasForked(fork)).toBe(true);
            const { stdout } = await runRoost(home, [
              'exec',
              fork.name,
              'sh',
              '-c',
              'hostname; cat /sys/class/net/eth0/address /kept; head -c 16 /dev/urandom | md5sum',
            ]);
            const [hostname, mac, kept, random] = stdout.split('\n');
            expect([hostname, mac]).toEqual([fork.name, fork.nics[0]?.mac]);
            expect(kept).toBe(fork.name === 'web' ? 'later' : 'before');
            return random;
          }),
        );
        allDiffer(told);
        const ping = await runRoost(home, ['exec', 'one', 'ping', '-c', '1', '-W', '5', 'web']);
        expect(ping.stdout).toContain('1 packets received');

        // Nothing of what it wrote is missing, and its forks go on behind it.
        const numbers = await counted(home, 'web', 60);
        expect(numbers).toEqual(numbers.map((_, index) => index + 1));
        const [first = 0] = await counted(home, 'one', 5);
        expect(first).toBeGreaterThan(5);

        // A fork of what is a fork itself, by the command line.
        const forked = await runRoost(home, ['fork', 'web', '--name', 'three']);
        expect(forked.stderr).toContain('web stood still for');
        expect(forked.stdout.trim()).toBe('three');
        expect((await runRoost(home, ['exec', 'three', 'cat', '/kept'])).stdout).toBe('later\n');
        expect((await runRoost(home, ['exec', 'web', 'cat', '/kept'])).stdout).toBe('later\n');
        const all = await counted(home, 'web', 5);
        expect(all).toEqual(all.map((_, index) => index + 1));

        await daemon.succeed('guest-stop', { guest: 'web', force: true });
        await daemon.succeed('guest-start', { guest: 'web' });
        expect(await wasForked(await daemon.guest('web'))).toBe(false);
        await leaveNothing({ home, daemon });
      },
    );

    test('writes what is its own, and keeps it over a stop: then it boots from its own disk', async () => {
      const { home, daemon } = await begin();
      await makeTemplate(daemon, 'mother');
      await forkAll(daemon, 'mother', ['one', 'two']);
      for (const name of ['one', 'two'])
        expect(await runRoost(home, ['exec', name, 'sh', '-c', `echo ${name} > /who; sync`])).toMatchObject({
          code: 0,
        });
      await daemon.succeed('guest-stop', { guest: 'one', force: true });
      await daemon.succeed('guest-start', { guest: 'one' });
      const again = await daemon.guest('one');
      expect(await wasForked(again)).toBe(false);
      expect((await runRoost(home, ['exec', 'one', 'cat', '/who'])).stdout).toBe('one\n');
      expect((await runRoost(home, ['exec', 'two', 'cat', '/who'])).stdout).toBe('two\n');
      await leaveNothing({ home, daemon });
    });

    test('is made also after the daemon was killed, and boots when the memory is gone', async () => {
      const { home, daemon } = await begin();
      await makeTemplate(daemon, 'mother');
      await daemon.kill9();
      // None that waits: it would have its memory still.
      const next = await home.start({ args: await templateArgs({ waiting: 0 }) });
      expect(await next.guest('mother')).toMatchObject({ state: 'paused', reason: 'template' });
      const [warm] = await forkAll(next, 'mother', ['warm']);
      expect(warm && (await wasForked(warm))).toBe(true);
      process.kill((await next.guest('mother')).process?.pid ?? 0, 'SIGKILL');
      await next.guestWhen('mother', ({ state }) => state === 'stopped');
      const [cold] = await forkAll(next, 'mother', ['cold']);
      expect(cold).toMatchObject({ state: 'running' });
      expect(cold && (await wasForked(cold))).toBe(false);
      await leaveNothing({ home, daemon: next });
    });

    test('whose template is damaged boots, and says why', async () => {
      const { home, daemon } = await begin();
      await makeTemplate(daemon, 'mother');
      const mother = await daemon.guest('mother');
      await truncate(`${home.stateDirectory}/guests/${mother.id}/fork.state`, 1_000);
      const { id } = await daemon.change('guest-fork', { template: 'mother', name: 'one' });
      const one = await daemon.guest('one');
      expect(one).toMatchObject({ state: 'running', ready: { kind: 'agent' } });
      expect(await wasForked(one)).toBe(false);
      expect((await runRoost(home, ['explain', id])).stdout).toContain('it could not be forked, and boots');
      await leaveNothing({ home, daemon });
    });

    test('is what run makes where there is a template for it, and its template stays while it is there', async () => {
      const { home, daemon } = await begin();
      await makeTemplate(daemon, 'mother');
      await daemon.succeed('guest-create', { ...boxGuest('one'), start: true });
      const one = await daemon.guest('one');
      expect(one.forkOf).toBe((await daemon.guest('mother')).id);
      expect(await wasForked(one)).toBe(true);
      await daemon.succeed('guest-create', {
        ...boxGuest('larger'),
        memoryBytes: 192 * MEBIBYTE,
        start: true,
      });
      expect((await daemon.guest('larger')).forkOf).toBeUndefined();
      await expect(daemon.succeed('guest-delete', { guest: 'mother', force: true })).rejects.toThrow(
        /The disks of 1 guest lie on those of template mother: one/,
      );
      await expect(daemon.succeed('guest-start', { guest: 'mother' })).rejects.toThrow('is a template');
      await leaveNothing({ home, daemon });
    });

    test('is had by two commands', async () => {
      const { home, daemon } = await begin();
      const made = await runRoost(home, [
        'template',
        'create',
        'mother',
        '--image',
        'box',
        '--memory',
        '128MiB',
      ]);
      expect(made).toMatchObject({ code: 0, stdout: expect.stringContaining('template created') });
      const forked = await runRoost(home, [
        'fork',
        'mother',
        '--count',
        '3',
        '--name',
        'child',
        'sleep',
        '100000',
      ]);
      expect(forked).toMatchObject({ code: 0, stdout: 'child-1\nchild-2\nchild-3\n' });
      expect(await runRoost(home, ['fork', 'nobody'])).toMatchObject({ code: 3 });
      await leaveNothing({ home, daemon });
    });
  },
);
