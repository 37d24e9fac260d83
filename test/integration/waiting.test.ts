/** Forks that are made before anybody asks for them, and become the guest of whoever does. */
import { expect, test } from 'vitest';
import { MEBIBYTE } from '../../protocol/types.ts';
import { boxGuest, makeMother } from '../harness/box-guests.ts';
import { leaveNothing } from '../harness/leave-nothing.ts';
import { provideMicrovmImages, wasForked } from '../harness/microvm-images.ts';
import { describeWith } from '../harness/needs.ts';
import { type DaemonHome, type RealDaemon, testDaemonHome } from '../harness/real-daemon.ts';
import { runRoost } from '../harness/roost-cli.ts';
import { hasWaited, templateArgs, untilAsWanted, untilWaiting } from '../harness/waiting-forks.ts';

const images = provideMicrovmImages();

interface Setting {
  readonly home: DaemonHome;
  readonly daemon: RealDaemon;
}

/** A daemon with a template on a network, of which nothing has been forked yet. */
const begin = async (): Promise<Setting> => {
  const home = await testDaemonHome();
  // It logs all, so that one can be seen to have nothing more to do.
  const daemon = await home.start({ args: await templateArgs({}, { level: 'debug' }) });
  await makeMother(daemon, images);
  return { home, daemon };
};

/** The same, where one has been forked, `one`, and the next waits. */
const beginWaiting = async (): Promise<Setting> => {
  const setting = await begin();
  await setting.daemon.succeed('guest-fork', { template: 'mother', name: 'one' });
  await untilWaiting(setting, 'mother', 1);
  return setting;
};

const fork = async (daemon: RealDaemon, name: string): Promise<void> =>
  void (await daemon.succeed('guest-fork', { template: 'mother', name }));

const namesOf = async (daemon: RealDaemon): Promise<readonly (string | undefined)[]> =>
  (await daemon.client.call('query-guests', {})).guests.map(({ name }) => name);

/** The name and the id of the one that waits, as the journal has them. */
const waiting = async (daemon: RealDaemon): Promise<{ readonly id: string; readonly name: string }> => {
  const { operations } = await daemon.client.call('query-operations', {});
  const prepared = operations.find(({ kind }) => kind === 'guest-prepare');
  if (!prepared) throw new Error('none was prepared');
  return prepared.subject;
};

