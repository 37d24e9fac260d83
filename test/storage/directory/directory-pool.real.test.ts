import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import {
  chmod,
  chown,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { BlockSource } from '../../../protocol/block-source.ts';
import type { GuestId } from '../../../protocol/types.ts';
import { directoryPool } from '../../../storage/directory/directory-pool.ts';
import type { Pool, SeedSpec, VolumeOwner, VolumeSpec } from '../../../storage/pool.ts';
import { newGuest, type PoolHarness, poolConformance, work } from '../../conformance/pool.ts';
import { isRoot, run, scratchDirectory, sha256OfFile } from '../scratch-directory.ts';

const MEBIBYTE = 1024 ** 2;
const OWNER: VolumeOwner = { uid: 2_000_000_101, gid: 2_000_000_101 };

const makeBase = async (directory: string, sizeBytes: number): Promise<BlockSource> => {
  const path = join(directory, `${randomUUID()}.qcow2`);
  await run('qemu-img', 'create', '-q', '-f', 'qcow2', path, `${sizeBytes}`);
  await run('qemu-io', '-f', 'qcow2', '-c', 'write -q -P 7 0 64k', path);
  await chmod(path, 0o444);
  return { format: 'qcow2', path, readOnly: true, sizeBytes };
};

const readIso = async (
  path: string,
  scratch: string,
): Promise<{ readonly label: string; readonly files: Record<string, string> } | undefined> => {
  if (!existsSync(path)) return undefined;
  const label = await run('blkid', '-p', '-s', 'LABEL', '-o', 'value', path);
  const to = join(scratch, randomUUID());
  await run('osirrox', '-indev', `stdio:${path}`, '-extract', '/', to);
  const names = await readdir(to);
  const texts = await Promise.all(names.map((name) => readFile(join(to, name), 'utf8')));
  return {
    label: label.trim(),
    files: Object.fromEntries(names.map((name, index) => [name, texts[index] ?? ''])),
  };
};

const guestDirectory = (pool: Pool, guest: GuestId): string => join(pool.path, 'guests', guest);

const harness = async (owner: VolumeOwner | undefined): Promise<PoolHarness> => {
  const scratch = await scratchDirectory();
  const pool = directoryPool({ name: 'default', path: join(scratch.path, 'pools', 'default') });
  return {
    pool,
    owner,
    makeBase: (sizeBytes) => makeBase(scratch.path, sizeBytes),
    lose: (path) => rm(path),
    tellsPristine: true,
    writeInto: async (path) => void (await run('qemu-io', '-f', 'qcow2', '-c', 'write -q -P 3 0 64k', path)),
    fingerprint: sha256OfFile,
    leaveHalfMade: async (volume) => {
      const directory = guestDirectory(pool, volume.guest);
      await writeFile(join(directory, `.partial-${volume.name}.qcow2`), 'QFI\xfb and no more', 'latin1');
      await writeFile(join(directory, '.partial-record.json'), '{"generation": 9');
    },
    leaveHalfMadeSeed: async (guest) => {
      const directory = guestDirectory(pool, guest);
      await mkdir(join(directory, '.partial-seed.d'));
      await writeFile(join(directory, '.partial-seed.d', 'user-data'), '#cloud-con');
      await writeFile(join(directory, '.partial-seed.iso'), 'CD0');
    },
    readSeed: (_guest, { path }) => readIso(path, scratch.path),
    strays: async (guest) =>
      (await readdir(guestDirectory(pool, guest))).filter((name) => name.startsWith('.')),
    [Symbol.asyncDispose]: () => scratch[Symbol.asyncDispose](),
  };
};

poolConformance('the directory pool without privileges', () => harness(undefined));
if (isRoot) poolConformance('the directory pool of root', () => harness(OWNER));

const newPool = async (): Promise<{ readonly pool: Pool; readonly scratch: string }> => {
  const scratch = await scratchDirectory();
  onTestFinished(() => scratch[Symbol.asyncDispose]());
  return {
    pool: directoryPool({ name: 'default', path: join(scratch.path, 'pool') }),
    scratch: scratch.path,
  };
};

const volumeOf = (guest: GuestId, changes: Partial<VolumeSpec> = {}): VolumeSpec => ({
  guest,
  name: 'disk0',
  sizeBytes: 4 * MEBIBYTE,
  readOnly: false,
  ...changes,
});

interface ImageInfo {
  readonly format: string;
  readonly 'virtual-size': number;
  readonly 'backing-filename'?: string;
  readonly 'full-backing-filename'?: string;
}

const imageInfo = async (path: string): Promise<ImageInfo> =>
  JSON.parse(await run('qemu-img', 'info', '-f', 'qcow2', '--output=json', path)) as ImageInfo;

describe('a seed on disk', () => {
  const seedOf = (guest: GuestId, owner?: VolumeOwner): SeedSpec => ({
    guest,
    label: 'cidata',
    files: { 'user-data': '#cloud-config\npassword: "secret"\n' },
    ...(owner === undefined ? {} : { owner }),
  });

  it.runIf(isRoot)('can be read by the guest alone, and written by nobody', async () => {
    const { pool } = await newPool();
    const guest = newGuest();
    await pool.prepareGuest(guest, OWNER);
    const { path } = await pool.writeSeed(seedOf(guest, OWNER), work());
    const { mode, uid, gid } = await stat(path);
    expect({ mode: mode & 0o7777, uid, gid }).toEqual({ mode: 0o440, uid: 0, gid: OWNER.gid });
  });

  it('goes on being read by whoever has it open when it changes', async () => {
    const { pool } = await newPool();
    const guest = newGuest();
    await pool.prepareGuest(guest, undefined);
    const { path } = await pool.writeSeed(seedOf(guest), work());
    await using before = await open(path);
    await pool.writeSeed({ ...seedOf(guest), files: { 'user-data': '#!/bin/sh\n' } }, work());
    expect((await before.readFile('latin1')).includes('password: "secret"')).toBe(true);
  });

  it.runIf(isRoot)('says ResourceExhausted when the file system is full, and leaves nothing', async () => {
    const { pool } = await newPool();
    const guest = newGuest();
    await mkdir(pool.path);
    await run('mount', '-t', 'tmpfs', '-o', 'size=32k', 'tmpfs', pool.path);
    onTestFinished(async () => void (await run('umount', pool.path)));
    await pool.prepareGuest(guest, undefined);
    await expect(pool.writeSeed(seedOf(guest), work())).rejects.toMatchObject({ class: 'ResourceExhausted' });
    expect(await readdir(guestDirectory(pool, guest))).toEqual([]);
  });
});

describe('a volume on disk', () => {
  it('is an overlay of its own size that reads what the base holds', async () => {
    const { pool, scratch } = await newPool();
    const guest = newGuest();
    const base = await makeBase(scratch, MEBIBYTE);
    await pool.prepareGuest(guest, undefined);
    await pool.createVolume(volumeOf(guest, { base }), work());
    const { path } = pool.source(volumeOf(guest));
    const info = await imageInfo(path);
    expect(info).toMatchObject({ format: 'qcow2', 'virtual-size': 4 * MEBIBYTE });
    expect(info['backing-filename']).toMatch(/^\.\.\//);
    expect(join(dirname(path), info['backing-filename'] ?? '')).toBe(base.path);
    expect(await run('qemu-io', '-f', 'qcow2', '-c', 'read -P 7 0 64k', path)).toMatch(/read 65536\/65536/);
  });

  it('is empty without a base', async () => {
    const { pool } = await newPool();
    const guest = newGuest();
    await pool.prepareGuest(guest, undefined);
    await pool.createVolume(volumeOf(guest, { sizeBytes: 512 }), work());
    const info = await imageInfo(pool.source(volumeOf(guest)).path);
    expect(info['virtual-size']).toBe(512);
    expect(info).not.toHaveProperty('backing-filename');
  });

  it.runIf(isRoot)('says ResourceExhausted when the file system is full, and leaves nothing', async () => {
    const { pool } = await newPool();
    const guest = newGuest();
    await mkdir(pool.path);
    await run('mount', '-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', pool.path);
    onTestFinished(async () => void (await run('umount', pool.path)));
    await pool.prepareGuest(guest, undefined);
    await expect(pool.createVolume(volumeOf(guest), work())).rejects.toMatchObject({
      class: 'ResourceExhausted',
      hint: expect.stringMatching(/Free space/) as string,
    });
    expect(await readdir(guestDirectory(pool, guest))).toEqual([]);
  });

  it.each(['../escape', 'a/b', '', 'Disk0', '.partial-x'])('takes no disk called %j', async (name) => {
    const { pool } = await newPool();
    await expect(pool.deleteVolume({ guest: newGuest(), name })).rejects.toThrow(/a-z, 0-9/);
  });

  it.each(['..', '.', '', '../../victim', 'not-a-uuid'])(
    'removes nothing for a guest called %j',
    async (id) => {
      const { pool, scratch } = await newPool();
      const guest = newGuest();
      await pool.prepareGuest(guest, undefined);
      await writeFile(join(scratch, 'victim'), 'alive');
      await expect(pool.removeGuest(id as GuestId)).rejects.toThrow(/UUID/);
      expect(await readFile(join(scratch, 'victim'), 'utf8')).toBe('alive');
      expect(await pool.inspect()).toHaveLength(1);
    },
  );

  it.each([undefined, ...(isRoot ? [OWNER] : [])])(
    'keeps what is in it, its owner and its mode when it grows, and takes what is written',
    async (owner) => {
      const { pool, scratch } = await newPool();
      const volume = {
        ...volumeOf(newGuest(), { base: await makeBase(scratch, MEBIBYTE) }),
        ...(owner && { owner }),
      };
      await pool.prepareGuest(volume.guest, owner);
      await pool.createVolume(volume, work());
      const { path } = pool.source(volume);
      const fresh = await pool.allocatedBytes(volume);
      await run('qemu-io', '-f', 'qcow2', '-c', 'write -q -P 3 2M 1M', path);
      expect(await pool.allocatedBytes(volume)).toBeGreaterThanOrEqual((fresh ?? 0) + MEBIBYTE);
      const before = await stat(path);
      await pool.growVolume({ ...volume, sizeBytes: 8 * MEBIBYTE }, work());
      const after = await stat(path);
      expect([after.uid, after.gid, after.mode]).toEqual([before.uid, before.gid, before.mode]);
      expect((await imageInfo(path))['virtual-size']).toBe(8 * MEBIBYTE);
      // qemu-io ends well only when every byte has the pattern asked for: the base's, the volume's own, and the new end.
      const reads = ['read -q -P 7 0 64k', 'read -q -P 3 2M 1M', 'read -q -P 0 4M 4M'];
      await run('qemu-io', '-f', 'qcow2', ...reads.flatMap((read) => ['-c', read]), path);
    },
  );

  it('follows no link when it removes a guest', async () => {
    const { pool, scratch } = await newPool();
    const guest = newGuest();
    const victim = join(scratch, 'victim');
    await mkdir(victim);
    await writeFile(join(victim, 'file'), 'alive');
    await pool.prepareGuest(guest, undefined);
    await symlink(victim, join(guestDirectory(pool, guest), 'link'));
    await pool.removeGuest(guest);
    expect(await readFile(join(victim, 'file'), 'utf8')).toBe('alive');
  });

  it('stays usable when the whole state directory moves', async () => {
    const { pool, scratch } = await newPool();
    const guest = newGuest();
    const base = await makeBase(pool.path.replace(/pool$/, ''), MEBIBYTE);
    await pool.prepareGuest(guest, undefined);
    await pool.createVolume(volumeOf(guest, { base }), work());
    const moved = `${scratch}-moved`;
    onTestFinished(() => rm(moved, { recursive: true, force: true }));
    await rename(scratch, moved);
    const path = pool.source(volumeOf(guest)).path.replace(scratch, moved);
    expect(await run('qemu-io', '-f', 'qcow2', '-c', 'read -P 7 0 64k', path)).toMatch(/read 65536\/65536/);
  });
});

describe('records on disk', () => {
  it('names what it cannot read or believe, and gives the rest', async () => {
    const { pool, scratch } = await newPool();
    const [good, cut, wrong, absent] = [newGuest(), newGuest(), newGuest(), newGuest()];
    const [linked, open, other] = [newGuest(), newGuest(), newGuest()];
    for (const guest of [good, cut, wrong, absent, linked, open, other])
      await pool.prepareGuest(guest, undefined);
    await mkdir(join(pool.path, 'guests', 'lost+found'));
    await pool.writeRecord(good, { generation: 1 });
    const pathOf = (guest: GuestId): string => join(guestDirectory(pool, guest), 'record.json');
    await writeFile(pathOf(cut), '{"generation": 1, "na');
    await writeFile(pathOf(wrong), '["no", "record"]');
    await writeFile(join(scratch, 'forged.json'), '{"generation": 1}');
    await symlink(join(scratch, 'forged.json'), pathOf(linked));
    await writeFile(pathOf(open), '{"generation": 1}');
    await chmod(pathOf(open), 0o666);
    await writeFile(pathOf(other), JSON.stringify({ generation: 1, id: good }));
    const directory = newGuest();
    await symlink(guestDirectory(pool, good), guestDirectory(pool, directory));
    const { records, unreadable } = await pool.readRecords();
    expect(records).toEqual([{ generation: 1 }]);
    expect(Object.fromEntries(unreadable.map(({ path, why }) => [path, why]))).toEqual({
      [pathOf(cut)]: 'it is no JSON',
      [pathOf(wrong)]: 'it is no record',
      [pathOf(linked)]: 'it is a symbolic link',
      [pathOf(open)]: 'others may write it',
      [pathOf(other)]: `it is that of ${good}`,
      [pathOf(directory)]: 'its directory is none',
    });
  });

  it.runIf(isRoot)('does not believe one that belongs to somebody else', async () => {
    const { pool } = await newPool();
    const guest = newGuest();
    await pool.prepareGuest(guest, undefined);
    await pool.writeRecord(guest, { generation: 1 });
    const path = join(guestDirectory(pool, guest), 'record.json');
    await chown(path, OWNER.uid, OWNER.gid);
    expect(await pool.readRecords()).toEqual({
      records: [],
      unreadable: [{ path, why: `it belongs to user ${OWNER.uid}` }],
    });
  });

  it('replaces a damaged record', async () => {
    const { pool } = await newPool();
    const guest = newGuest();
    await pool.prepareGuest(guest, undefined);
    await writeFile(join(guestDirectory(pool, guest), 'record.json'), '{"generation": 7');
    await pool.writeRecord(guest, { generation: 1 });
    expect(await pool.readRecords()).toEqual({ records: [{ generation: 1 }], unreadable: [] });
  });

  it('does not bring back a guest that was removed', async () => {
    const { pool } = await newPool();
    const guest = newGuest();
    await pool.prepareGuest(guest, undefined);
    await pool.removeGuest(guest);
    await expect(pool.writeRecord(guest, { generation: 1 })).rejects.toMatchObject({ class: 'HostError' });
    expect(await pool.inspect()).toEqual([]);
  });
});

describe.runIf(isRoot)('what the uid of a guest may do', () => {
  const asGuest = (owner: VolumeOwner, file: string, ...args: string[]): Promise<{ stdout: string }> =>
    promisify(execFile)(file, args, { uid: owner.uid, gid: owner.gid, cwd: '/' });

  it('writes its volume over a base it cannot write, and no more', async () => {
    const { pool, scratch } = await newPool();
    const guest = newGuest();
    const base = await makeBase(scratch, MEBIBYTE);
    const volume = volumeOf(guest, { base, owner: OWNER });
    await pool.prepareGuest(guest, OWNER);
    await pool.createVolume(volume, work());
    await pool.writeRecord(guest, { generation: 1 });
    const { path } = pool.source(volume);
    const directory = dirname(path);
    const stranger = { uid: OWNER.uid + 1, gid: OWNER.gid + 1 };

    expect(await stat(path)).toMatchObject({ uid: OWNER.uid, gid: OWNER.gid, mode: 0o100600 });
    const { stdout } = await asGuest(OWNER, 'qemu-io', '-f', 'qcow2', '-c', 'write -P 9 0 64k', path);
    expect(stdout).toMatch(/wrote 65536\/65536/);
    await expect(asGuest(OWNER, 'cat', join(directory, 'record.json'))).rejects.toThrow(/Permission denied/);
    await expect(asGuest(OWNER, 'touch', join(directory, 'new'))).rejects.toThrow(/Permission denied/);
    await expect(asGuest(OWNER, 'rm', '-f', path)).rejects.toThrow(/Permission denied/);
    await expect(asGuest(OWNER, 'ls', directory)).rejects.toThrow(/Permission denied/);
    await expect(asGuest(OWNER, 'dd', 'if=/dev/null', `of=${base.path}`)).rejects.toThrow(
      /Permission denied/,
    );
    await expect(asGuest(stranger, 'cat', path)).rejects.toThrow(/Permission denied/);
  });

  it('still reaches its volume when a guest has come that owns nothing, as a container', async () => {
    const { pool } = await newPool();
    const volume = volumeOf(newGuest(), { owner: OWNER });
    await pool.prepareGuest(volume.guest, OWNER);
    await pool.createVolume(volume, work());
    const container = newGuest();
    await pool.prepareGuest(container, undefined);
    const { path } = pool.source(volume);
    expect((await asGuest(OWNER, 'head', '--bytes=3', path)).stdout).toBe('QFI');
    await expect(asGuest(OWNER, 'ls', guestDirectory(pool, container))).rejects.toThrow(/Permission denied/);
  });
});
