/** Containers saved as images and cloned, with real parts: busybox under liblxc, what it wrote, and who its copies are. */
import { execFileSync } from 'node:child_process';
import { copyFile, mkdir, readdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { expect, it } from 'vitest';
import type { CommandInput } from '../../protocol/commands.ts';
import type { GuestView } from '../../protocol/guest.ts';
import { MEBIBYTE } from '../../protocol/types.ts';
import { makeBusyboxTree } from '../harness/busybox-root.ts';
import { leaveNothing } from '../harness/leave-nothing.ts';
import { describeWith } from '../harness/needs.ts';
import { tool } from '../harness/oci-layout.ts';
import { type DaemonHome, type RealDaemon, testDaemonHome } from '../harness/real-daemon.ts';
import { runRoost } from '../harness/roost-cli.ts';
import { testDirectory } from '../harness/test-directory.ts';
import { trackInstance } from '../harness/worker.ts';

interface At {
  readonly home: DaemonHome;
  readonly daemon: RealDaemon;
}

/** Programs of the host that busybox has not, with what they need. */
const addPrograms = async (tree: string, ...programs: readonly string[]): Promise<void> => {
  for (const name of programs) {
    const path = execFileSync('which', [name], { encoding: 'utf8' }).trim();
    const libraries = execFileSync('ldd', [path], { encoding: 'utf8' }).match(/\/\S+/g) ?? [];
    for (const file of [path, ...libraries]) {
      await mkdir(join(tree, dirname(file)), { recursive: true });
      await copyFile(file, join(tree, file));
    }
  }
};

/** Path of an archive of busybox, setcap and getcap. */
const makeRoot = async (): Promise<string> => {
  const directory = await testDirectory('root');
  const tree = join(directory, 'tree');
  await makeBusyboxTree(tree);
  await addPrograms(tree, 'setcap', 'getcap');
  const archive = join(directory, 'root.tar');
  await tool(['tar', '--create', `--file=${archive}`, '--owner=0', '--group=0', `--directory=${tree}`, '.']);
  return archive;
};

const container = (name: string, image: string): CommandInput<'guest-create'> => ({
  name,
  driver: 'lxc',
  memoryBytes: 64 * MEBIBYTE,
  boot: { kind: 'root', image },
  nics: [{ network: 'lan' }],
});

const agentUp = async ({ daemon }: At, name: string): Promise<void> => {
  await daemon.guestWhen(name, ({ agent }) => agent.state === 'connected');
};

/** Runs lines of a shell in a container; they have to succeed. */
const shellIn =
  ({ home }: At, name: string) =>
  async (lines: string): Promise<string> => {
    const { code, stdout, stderr } = await runRoost(home, ['exec', name, 'sh', '-c', lines]);
    expect({ lines, code, stderr }).toEqual({ lines, code: 0, stderr: '' });
    return stdout.trimEnd();
  };

const begin = async (): Promise<At> => {
  const home = await testDaemonHome({ hasControlGroups: true });
  const daemon = await home.start();
  trackInstance((await daemon.client.call('query-daemon', {})).instance);
  await daemon.succeed('image-import', { name: 'busybox', kind: 'root', path: await makeRoot() });
  await daemon.succeed('network-create', { name: 'lan' });
  return { home, daemon };
};

const WRITTEN = `
echo hello >/root/kept
rm /etc/hosts
mkdir /srv && echo mine >/srv/file && chown 1000:33 /srv/file && chmod 4750 /srv/file
cp /bin/busybox /root/able && setcap cap_net_raw+ep /root/able`;

const LOOK = `
cat /root/kept
[ ! -e /etc/hosts ] && echo no hosts
stat -c '%a %u:%g' /srv/file
getcap /root/able
ls /root`;

const SEEN = ['hello', 'no hosts', '4750 1000:33', '/root/able cap_net_raw=ep', 'able', 'kept'].join('\n');

/** A stopped container that has written something. */
const written = async (at: At): Promise<void> => {
  const { daemon } = at;
  await daemon.succeed('guest-create', { ...container('c1', 'busybox'), start: true });
  await agentUp(at, 'c1');
  await shellIn(at, 'c1')(WRITTEN);
  await daemon.succeed('guest-stop', { guest: 'c1' });
};

/** Files of a home below loop devices, and places below it where something is mounted. */
const tracesOf = async ({ stateDirectory }: DaemonHome): Promise<readonly string[]> => {
  const loops = (await readdir('/sys/block')).filter((name) => name.startsWith('loop'));
  const files = loops.map((name) =>
    readFile(join('/sys/block', name, 'loop/backing_file'), 'utf8').catch(() => ''),
  );
  const mounts = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n');
  return [...(await Promise.all(files)), ...mounts].filter((line) => line.includes(stateDirectory));
};

describeWith(['root', 'lxc', 'sqfstar', 'nft', 'ip', 'dnsmasq'], 'what a container has written', () => {
  it('is in an image that is made of it, and in a clone; each is itself', async () => {
    const at = await begin();
    const { home, daemon } = at;
    await written(at);
    expect(await tracesOf(home)).toEqual([]);
    expect(await runRoost(home, ['save', 'c1', 'web@v1'])).toMatchObject({
      stdout: 'c1 saved as web@v1\n',
      code: 0,
    });
    expect(await tracesOf(home)).toEqual([]);
    expect((await daemon.client.call('query-images', { names: ['web'] })).images).toMatchObject([
      {
        kind: 'root',
        state: 'ready',
        source: { kind: 'guest', guest: 'c1', image: expect.stringMatching(/^busybox@/) as string },
      },
    ]);
    expect(await runRoost(home, ['clone', 'c1', 'c2', '--start'])).toMatchObject({
      stdout: 'c1 cloned as c2 and started\n',
      code: 0,
    });
    await daemon.succeed('guest-create', { ...container('c3', 'web'), start: true });
    await daemon.succeed('guest-start', { guest: 'c1' });
    const names = ['c1', 'c2', 'c3'] as const;
    for (const name of names) {
      await agentUp(at, name);
      expect({ name, seen: await shellIn(at, name)(LOOK) }).toEqual({ name, seen: SEEN });
    }
    const who = await Promise.all(
      names.map((name) => shellIn(at, name)('hostname; cat /sys/class/net/eth0/address')),
    );
    const views = await Promise.all(names.map((name) => daemon.guest(name)));
    expect(who).toEqual(views.map(({ name, nics }) => `${name}\n${nics[0]?.mac}`));
    const different = (of: (view: GuestView) => unknown): number => new Set(views.map(of)).size;
    expect(different(({ nics }) => nics[0]?.ipv4)).toBe(3);
    expect(different(({ nics }) => nics[0]?.mac)).toBe(3);
    expect(different(({ idRange }) => idRange?.first)).toBe(3);

    await shellIn(at, 'c1')('echo later >/root/kept');
    for (const name of ['c2', 'c3']) expect(await shellIn(at, name)('cat /root/kept')).toBe('hello');
    await leaveNothing(at);
    expect(await tracesOf(home)).toEqual([]);
  });

  it('is not saved while the container runs, and a start waits until it is', async () => {
    const at = await begin();
    const { daemon } = at;
    await written(at);
    await daemon.succeed('guest-start', { guest: 'c1' });
    const refusal = { wire: { class: 'FailedPrecondition', data: { state: 'running' } } };
    await expect(daemon.client.call('guest-save', { guest: 'c1' })).rejects.toMatchObject(refusal);
    await expect(daemon.client.call('guest-clone', { guest: 'c1', name: 'c2' })).rejects.toMatchObject(
      refusal,
    );
    await daemon.succeed('guest-stop', { guest: 'c1' });
    const saving = await daemon.client.call('guest-save', { guest: 'c1', name: 'web' });
    const cloning = await daemon.client.call('guest-clone', { guest: 'c1', name: 'c2' });
    await daemon.succeed('guest-start', { guest: 'c1' });
    for (const { operation } of [saving, cloning])
      expect(await daemon.client.call('operation-wait', { operation })).toMatchObject({ state: 'succeeded' });
    await agentUp(at, 'c1');
    expect(await shellIn(at, 'c1')(LOOK)).toBe(SEEN);
    await leaveNothing(at);
  });

  it.each([
    ['guest-save/save/after', 'web'],
    ['guest-save/copy/after', 'web'],
    ['guest-clone/copy/after', 'c2'],
    ['guest-clone/record/before', 'c2'],
  ])('is kept by the next daemon where one is killed at %s', async (crashAt, made) => {
    const at = await begin();
    const { home } = at;
    await written(at);
    await at.daemon.stop();
    const doomed = await home.start({ crashAt });
    const asked = crashAt.startsWith('guest-save')
      ? doomed.change('guest-save', { guest: 'c1', name: 'web' })
      : doomed.change('guest-clone', { guest: 'c1', name: 'c2' });
    await expect(asked).rejects.toThrow(/connection/i);
    await doomed.ended;

    const daemon = await home.start();
    const { operations } = await daemon.client.call('query-operations', { limit: 1 });
    for (const { id } of operations)
      expect(await daemon.client.call('operation-wait', { operation: id })).toMatchObject({
        state: 'succeeded',
      });
    if (made === 'web') await daemon.succeed('guest-create', container('c2', 'web'));
    await daemon.succeed('guest-start', { guest: 'c2' });
    await agentUp({ home, daemon }, 'c2');
    expect(await shellIn({ home, daemon }, 'c2')(LOOK)).toBe(SEEN);
    await leaveNothing({ home, daemon });
    expect(await tracesOf(home)).toEqual([]);
  });
});
