/** Directories of the host in microVMs: shared both ways, kept read-only by the host, and gone with the guest. */
import { execFileSync } from 'node:child_process';
import {
  chmod,
  chown,
  lstat,
  mkdir,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import type { CommandInput } from '../../protocol/commands.ts';
import type { GuestView } from '../../protocol/guest.ts';
import { MEBIBYTE } from '../../protocol/types.ts';
import { beginWithBox } from '../harness/box-guests.ts';
import { directoryServers } from '../harness/directory-servers.ts';
import { leaveNothing } from '../harness/leave-nothing.ts';
import { provideMicrovmImages, wasForked } from '../harness/microvm-images.ts';
import { describeWith } from '../harness/needs.ts';
import type { DaemonHome, RealDaemon } from '../harness/real-daemon.ts';
import { roostProgram, runRoost } from '../harness/roost-cli.ts';
import { TestClient } from '../harness/test-client.ts';
import { testDirectory } from '../harness/test-directory.ts';

const images = provideMicrovmImages();

const begin = () => beginWithBox(images);

type Filesystems = NonNullable<CommandInput<'guest-create'>['filesystems']>;

/** Until somebody makes this file in it. */
const waits = { command: ['sh', '-c', 'until [ -e /tmp/stop ]; do sleep 0.1; done; exit 7'] };

const specOf = (
  name: string,
  filesystems: Filesystems,
  more: Partial<CommandInput<'guest-create'>> = {},
): CommandInput<'guest-create'> => ({
  name,
  machine: 'microvm',
  memoryBytes: 128 * MEBIBYTE,
  program: { image: 'box', ...waits },
  qemu: { accel: 'tcg' },
  filesystems,
  start: true,
  ...more,
});

const inside = (home: DaemonHome, guest: string, script: string) =>
  runRoost(home, ['exec', guest, 'sh', '-c', script]);

/** As a program in the guest sees it, where it went well. */
const told = async (home: DaemonHome, guest: string, script: string): Promise<string> => {
  const { code, stdout, stderr } = await inside(home, guest, script);
  expect({ script, code, stderr }).toEqual({ script, code: 0, stderr: '' });
  return stdout;
};

const ended = (daemon: RealDaemon, name: string): ReturnType<RealDaemon['guest']> =>
  daemon.guestWhen(name, ({ state }) => state === 'stopped' || state === 'failed');

const lostOf = ({ filesystems = [] }: GuestView): NonNullable<GuestView['filesystems']> =>
  filesystems.filter(({ lostAt }) => lostAt !== undefined);
const lacksAll = (guest: GuestView): boolean => lostOf(guest).length === guest.filesystems?.length;

const qemuOf = async (daemon: RealDaemon, name: string): Promise<number> =>
  (await daemon.guest(name)).process?.pid ?? 0;

const initramfsIn = async (home: DaemonHome, daemon: RealDaemon): Promise<string> => {
  const { id } = await daemon.client.call('query-image', { image: 'microvm-init' });
  const directory = join(home.stateDirectory, 'images', id);
  const files = (await readdir(directory)).filter((name) => !name.endsWith('.json'));
  expect(files).toHaveLength(1);
  return join(directory, files[0] ?? '');
};

/** The same archive, in whose list of modules nobody finds those of virtiofs. */
const withoutVirtiofs = (initramfs: Buffer): Buffer => {
  const text = initramfs.toString('latin1');
  expect(text).toContain('\nvirtiofs ');
  return Buffer.from(text.replaceAll('\nvirtiofs ', '\nvirtiofz '), 'latin1');
};

describeWith(
  ['root', 'qemu', 'qemu-img', 'sqfstar', 'virtiofsd', 'nft', 'ip', 'dnsmasq', 'tun'],
  'directories of the host in a microVM',
  () => {
    test.each(['microvm', 'q35'])(
      'on %s are shared both ways, and what is read-only the host keeps so',
      async (machine) => {
        const shared = await testDirectory('shared');
        const kept = await testDirectory('kept, with=signs:no');
        await writeFile(join(shared, 'from-host'), 'hello\n', { mode: 0o600 });
        await chown(join(shared, 'from-host'), 1234, 4321);
        await symlink('/etc/hostname', join(shared, 'link'));
        await writeFile(join(kept, 'file'), 'kept\n');
        await mkdir(join(kept, 'mounted'));
        // What is mounted below a directory is as read-only as it is.
        execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', join(kept, 'mounted')]);
        onTestFinished(() => void execFileSync('umount', [join(kept, 'mounted')]));
        const { home, daemon } = await begin();
        const filesystems = [
          { source: kept, target: '/data/kept', readOnly: true },
          { source: shared, target: '/data' },
        ];
        await daemon.succeed('guest-create', specOf('web', filesystems, { machine }));
        expect((await daemon.guest('web')).filesystems).toEqual([
          { name: 'fs0', ...filesystems[0], mode: 'share' },
          { name: 'fs1', ...filesystems[1], readOnly: false, mode: 'share' },
        ]);

        expect(await told(home, 'web', 'cat /data/from-host; stat -c "%u %g %a" /data/from-host')).toBe(
          'hello\n1234 4321 600\n',
        );
        await told(home, 'web', 'echo hi > /data/out; chown 101:102 /data/out; chmod 640 /data/out');
        const out = await stat(join(shared, 'out'));
        expect({ uid: out.uid, gid: out.gid, mode: out.mode & 0o7777 }).toEqual({
          uid: 101,
          gid: 102,
          mode: 0o640,
        });
        expect(await readFile(join(shared, 'out'), 'utf8')).toBe('hi\n');
        await chmod(join(shared, 'out'), 0o4755);
        await writeFile(join(shared, 'later'), 'later\n');
        expect(await told(home, 'web', 'cat /data/later')).toBe('later\n');
        // A link is followed in the guest, and leads to what is there.
        expect(await told(home, 'web', 'cat /data/link')).toBe('web\n');
        expect(await inside(home, 'web', 'mknod /data/disk b 8 0')).toMatchObject({
          code: 1,
          stderr: expect.stringContaining('Operation not permitted'),
        });

        const written = 'echo x > /data/kept/new || echo y > /data/kept/mounted/new';
        for (const script of [
          written,
          `mount -o remount,rw /data/kept; ${written}`,
          'mkdir /tmp/again; mount -t virtiofs fs0 /tmp/again; echo x > /tmp/again/new',
          'rm /data/kept/file',
          'chmod 777 /data/kept/file',
        ])
          expect(await inside(home, 'web', script)).toMatchObject({
            code: 1,
            stderr: expect.stringContaining('Read-only file system'),
          });
        await expect(lstat(join(kept, 'new'))).rejects.toThrow('ENOENT');
        expect(await told(home, 'web', 'cat /data/kept/file')).toBe('kept\n');

        expect((await runRoost(home, ['show', 'web'])).stdout).toMatch(
          /Directories of the host:\n.*\n +fs0 .* \/data\/kept +read-only/,
        );
        expect((await runRoost(home, ['plan', 'web'])).stdout).toMatch(
          new RegExp(`\n--directory\n\\d+:ro:${kept}\n[^]*\nprocess +\\S+\\.directories\\.lock\n`),
        );
        expect(directoryServers(home)).toHaveLength(4);
        await told(home, 'web', 'touch /tmp/stop');
        expect((await ended(daemon, 'web')).lastExit).toMatchObject({ exitCode: 7 });
        expect(directoryServers(home)).toEqual([]);
        expect((await daemon.client.call('query-fsck', {})).differences).toEqual([]);
        await leaveNothing({ home, daemon });
      },
    );

    test('are given by roost run -v as docker run does it, and to several guests at once', async () => {
      const parent = await testDirectory('parent');
      await mkdir(join(parent, 'x'));
      const { home, daemon } = await begin();
      const one = ['run', '-d', '--name', 'one', '-v', './x:/x', 'box', 'sleep', '1000'];
      expect(await runRoost(home, one, { cwd: parent })).toEqual({ code: 0, stdout: 'one\n', stderr: '' });
      const two = ['run', '--rm', '-v', `${parent}:/y/:ro`, '-v', './x/:/z', 'box', 'sh', '-c'];
      const script = 'echo from two > /z/file && ls -d /y/x && ! touch /y/no 2> /dev/null';
      expect(await runRoost(home, [...two, script], { cwd: parent })).toMatchObject({
        code: 0,
        stdout: '/y/x\n',
      });
      expect(await told(home, 'one', 'cat /x/file; echo from one >> /x/file')).toBe('from two\n');
      expect(await readFile(join(parent, 'x/file'), 'utf8')).toBe('from two\nfrom one\n');
      expect(await runRoost(home, ['run', '-v', 'data:/data', 'box'])).toMatchObject({
        code: 125,
        stderr: expect.stringContaining('volumes with a name are not made'),
      });
      await leaveNothing({ home, daemon });
    });

    test('are served no more when QEMU is killed, also by one that was stopped', async () => {
      const source = await testDirectory('source');
      const { home, daemon } = await begin();
      await daemon.succeed('guest-create', specOf('web', [{ source, target: '/data' }]));
      process.kill(await qemuOf(daemon, 'web'), 'SIGKILL');
      expect((await ended(daemon, 'web')).lastExit).toMatchObject({ cause: 'killed' });
      expect(directoryServers(home)).toEqual([]);
      await daemon.succeed('guest-start', { guest: 'web' });
      for (const pid of directoryServers(home)) process.kill(pid, 'SIGSTOP');
      process.kill(await qemuOf(daemon, 'web'), 'SIGKILL');
      expect((await ended(daemon, 'web')).lastExit).toMatchObject({ cause: 'killed' });
      expect(directoryServers(home)).toEqual([]);
      await leaveNothing({ home, daemon });
    });

    test('outlive the daemon with their guest, and end with it under the next one', async () => {
      const source = await testDirectory('source');
      const { home, daemon } = await begin();
      await daemon.succeed('guest-create', specOf('web', [{ source, target: '/data' }]));
      const servers = directoryServers(home);
      const qemu = await qemuOf(daemon, 'web');
      await daemon.kill9();
      const next = await home.start();
      expect(directoryServers(home)).toEqual(servers);
      await told(home, 'web', 'echo there > /data/file');
      expect(await readFile(join(source, 'file'), 'utf8')).toBe('there\n');
      expect((await next.client.call('query-fsck', {})).differences).toEqual([]);
      expect((await next.guest('web')).filesystems).toEqual([
        { name: 'fs0', source, target: '/data', readOnly: false, mode: 'share' },
      ]);
      // While there is no daemon.
      await next.kill9();
      process.kill(servers[0] ?? 0, 'SIGSTOP');
      process.kill(qemu, 'SIGKILL');
      const last = await home.start();
      expect((await ended(last, 'web')).process).toBeUndefined();
      expect(directoryServers(home)).toEqual([]);
      await leaveNothing({ home, daemon: last });
    });

    test('are known again after the inventory was lost', async () => {
      const source = await testDirectory('source');
      const { home, daemon } = await begin();
      await daemon.succeed('guest-create', specOf('web', [{ source, target: '/data' }]));
      const servers = directoryServers(home);
      await daemon.kill9();
      await rm(join(home.stateDirectory, 'roost.db'));
      const directories = ['--state-dir', home.stateDirectory, '--run-dir', home.runDirectory];
      await home.run([process.execPath, roostProgram, 'recover', ...directories, '--json']);
      const next = await home.start();
      expect(await next.guest('web')).toMatchObject({
        state: 'running',
        filesystems: [{ name: 'fs0', source, target: '/data', readOnly: false, mode: 'share' }],
      });
      expect(directoryServers(home)).toEqual(servers);
      expect((await next.client.call('query-fsck', {})).differences).toEqual([]);
      expect(await told(home, 'web', 'echo there > /data/file; cat /data/file')).toBe('there\n');
      await next.succeed('guest-stop', { guest: 'web', force: true });
      expect(directoryServers(home)).toEqual([]);
      await leaveNothing({ home, daemon: next });
    });

    test('that nobody serves any more are told of, and the guest can be ended all the same', async () => {
      const source = await testDirectory('source');
      const { home, daemon } = await begin();
      await using watcher = await TestClient.connect(join(home.runDirectory, 'roost.sock'));
      const filesystems = [
        { source, target: '/data' },
        { source, target: '/more' },
      ];
      await daemon.succeed('guest-create', specOf('web', filesystems));
      const [first = 0, second = 0] = directoryServers(home);
      process.kill(first, 'SIGKILL');
      const { data } = await watcher.waitForEvent(({ event }) => event === 'GUEST_FILESYSTEM_LOST');
      expect(data).toMatchObject({ name: 'web', source });
      const after = await daemon.guest('web');
      expect(after).toMatchObject({ state: 'running' });
      expect(lostOf(after)).toHaveLength(1);
      expect((await daemon.client.call('query-fsck', {})).differences).toEqual([]);
      process.kill(second, 'SIGKILL');
      await daemon.guestWhen('web', lacksAll);
      expect((await runRoost(home, ['show', 'web'])).stdout).toMatch(
        /fs0 .* read-write +shared +(just now|\S+ ago)\n/,
      );
      // Whoever asks for a file there waits; lists and everything else go on.
      expect(await told(home, 'web', 'ls /data /more > /dev/null 2>&1 & echo alive')).toBe('alive\n');
      expect((await daemon.client.call('query-fsck', {})).differences).toEqual([]);
      await daemon.kill9();
      const next = await home.start();
      expect(lacksAll(await next.guest('web'))).toBe(true);
      expect((await next.client.call('query-fsck', {})).differences).toEqual([]);
      await next.succeed('guest-stop', { guest: 'web', timeoutMs: 1_000 });
      await next.succeed('guest-start', { guest: 'web' });
      expect(await told(home, 'web', 'ls -d /data')).toBe('/data\n');
      expect(lostOf(await next.guest('web'))).toEqual([]);
      await leaveNothing({ home, daemon: next });
    });

    test('are refused, with the reason and before anything is made, where they cannot be had', async () => {
      const source = await testDirectory('source');
      const file = join(source, 'file');
      await writeFile(file, '');
      const { home, daemon } = await begin();
      const asked = (
        filesystem: Filesystems[number],
        more: Partial<CommandInput<'guest-create'>> = {},
      ): Promise<unknown> => daemon.client.call('guest-create', specOf('web', [filesystem], more));
      const target = '/data';
      await expect(asked({ source: 'relative', target })).rejects.toThrow('must be absolute');
      for (const own of ['/', '/proc', '/sys/x', '/dev', 'data', '/a/../b', '/a//b'])
        await expect(asked({ source, target: own })).rejects.toThrow('must');
      const twice = specOf('web', [
        { source, target },
        { source: '/srv', target },
      ]);
      await expect(daemon.client.call('guest-create', twice)).rejects.toThrow(
        'must each have another target',
      );
      await expect(asked({ source: join(source, 'none'), target })).rejects.toThrow('There is no directory');
      await expect(asked({ source: file, target })).rejects.toThrow('is no directory');
      const disks = [{ sizeBytes: MEBIBYTE }];
      await expect(asked({ source, target }, { program: undefined, disks })).rejects.toThrow(
        'runs no program',
      );
      expect((await daemon.client.call('query-guests', {})).total).toBe(0);
      await daemon.stop();
      const config = join(source, 'roostd.yaml');
      await writeFile(config, 'qemu: { virtiofsd: /no/such }\n');
      const without = await home.start({ args: ['--config', config] });
      await expect(
        without.client.call('guest-create', specOf('web', [{ source, target, mode: 'share' }])),
      ).rejects.toThrow('there is no /no/such');
      expect((await without.client.call('query-guests', {})).total).toBe(0);
      await leaveNothing({ home, daemon: without });
    });

    test('are never in what is forked', async () => {
      const source = await testDirectory('source');
      const { home, daemon } = await begin();
      const template = specOf('mother', [], { start: false });
      await daemon.succeed('guest-create', template);
      await daemon.succeed('template-create', { guest: 'mother' });
      await daemon.succeed('guest-create', specOf('plain', []));
      expect(await wasForked(await daemon.guest('plain'))).toBe(true);
      await daemon.succeed('guest-create', specOf('web', [{ source, target: '/data' }]));
      const web = await daemon.guest('web');
      expect(await wasForked(web)).toBe(false);
      expect(web.forkOf).toBeUndefined();
      await expect(daemon.client.call('template-create', { guest: 'web', name: 'warm' })).rejects.toThrow(
        'shares directories of the host',
      );
      await daemon.succeed('guest-stop', { guest: 'web' });
      await expect(daemon.client.call('template-create', { guest: 'web' })).rejects.toThrow(
        'shares directories of the host',
      );
      await leaveNothing({ home, daemon });
    });

    test('need an init that has the modules, and that is said', async () => {
      const source = await testDirectory('source');
      const { home, daemon } = await begin();
      const older = join(source, 'init');
      await writeFile(older, withoutVirtiofs(await readFile(await initramfsIn(home, daemon))));
      await daemon.succeed('image-import', { name: 'microvm-init', kind: 'initrd', path: older });
      await expect(
        daemon.succeed('guest-create', specOf('web', [{ source, target: '/data' }])),
      ).rejects.toThrow('its kernel has no virtiofs');
      expect(await daemon.guest('web')).toMatchObject({ state: 'failed' });
      expect(directoryServers(home)).toEqual([]);
      await leaveNothing({ home, daemon });
    });
  },
);
