/** A template that has lost its memory: it is made anew beside the guests that lie on what it was. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import type { GuestView } from '../../protocol/guest.ts';
import { MEBIBYTE } from '../../protocol/types.ts';
import { boxGuest } from '../harness/box-guests.ts';
import { leaveNothing } from '../harness/leave-nothing.ts';
import { provideMicrovmImages, wasForked } from '../harness/microvm-images.ts';
import { describeWith } from '../harness/needs.ts';
import { type DaemonHome, type RealDaemon, testDaemonHome } from '../harness/real-daemon.ts';
import { runRoost } from '../harness/roost-cli.ts';
import { hasWaited, templateArgs, untilWaiting } from '../harness/waiting-forks.ts';

const images = provideMicrovmImages();

interface Setting {
  readonly home: DaemonHome;
  readonly daemon: RealDaemon;
}

/** Without forks that wait, unless they are wanted: they have their memory still. */
const begin = async (templates: Parameters<typeof templateArgs>[0] = {}): Promise<Setting> => {
  const home = await testDaemonHome();
  const daemon = await home.start({ args: await templateArgs({ waiting: 0, ...templates }) });
  await images.importInto(daemon);
  await daemon.succeed('guest-create', boxGuest('mother'));
  await daemon.succeed('template-create', { guest: 'mother' });
  return { home, daemon };
};

const fork = async (daemon: RealDaemon, name: string): Promise<GuestView> => {
  await daemon.succeed('guest-fork', { template: 'mother', name });
  return await daemon.guest(name);
};

const isKept = ({ state, reason }: GuestView): boolean => state === 'paused' && reason === 'template';

const loseMemory = async (daemon: RealDaemon): Promise<void> => {
  process.kill((await daemon.guest('mother')).process?.pid ?? 0, 'SIGKILL');
  await daemon.guestWhen('mother', ({ state }) => state === 'stopped');
};

/** Each writes its name where the others have nothing, and has it still after a boot. */
const writeWho = async (home: DaemonHome, name: string): Promise<void> => {
  const { stdout, code } = await runRoost(home, ['exec', name, 'sh', '-c', `ls /; echo ${name} >/who; sync`]);
  expect(code).toBe(0);
  expect(stdout.split('\n')).not.toContain('who');
};

const expectWho = async ({ home, daemon }: Setting, names: readonly string[]): Promise<void> => {
  for (const name of names) {
    const { id } = await daemon.guest(name);
    const { stdout } = await runRoost(home, [
      'exec',
      name,
      'cat',
      '/who',
      '/etc/hostname',
      '/etc/machine-id',
    ]);
    expect(stdout).toBe(`${name}\n${name}\n${id.replaceAll('-', '')}\n`);
  }
};

