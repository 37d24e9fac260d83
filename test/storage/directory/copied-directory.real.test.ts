/** Copies of directories as a pool makes them: with real mksquashfs and qemu-img. */
import { chown, mkdir, readdir, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { Progress } from '../../../lib/work.ts';
import { launcherPath } from '../../../native/index.ts';
import { packArgs } from '../../../storage/directory/copied-directory.ts';
import { directoryPool } from '../../../storage/directory/directory-pool.ts';
import type { Pool, VolumeOwner, VolumeSpec } from '../../../storage/pool.ts';
import { newGuest, work } from '../../conformance/pool.ts';
import { isRoot, run, scratchDirectory } from '../scratch-directory.ts';

const GIBIBYTE = 1024 ** 3;
const OWNER: VolumeOwner = { uid: 2_000_000_101, gid: 2_000_000_101 };

interface Begun {
  readonly pool: Pool;
  readonly volume: VolumeSpec & { readonly copyOf: string };
  readonly source: string;
  /** What is there of the volume, complete or not. */
  readonly files: () => Promise<readonly string[]>;
}

const begin = async (owner: VolumeOwner | undefined): Promise<Begun> => {
  const scratch = await scratchDirectory();
  onTestFinished(() => scratch[Symbol.asyncDispose]());
  const source = join(scratch.path, 'source');
  await mkdir(source, { mode: 0o700 });
  await writeFile(join(source, 'file'), 'of the host\n', { mode: 0o600 });
  await symlink('/etc/shadow', join(source, 'link'));
  // Who has no owner for it reads only what is the daemon's own.
  if (owner) await chown(join(source, 'file'), 77, 78);
  const path = join(scratch.path, 'pools', 'default');
  const pool = directoryPool({ name: 'default', path, launcherPath: launcherPath() });
  const guest = newGuest();
  const mine = owner === undefined ? {} : { owner };
  const size = { sizeBytes: 256 * GIBIBYTE, readOnly: true } as const;
  const volume = { guest, name: 'copy0', ...size, ...mine, copyOf: source };
  await pool.prepareGuest(guest, owner);
  return { pool, volume, source, files: () => readdir(dirname(pool.source(volume).path)) };
};

/** Its files as their owner would list them, read out of the volume. */
const contentsOf = async (pool: Pool, volume: VolumeSpec): Promise<string> => {
  const { path } = pool.source(volume);
  const raw = `${path}.raw`;
  await run('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', path, raw);
  return await run('unsquashfs', '-lln', raw);
};

describe.each(isRoot ? [OWNER, undefined] : [undefined])('a copy of a directory, of owner %o', (owner) => {
  it('holds what is in it, links as links, and is as large as it is to be', async () => {
    const { pool, volume, files } = await begin(owner);
    const heard: Progress[] = [];
    await pool.createVolume(volume, { ...work(), progress: (told) => heard.push(told) });
    expect(heard[0]).toMatchObject({ unit: 'percent', message: `Packing ${volume.copyOf}` });
    expect(heard.at(-1)).toMatchObject({ done: 100 });
    expect(await files()).toEqual(['copy0.qcow2']);
    const told = JSON.parse(await run('qemu-img', 'info', '--output=json', pool.source(volume).path));
    expect(told['virtual-size']).toBe(volume.sizeBytes);
    const contents = await contentsOf(pool, volume);
    expect(contents).toMatch(/^lrwxrwxrwx .* squashfs-root\/link -> \/etc\/shadow$/m);
    expect(contents).toMatch(owner ? /^-rw------- 77\/78 +12 .*\/file$/m : /^-rw------- .* 12 .*\/file$/m);
  });

  it('is what it was when it is asked for again, whatever the directory holds now', async () => {
    const { pool, volume, source } = await begin(owner);
    await pool.createVolume(volume, work());
    await writeFile(join(source, 'later'), '');
    await pool.createVolume(volume, work());
    expect(await contentsOf(pool, volume)).not.toContain('later');
  });

  it('that is given up leaves nothing, and one that a crash left half done is made anew', async () => {
    const { pool, volume, files } = await begin(owner);
    const aborted = new AbortController();
    const giveUp = { signal: aborted.signal, progress: () => aborted.abort(new Error('given up')) };
    await expect(pool.createVolume(volume, giveUp)).rejects.toThrow('given up');
    expect(await files()).toEqual([]);
    const left = join(dirname(pool.source(volume).path), '.partial-copy0.qcow2.d');
    await mkdir(left);
    await writeFile(join(left, 'tree'), 'hsqs and no more');
    await pool.createVolume(volume, work());
    expect(await files()).toEqual(['copy0.qcow2']);
  });

  it('of one that is gone, or has no room, leaves nothing and says so', async () => {
    const { pool, volume, source, files } = await begin(owner);
    await expect(
      pool.createVolume({ ...volume, copyOf: join(source, 'none') }, work()),
    ).rejects.toMatchObject({ class: 'FailedPrecondition' });
    await writeFile(join(source, 'large'), Buffer.alloc(65_536, 'no two of it are alike'));
    await expect(pool.createVolume({ ...volume, sizeBytes: 512 }, work())).rejects.toMatchObject({
      class: 'ResourceExhausted',
    });
    expect(await files()).toEqual([]);
  });
});

describe('a directory to be copied', () => {
  it('is refused where no disk could hold it', async () => {
    const { pool, source } = await begin(undefined);
    for (const own of ['/', '/proc', '/sys/kernel', '/dev'])
      await expect(pool.requireCopyable(own)).rejects.toMatchObject({ class: 'InvalidArgument' });
    for (const around of [pool.path, dirname(source)])
      await expect(pool.requireCopyable(around)).rejects.toThrow('the disks of guests lie in it');
    await expect(pool.requireCopyable(join(source, 'file'))).rejects.toThrow('is no directory');
    await expect(pool.requireCopyable(join(source, 'none'))).rejects.toMatchObject({
      hint: 'Make it first.',
    });
    await expect(pool.requireCopyable(source)).resolves.toBeUndefined();
  });

  it('is shown to a tool that is somebody else, and read by one that is not', () => {
    const launcher = '/usr/lib/roost/roost-launcher';
    const argv = packArgs('/srv/a b', { launcherPath: launcher, identity: OWNER }, 4096);
    expect(argv.slice(argv.indexOf('--view'), argv.indexOf('--die-with'))).toEqual(['--view', '/srv/a b']);
    expect(argv.slice(argv.indexOf('--') + 1, argv.indexOf('--') + 4)).toEqual([
      '/usr/bin/mksquashfs',
      '/mnt',
      'tree',
    ]);
    const own = packArgs('/srv/a b', { launcherPath: launcher }, 4096);
    expect(own).not.toContain('--view');
    expect(own).toContain('/srv/a b');
  });
});
