/** Directories of the host that a microVM has as disks: what they held, written over in the guest, and gone with it. */
import { chmod, chown, lutimes, mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { CommandInput } from '../../protocol/commands.ts';
import { beginWithBox, boxGuest } from '../harness/box-guests.ts';
import { directoryServers } from '../harness/directory-servers.ts';
import { leaveNothing } from '../harness/leave-nothing.ts';
import { provideMicrovmImages, wasForked } from '../harness/microvm-images.ts';
import { describeWith } from '../harness/needs.ts';
import { type DaemonHome, type RealDaemon, testDaemonHome } from '../harness/real-daemon.ts';
import { roostProgram, runRoost } from '../harness/roost-cli.ts';
import { testDirectory } from '../harness/test-directory.ts';

const images = provideMicrovmImages();

const begin = () => beginWithBox(images);

type Filesystems = NonNullable<CommandInput<'guest-create'>['filesystems']>;

const copied = (name: string, filesystems: Filesystems, start = true): CommandInput<'guest-create'> =>
  boxGuest(name, { filesystems: filesystems.map((each) => ({ mode: 'copy', ...each })), start });

const inside = (home: DaemonHome, guest: string, script: string) =>
  runRoost(home, ['exec', guest, 'sh', '-c', script]);

/** As a program in the guest sees it, where it went well. */
const told = async (home: DaemonHome, guest: string, script: string): Promise<string> => {
  const { code, stdout, stderr } = await inside(home, guest, script);
  expect({ script, code, stderr }).toEqual({ script, code: 0, stderr: '' });
  return stdout;
};

const disksOf = async (home: DaemonHome, guest: string): Promise<readonly string[]> =>
  (await readdir(join(home.stateDirectory, 'pools/default/guests', guest))).toSorted();

/** Of a user of whom nobody else may read, with a file that is a link out of it. */
const makeSource = async (): Promise<string> => {
  const source = await testDirectory('source, with=signs:no');
  await mkdir(join(source, 'sub'));
  await writeFile(join(source, 'file'), 'of the host\n', { mode: 0o600 });
  await chown(join(source, 'file'), 1234, 4321);
  await symlink('/etc/hostname', join(source, 'link'));
  await lutimes(join(source, 'link'), 1_000_000_000, 1_000_000_000);
  await chown(source, 77, 78);
  await chmod(source, 0o2710);
  return source;
};

/** A daemon where nobody could serve a directory. */
const beginWithoutVirtiofsd = async (): Promise<{ home: DaemonHome; daemon: RealDaemon }> => {
  const home = await testDaemonHome();
  const config = join(await testDirectory('config'), 'roostd.yaml');
  await writeFile(config, 'qemu: { virtiofsd: /no/such }\n');
  const daemon = await home.start({ args: ['--config', config] });
  await images.importInto(daemon);
  return { home, daemon };
};

describeWith(
  ['root', 'qemu', 'qemu-img', 'sqfstar', 'nft', 'ip', 'dnsmasq', 'tun'],
  'copies of directories of the host in a microVM',
  () => {
    test.each(['microvm', 'q35'])(
      'on %s are what the directories held, and the guest’s own',
      async (machine) => {
        const source = await makeSource();
        const { home, daemon } = await begin();
        const filesystems = [
          { source: join(source, 'sub'), target: '/data/sub/deep' },
          { source, target: '/data' },
          { source, target: '/kept', readOnly: true },
        ];
        await daemon.succeed('guest-create', { ...copied('web', filesystems), machine });
        expect((await daemon.guest('web')).filesystems).toEqual([
          { name: 'copy0', ...filesystems[0], readOnly: false, mode: 'copy' },
          { name: 'copy1', ...filesystems[1], readOnly: false, mode: 'copy' },
          { name: 'copy2', ...filesystems[2], mode: 'copy' },
        ]);
        for (const place of ['/data', '/kept']) {
          const look = `cat ${place}/file; stat -c "%u %g %a" ${place} ${place}/file; readlink ${place}/link`;
          expect(await told(home, 'web', look)).toBe(
            'of the host\n77 78 2710\n1234 4321 600\n/etc/hostname\n',
          );
        }
        await writeFile(join(source, 'later'), '');
        const script =
          'echo in >> /data/file; rm /data/link; mkdir /data/new; echo x > /data/sub/deep/new; sync; ls /data';
        expect(await told(home, 'web', script)).toBe('file\nnew\nsub\n');
        expect(await readFile(join(source, 'file'), 'utf8')).toBe('of the host\n');
        expect((await readdir(source)).toSorted()).toEqual(['file', 'later', 'link', 'sub']);
        for (const write of ['echo x > /kept/new', 'mount -o remount,rw /kept; echo x > /kept/new'])
          expect(await inside(home, 'web', write)).toMatchObject({
            code: expect.any(Number),
            stderr: expect.stringMatching(/read-only/i),
          });

        const shown = await runRoost(home, ['show', 'web']);
        expect(shown.stdout).toMatch(
          /copy2 .* \/kept +read-only +a copy: what is written does not come back/,
        );
        expect(directoryServers(home)).toEqual([]);
        expect((await daemon.client.call('query-fsck', {})).differences).toEqual([]);

        // What it has written is there after another boot, with the same below it.
        await daemon.succeed('guest-stop', { guest: 'web', force: true });
        await daemon.succeed('guest-start', { guest: 'web' });
        expect(await told(home, 'web', 'cat /data/file; ls /data /data/sub/deep')).toBe(
          'of the host\nin\n/data:\nfile\nnew\nsub\n\n/data/sub/deep:\nnew\n',
        );
        await expect(
          daemon.client.call('guest-disk-detach', { guest: 'web', disk: 'copy1' }),
        ).rejects.toThrow('was made with');
        const { id } = await daemon.guest('web');
        expect(await disksOf(home, id)).toEqual([
          ...['copy0', 'copy1', 'copy2'].map((name) => `${name}.qcow2`),
          'record.json',
          'root.qcow2',
          'upper.qcow2',
        ]);
        await leaveNothing({ home, daemon });
      },
    );

    test('are given where nobody can serve directories, with a warning, unless sharing is insisted on', async () => {
      const cwd = await testDirectory('plain');
      await writeFile(join(cwd, 'file'), 'of the host\n');
      const { home, daemon } = await beginWithoutVirtiofsd();
      const run = (volume: string) =>
        runRoost(home, ['run', '--rm', '-v', volume, 'box', 'cat', '/data/file'], { cwd });
      expect(await run('./:/data')).toEqual({
        code: 0,
        stdout: 'of the host\n',
        stderr: `roost: the guest has a copy of ${cwd}, because there is no /no/such: what is written does not come back, and what changes on the host is not seen\n`,
      });
      expect(await run('./:/data:ro,copy')).toEqual({ code: 0, stdout: 'of the host\n', stderr: '' });
      expect(await run('./:/data:share')).toMatchObject({
        code: 125,
        stderr: expect.stringContaining('cannot share directories of the host: there is no /no/such'),
      });
      await leaveNothing({ home, daemon });
    });

    test('are refused before anything is made, where no disk could hold the directory', async () => {
      const source = await makeSource();
      const { home, daemon } = await begin();
      const asked = (from: string): Promise<unknown> =>
        daemon.client.call('guest-create', copied('web', [{ source: from, target: '/data' }]));
      await expect(asked(join(source, 'none'))).rejects.toThrow('There is no directory');
      await expect(asked(join(source, 'file'))).rejects.toThrow('is no directory');
      for (const own of ['/proc/self', '/sys', '/', '/dev/shm'])
        await expect(asked(own)).rejects.toThrow("kernel's own");
      await symlink(home.stateDirectory, join(source, 'state'));
      await expect(asked(join(source, 'state'))).rejects.toThrow('the disks of guests lie in it');
      expect((await daemon.client.call('query-guests', {})).total).toBe(0);
      await leaveNothing({ home, daemon });
    });

    test('are in forks what they were in their template, each fork with its own writes', async () => {
      const source = await makeSource();
      const { home, daemon } = await begin();
      const filesystems = [
        { source, target: '/data' },
        { source, target: '/kept', readOnly: true },
      ];
      await daemon.succeed('guest-create', copied('mother', filesystems, false));
      await daemon.succeed('template-create', { guest: 'mother' });
      await rm(join(source, 'file'));
      for (const name of ['one', 'two']) {
        await daemon.succeed('guest-fork', { template: 'mother', name });
        expect(await wasForked(await daemon.guest(name))).toBe(true);
        expect(await told(home, name, `cat /data/file /kept/file; echo ${name} > /data/file; sync`)).toBe(
          'of the host\nof the host\n',
        );
      }
      expect(await told(home, 'one', 'cat /data/file')).toBe('one\n');
      // The same directory is another one today: nobody gets what it was unasked.
      await daemon.succeed('guest-create', copied('new', filesystems));
      expect((await daemon.guest('new')).forkOf).toBeUndefined();
      expect(await told(home, 'new', 'ls /data /kept')).not.toContain('file');
      // Booted anew, it has the copy that it had.
      await daemon.succeed('guest-stop', { guest: 'mother' });
      await daemon.succeed('template-create', { guest: 'mother' });
      await daemon.succeed('guest-fork', { template: 'mother', name: 'three' });
      expect(await wasForked(await daemon.guest('three'))).toBe(true);
      expect(await told(home, 'three', 'cat /data/file /kept/file')).toBe('of the host\nof the host\n');
      await daemon.succeed('guest-stop', { guest: 'one', force: true });
      await daemon.succeed('guest-start', { guest: 'one' });
      expect(await told(home, 'one', 'cat /data/file /kept/file')).toBe('one\nof the host\n');
      expect((await daemon.client.call('query-fsck', {})).differences).toEqual([]);
      await leaveNothing({ home, daemon });
    });

    test('are in forks of a guest that runs what they are in it', async () => {
      const source = await makeSource();
      const { home, daemon } = await begin();
      const filesystems = [
        { source, target: '/data' },
        { source, target: '/kept', readOnly: true },
      ];
      await daemon.succeed('guest-create', copied('web', filesystems));
      await told(home, 'web', 'echo web > /data/file; sync');
      await daemon.succeed('template-create', { guest: 'web', name: 'warm' });
      await daemon.succeed('guest-fork', { template: 'warm', name: 'fork' });
      expect(await told(home, 'fork', 'cat /data/file /kept/file; echo fork > /data/file; sync')).toBe(
        'web\nof the host\n',
      );
      expect(await told(home, 'web', 'cat /data/file /kept/file')).toBe('web\nof the host\n');
      for (const name of ['web', 'fork']) {
        await daemon.succeed('guest-stop', { guest: name, force: true });
        await daemon.succeed('guest-start', { guest: name });
      }
      expect(await told(home, 'fork', 'cat /data/file /kept/file')).toBe('fork\nof the host\n');
      expect(await told(home, 'web', 'cat /data/file /kept/file')).toBe('web\nof the host\n');
      expect((await daemon.client.call('query-fsck', {})).differences).toEqual([]);
      await leaveNothing({ home, daemon });
    });

    test('are known again after the inventory was lost', async () => {
      const source = await makeSource();
      const { home, daemon } = await begin();
      await daemon.succeed('guest-create', copied('web', [{ source, target: '/data' }]));
      const { filesystems } = await daemon.guest('web');
      await daemon.kill9();
      await rm(join(home.stateDirectory, 'roost.db'));
      const directories = ['--state-dir', home.stateDirectory, '--run-dir', home.runDirectory];
      await home.run([process.execPath, roostProgram, 'recover', ...directories, '--json']);
      const next = await home.start();
      expect(await next.guest('web')).toMatchObject({ state: 'running', filesystems });
      await next.succeed('guest-stop', { guest: 'web', force: true });
      await next.succeed('guest-start', { guest: 'web' });
      expect(await told(home, 'web', 'cat /data/file')).toBe('of the host\n');
      expect((await next.client.call('query-fsck', {})).differences).toEqual([]);
      await leaveNothing({ home, daemon: next });
    });
  },
);