describeWith(['root', 'qemu', 'qemu-img', 'sqfstar'], 'a template that has lost its memory', () => {
  test('is made anew once somebody forks it, again and again, and all its forks keep what is theirs', async () => {
    const { home, daemon } = await begin();
    const names: string[] = [];
    const add = async (name: string): Promise<GuestView> => {
      const made = await fork(daemon, name);
      await writeWho(home, name);
      names.push(name);
      return made;
    };
    expect(await wasForked(await add('first'))).toBe(true);
    for (const round of ['second', 'third']) {
      await loseMemory(daemon);
      const before = (await daemon.guest('mother')).template?.madeAt ?? 0;
      expect(await wasForked(await add(`${round}-cold`))).toBe(false);
      const again = await daemon.guestWhen('mother', isKept);
      expect(again.template?.madeAt).toBeGreaterThan(before);
      expect(await wasForked(await add(`${round}-warm`))).toBe(true);
    }
    const { operations } = await daemon.client.call('query-operations', { subject: 'mother' });
    expect(operations.filter(({ actor }) => actor === 'policy:template')).toHaveLength(2);

    await daemon.kill9();
    const next = await home.start();
    for (const name of names) await next.succeed('guest-stop', { guest: name, force: true });
    await Promise.all(names.map((name) => next.succeed('guest-start', { guest: name })));
    await expectWho({ home, daemon: next }, names);
    await leaveNothing({ home, daemon: next });
  });

  test('keeps of what it was before what a fork lies on, and no more', async () => {
    const { home, daemon } = await begin();
    const { id } = await daemon.guest('mother');
    const files = async (): Promise<readonly string[]> =>
      (await readdir(join(home.stateDirectory, 'pools/default/guests', id)))
        .filter((name) => /^upper.*\.qcow2$/.test(name))
        .sort();
    const [first = ''] = await files();
    const remake = async (cold: string): Promise<void> => {
      await loseMemory(daemon);
      await fork(daemon, cold);
      await daemon.guestWhen('mother', isKept);
    };
    await remake('one');
    expect(await fork(daemon, 'on-second')).toMatchObject({ state: 'running' });
    await writeWho(home, 'on-second');
    const second = (await files()).filter((name) => name !== first);
    expect(second).toHaveLength(1);
    await remake('also-on-second');
    expect(await files()).toHaveLength(3);
    await daemon.succeed('guest-delete', { guest: 'also-on-second', force: true });
    expect(await files()).toHaveLength(3);
    await daemon.succeed('guest-stop', { guest: 'on-second', force: true });
    await daemon.succeed('guest-start', { guest: 'on-second' });
    await expectWho({ home, daemon }, ['on-second']);
    await daemon.succeed('guest-delete', { guest: 'on-second', force: true });
    await vi.waitUntil(async () => (await files()).length === 2, { timeout: 30_000 });
    expect(await files()).not.toContain(second[0]);
    const last = await fork(daemon, 'last');
    expect(await wasForked(last)).toBe(true);
    await daemon.succeed('guest-stop', { guest: 'last', force: true });
    await daemon.succeed('guest-start', { guest: 'last' });
    await leaveNothing({ home, daemon });
  });

  test('because somebody stopped it, is made anew when somebody says so', async () => {
    const { home, daemon } = await begin();
    await daemon.succeed('guest-stop', { guest: 'mother' });
    expect(await wasForked(await fork(daemon, 'cold'))).toBe(false);
    await writeWho(home, 'cold');
    expect(await daemon.guest('mother')).toMatchObject({ state: 'stopped' });
    const made = await runRoost(home, ['template', 'create', 'mother']);
    expect([made.code, made.stderr]).toEqual([0, '']);
    expect(isKept(await daemon.guest('mother'))).toBe(true);
    expect(await wasForked(await fork(daemon, 'warm'))).toBe(true);
    await writeWho(home, 'warm');
    await expectWho({ home, daemon }, ['cold', 'warm']);
    await leaveNothing({ home, daemon });
  });

  test('leaves those that wait what it was', async () => {
    const { home, daemon } = await begin({ waiting: 1 });
    await fork(daemon, 'one');
    await untilWaiting({ home, daemon }, 'mother', 1);
    await loseMemory(daemon);
    expect(await wasForked(await fork(daemon, 'two'))).toBe(true);
    expect(await hasWaited(daemon, 'two')).toBe(true);
    await writeWho(home, 'two');
    await daemon.guestWhen('mother', isKept);
    await daemon.succeed('guest-stop', { guest: 'two', force: true });
    await daemon.succeed('guest-start', { guest: 'two' });
    await expectWho({ home, daemon }, ['two']);
    await leaveNothing({ home, daemon });
  });

  test('gives way to another where both have no room, and comes back when it is wanted', async () => {
    const { home, daemon } = await begin({ memoryBytes: 320 * MEBIBYTE });
    await daemon.succeed('guest-create', boxGuest('other'));
    await daemon.succeed('template-create', { guest: 'other' });
    expect(isKept(await daemon.guest('other'))).toBe(true);
    expect((await daemon.guest('mother')).state).toBe('stopped');
    expect(await wasForked(await fork(daemon, 'one'))).toBe(false);
    await daemon.guestWhen('mother', isKept);
    expect((await daemon.guest('other')).state).toBe('stopped');
    expect(await wasForked(await fork(daemon, 'two'))).toBe(true);

    await daemon.succeed('guest-create', { ...boxGuest('large'), memoryBytes: 512 * MEBIBYTE });
    const refused = await runRoost(home, ['template', 'create', 'large']);
    expect(refused.stderr).toMatch(/needs \d+ MiB of the 320 MiB that templates may have together/);
    expect(isKept(await daemon.guest('mother'))).toBe(true);
    await leaveNothing({ home, daemon });
  });

  test('is not made anew where a program ran in it', async () => {
    const { home, daemon } = await begin();
    await fork(daemon, 'web');
    await daemon.succeed('template-create', { guest: 'web', name: 'warm' });
    process.kill((await daemon.guest('warm')).process?.pid ?? 0, 'SIGKILL');
    await daemon.guestWhen('warm', ({ state }) => state === 'stopped');
    await daemon.succeed('guest-fork', { template: 'warm', name: 'cold' });
    expect(await daemon.guest('cold')).toMatchObject({ state: 'running' });
    const refused = await runRoost(home, ['template', 'create', 'warm']);
    expect(refused.stderr).toContain('what that had in memory is gone');
    expect((await daemon.guest('warm')).state).toBe('stopped');
    await leaveNothing({ home, daemon });
  });
});
