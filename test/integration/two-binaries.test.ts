/** Several QEMU binaries side by side: named in the configuration, chosen by guests, explained when they are no good. */
import { copyFile, mkdir, readlink, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { describeWith } from '../harness/needs.ts';
import { type DaemonHome, type RealDaemon, testDaemonHome } from '../harness/real-daemon.ts';
import { testDirectory } from '../harness/test-directory.ts';
import { importBootSector, tinyGuest } from '../harness/tiny-guests.ts';

const debians = '/usr/bin/qemu-system-x86_64';

/** A QEMU of another prefix: the binary finds its modules and firmware from where it lies. Gives its path. */
const installElsewhere = async (prefix: string): Promise<string> => {
  const path = join(prefix, 'bin', 'qemu-system-x86_64');
  await mkdir(join(prefix, 'bin'));
  await copyFile(debians, path);
  for (const shared of ['lib', 'share']) await symlink(join('/usr', shared), join(prefix, shared));
  return path;
};

/** A configuration with these binaries. Also JSON is YAML. */
const configure = async (home: DaemonHome, binaries: Readonly<Record<string, string>>): Promise<string[]> => {
  const file = join(home.stateDirectory, 'roostd.yaml');
  await writeFile(file, JSON.stringify({ qemu: { binaries } }));
  return ['--config', file];
};

const executableOf = async (daemon: RealDaemon, guest: string): Promise<string> =>
  readlink(`/proc/${(await daemon.guest(guest)).process?.pid}/exe`);

describeWith(['root', 'qemu', 'qemu-img'], 'QEMU binaries side by side', () => {
  it('are each asked what they can, and a guest runs on the one it names', async () => {
    const home = await testDaemonHome();
    const directory = await testDirectory('qemu');
    const copy = await installElsewhere(directory);
    const broken = join(directory, 'broken');
    await writeFile(broken, '#!/bin/sh\necho no QEMU here >&2\nexit 3\n', { mode: 0o755 });
    const missing = join(directory, 'missing');
    const args = await configure(home, { default: debians, other: copy, broken, missing });
    const daemon = await home.start({ args });

    const { qemuBinaries } = await daemon.client.call('query-host', {});
    const byName = new Map(qemuBinaries.map((binary) => [binary.name, binary]));
    expect([...byName.keys()]).toEqual(['default', 'other', 'broken', 'missing']);
    expect(byName.get('other')).toEqual({ ...byName.get('default'), name: 'other', path: copy });
    expect(byName.get('other')?.machines).toContainEqual(expect.stringMatching(/^pc-q35-/));
    expect(byName.get('missing')).toMatchObject({
      machines: [],
      problem: expect.stringContaining(`is not there: ${missing}`),
    });
    expect(byName.get('broken')).toMatchObject({
      machines: [],
      problem: expect.stringMatching(/does not answer: .* \(no QEMU here\)$/),
    });

    await importBootSector(daemon, 'idle');
    await daemon.succeed('guest-create', { ...tinyGuest('ordinary', 'idle'), start: true });
    const chosen = tinyGuest('choosy', 'idle', { qemu: { accel: 'tcg', binary: 'other' } });
    await daemon.succeed('guest-create', { ...chosen, start: true });
    expect(await executableOf(daemon, 'ordinary')).toBe(debians);
    expect(await executableOf(daemon, 'choosy')).toBe(copy);
    expect((await daemon.client.call('guest-plan', { guest: 'choosy' })).argv).toContain(copy);

    for (const binary of ['missing', 'broken', 'nowhere'])
      await expect(
        daemon.client.call('guest-create', tinyGuest('vain', 'idle', { qemu: { binary } })),
      ).rejects.toMatchObject({ wire: { class: 'Unsupported', data: { binary } } });

    // Another daemon without the copy takes the guest back all the same; only a new start needs the binary.
    await daemon.stop();
    const without = await home.start({ args: await configure(home, { default: debians }) });
    expect((await without.guest('choosy')).state).toBe('running');
    await without.succeed('guest-stop', { guest: 'choosy', force: true });
    expect(await without.change('guest-start', { guest: 'choosy' })).toMatchObject({
      state: 'failed',
      error: { class: 'Unsupported', data: { binary: 'other', known: ['default'] } },
    });
    await without.succeed('guest-update', { guest: 'choosy', qemu: { binary: 'default' } });
    await without.succeed('guest-start', { guest: 'choosy' });
    expect(await executableOf(without, 'choosy')).toBe(debians);
  });
});