describeWith(
  ['root', 'qemu', 'qemu-img', 'sqfstar', 'nft', 'ip', 'dnsmasq', 'tun'],
  'a fork that waits',
  () => {
    test('is nobody’s until it is asked for, and is then that guest in everything', async () => {
      const { home, daemon } = await beginWaiting();
      expect(await hasWaited(daemon, 'one')).toBe(false);
      expect(await namesOf(daemon)).toEqual(['mother', 'one']);

      const program = { image: 'box', command: ['sh', '-c', 'hostname; cat /etc/hostname; sleep 100000'] };
      const labels = { of: 'two' };
      const nics = [{ network: 'lan' }];
      await daemon.succeed('guest-create', boxGuest('two', { program, labels, nics, start: true }));
      const two = await daemon.guest('two');
      expect(await hasWaited(daemon, 'two')).toBe(true);
      expect(await wasForked(two)).toBe(true);
      expect(two).toMatchObject({ state: 'running', target: 'running', labels, ready: { kind: 'agent' } });
      const script =
        'hostname; cat /etc/machine-id; cat /sys/class/net/eth0/address; grep two /etc/hosts; date +%s';
      const { stdout } = await runRoost(home, ['exec', 'two', 'sh', '-c', script]);
      const [hostname, machineId, mac, hosts, seconds] = stdout.split('\n');
      expect([hostname, machineId, mac, hosts]).toEqual([
        'two',
        two.id.replaceAll('-', ''),
        two.nics[0]?.mac,
        `${two.nics[0]?.ipv4 ?? ''} two`,
      ]);
      expect(Math.abs(Number(seconds) - Date.now() / 1000)).toBeLessThan(60);
      expect((await runRoost(home, ['logs', 'two'])).stdout).toBe('two\ntwo\n');
      const ping = await runRoost(home, ['exec', 'one', 'ping', '-c', '1', '-W', '5', 'two']);
      expect(ping.stdout).toContain('1 packets received');

      const { events } = await daemon.client.call('query-events', {});
      const aboutTwo = events.filter(({ data }) => 'name' in data && data.name === 'two');
      expect(aboutTwo.slice(0, 2).map(({ event }) => event)).toEqual([
        'GUEST_CREATED',
        'GUEST_STATE_CHANGED',
      ]);
      const ofGuests = events.filter(({ event }) => event.startsWith('GUEST_'));
      expect(JSON.stringify(ofGuests)).not.toContain('waiting-');
      await leaveNothing({ home, daemon });
    });

    test('is not handed to whoever asks for other addresses, and to one only of many', async () => {
      const { home, daemon } = await beginWaiting();
      const mac = '52:54:00:12:34:56';
      await daemon.succeed(
        'guest-create',
        boxGuest('other', { nics: [{ network: 'lan', mac }], start: true }),
      );
      expect(await hasWaited(daemon, 'other')).toBe(false);
      expect((await daemon.guest('other')).nics[0]?.mac).toBe(mac);
      const names = ['a', 'b', 'c'];
      await Promise.all(names.map((name) => fork(daemon, name)));
      const waited = await Promise.all(names.map((name) => hasWaited(daemon, name)));
      expect(waited.filter(Boolean)).toHaveLength(1);
      const guests = await Promise.all(names.map((name) => daemon.guest(name)));
      expect(new Set(guests.map(({ nics }) => nics[0]?.ipv4)).size).toBe(3);
      // As many as were asked for lately.
      await untilWaiting({ home, daemon }, 'mother', 4);
      await leaveNothing({ home, daemon });
    });

    test('gives its address up to whoever wishes for that', async () => {
      const { home, daemon } = await beginWaiting();
      const { id } = await waiting(daemon);
      const one = (await daemon.guest('one')).nics[0]?.ipv4 ?? '';
      const next = one.replace(/\d+$/, (last) => String(Number(last) + 1));
      const nics = [{ network: 'lan', ipv4: next }];
      await daemon.succeed('guest-create', boxGuest('fixed', { nics }));
      expect((await daemon.guest('fixed')).nics[0]?.ipv4).toBe(next);
      const { operations } = await daemon.client.call('query-operations', {});
      expect(operations.find(({ kind }) => kind === 'guest-delete')?.subject.id).toBe(id);
      const taken = daemon.client.call('guest-create', boxGuest('late', { nics }));
      await expect(taken).rejects.toMatchObject({ wire: { class: 'AlreadyExists' } });
      await untilWaiting({ home, daemon }, 'mother', 1);
      await leaveNothing({ home, daemon });
    });

    test('outlives the daemon, and the same request twice gets the same guest', async () => {
      const { home, daemon } = await beginWaiting();
      const { id } = await waiting(daemon);
      await daemon.kill9();
      const next = await home.start();
      await untilWaiting({ home, daemon: next }, 'mother', 1);
      const asked = { template: 'mother', name: 'two', idempotencyKey: 'k1' } as const;
      const first = await next.client.call('guest-fork', asked);
      const second = await next.client.call('guest-fork', asked);
      expect(second).toEqual(first);
      expect(first.id).toBe(id);
      await next.client.call('operation-wait', { operation: first.operation });
      expect(await next.guest('two')).toMatchObject({ id, state: 'running' });
      await leaveNothing({ home, daemon: next });
    });

    test('is left alone by everybody else, and is named in no list', async () => {
      const { home, daemon } = await beginWaiting();
      const { name } = await waiting(daemon);
      for (const verb of ['start', 'pause', 'rename'] as const) {
        const refused = await runRoost(home, verb === 'rename' ? [verb, name, 'mine'] : [verb, name]);
        expect(refused.code).not.toBe(0);
        expect(refused.stderr).toContain(`Guest ${name} waits for somebody who forks its template`);
      }
      const host = await daemon.client.call('query-host', {});
      // Two guests' memory, and what three processes need besides.
      expect(host.memory.committedBytes).toBeLessThan(4 * 128 * MEBIBYTE);
      await leaveNothing({ home, daemon });
    });

    test('goes with its template, when that is stopped and when it is deleted', async () => {
      const { home, daemon } = await beginWaiting();
      const { id } = await waiting(daemon);
      await daemon.succeed('guest-delete', { guest: 'one', force: true });
      await daemon.succeed('guest-stop', { guest: 'mother' });
      await expect(daemon.client.call('query-guest', { guest: id })).rejects.toThrow(/no guest called/);
      // What is forked from now on is booted from the template's disks, and nothing waits.
      await fork(daemon, 'cold');
      expect(await daemon.guest('mother')).toMatchObject({ state: 'stopped', template: { waiting: 0 } });
      await leaveNothing({ home, daemon });
    });

    test('that dies is gone, and another is made', async () => {
      const { home, daemon } = await beginWaiting();
      const { id, name } = await waiting(daemon);
      // From here on its death alone is a reason to make another.
      await untilAsWanted(daemon, 1);
      const { process: of } = await daemon.client.call('query-guest', { guest: id });
      process.kill(of?.pid ?? 0, 'SIGKILL');
      await untilWaiting({ home, daemon }, 'mother', 0);
      await untilWaiting({ home, daemon }, 'mother', 1);
      expect((await waiting(daemon)).name).not.toBe(name);
      await fork(daemon, 'two');
      expect(await hasWaited(daemon, 'two')).toBe(true);
      await leaveNothing({ home, daemon });
    });

    test('ends at once with the host', async () => {
      const { home, daemon } = await beginWaiting();
      await daemon.succeed('guest-delete', { guest: 'one', force: true });
      const { operation } = await daemon.client.call('host-shutdown-guests', { timeoutMs: 60_000 });
      const ended = await daemon.client.call('operation-wait', { operation });
      expect(ended).toMatchObject({ state: 'succeeded', result: { problems: [] } });
      expect((await daemon.guest('mother')).template?.waiting).toBe(0);
      await leaveNothing({ home, daemon });
    });

    test('has its NICs under the names that are asked for', async () => {
      const home = await testDaemonHome();
      const daemon = await home.start();
      await images.importInto(daemon);
      await daemon.succeed('network-create', { name: 'lan', kind: 'nat' });
      const nics = [{ name: 'lan0', network: 'lan' }];
      await daemon.succeed('guest-create', boxGuest('mother', { nics, machine: 'q35' }));
      await daemon.succeed('template-create', { guest: 'mother' });
      await daemon.succeed('guest-create', boxGuest('one', { nics, machine: 'q35', start: true }));
      await untilWaiting({ home, daemon }, 'mother', 1);
      await daemon.succeed('guest-create', boxGuest('two', { nics, machine: 'q35', start: true }));
      expect(await hasWaited(daemon, 'two')).toBe(true);
      const [nic] = (await daemon.guest('two')).nics;
      expect(nic?.name).toBe('lan0');
      // Its address is free again once that NIC is gone.
      await daemon.succeed('guest-stop', { guest: 'two', force: true });
      await daemon.succeed('guest-nic-detach', { guest: 'two', nic: 'lan0' });
      const again = [{ network: 'lan', mac: nic?.mac ?? '' }];
      await daemon.succeed('guest-create', boxGuest('three', { nics: again, machine: 'q35' }));
      await leaveNothing({ home, daemon });
    });

    test('is not made where the configuration says so', async () => {
      const home = await testDaemonHome();
      const daemon = await home.start({ args: await templateArgs({ waiting: 0 }) });
      await makeMother(daemon, images);
      await fork(daemon, 'one');
      await fork(daemon, 'two');
      expect(await hasWaited(daemon, 'two')).toBe(false);
      await leaveNothing({ home, daemon });
    });
  },
);
