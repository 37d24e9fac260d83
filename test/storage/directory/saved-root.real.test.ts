/** The root of a container as one squashfs, by a real warden, launcher and mksquashfs. */
import { chmod, chown, mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import type { Progress } from '../../../lib/work.ts';
import { launcherPath, wardenPath } from '../../../native/index.ts';
import { directoryPool } from '../../../storage/directory/directory-pool.ts';
import { savingArgs } from '../../../storage/directory/saved-root.ts';
import type { Pool, RootSpec } from '../../../storage/pool.ts';
import { newGuest, work } from '../../conformance/pool.ts';
import { describeWith } from '../../harness/needs.ts';
import { run, scratchDirectory } from '../scratch-directory.ts';

const PACKER = { uid: 2_000_000_103, gid: 2_000_000_103 };

const PACKING = { wardenPath: wardenPath(), launcherPath: launcherPath(), packer: PACKER };

interface Begun {
  readonly pool: Pool;
  readonly root: RootSpec;
  readonly upper: string;
  /** Where the image is to be made, and all that is there. */
  readonly path: string;
  readonly files: () => Promise<readonly string[]>;
}

/** A container on an image with `etc/kept`, `etc/gone` and `old/below`, which has written nothing yet. */
const begin = async (): Promise<Begun> => {
  const scratch = await scratchDirectory();
  onTestFinished(() => scratch[Symbol.asyncDispose]());
  const tree = join(scratch.path, 'tree');
  await mkdir(join(tree, 'etc'), { recursive: true });
  await mkdir(join(tree, 'old'));
  for (const name of ['etc/kept', 'etc/gone', 'old/below']) await writeFile(join(tree, name), name);
  await chown(join(tree, 'etc/kept'), 100, 65_534);
  const image = join(scratch.path, 'image.raw');
  await run('mksquashfs', tree, image, '-quiet', '-no-progress');
  const pool = directoryPool({
    name: 'default',
    path: join(scratch.path, 'pool'),
    rootPacking: PACKING,
  });
  const root: RootSpec = {
    guest: newGuest(),
    image: { format: 'raw', path: image, readOnly: true, sizeBytes: 4096 },
  };
  await pool.prepareGuest(root.guest, undefined);
  await pool.prepareRoot(root, work());
  const place = join(scratch.path, 'working');
  await mkdir(place, { mode: 0o700 });
  return {
    pool,
    root,
    upper: join(pool.rootSource(root).directory, 'upper'),
    path: join(place, 'root.squashfs'),
    files: () => readdir(place),
  };
};

/** An access control list, as acl(5) has it: uid 1000 may read the file. */
const giveList = (path: string): Promise<unknown> => {
  const entries = [
    [1, 6, -1],
    [2, 4, 1000],
    [4, 4, -1],
    [16, 4, -1],
    [32, 4, -1],
  ] as const;
  const list = Buffer.alloc(4 + entries.length * 8);
  list.writeUInt32LE(2);
  for (const [index, [tag, permissions, id]] of entries.entries()) {
    list.writeUInt16LE(tag, 4 + index * 8);
    list.writeUInt16LE(permissions, 6 + index * 8);
    list.writeInt32LE(id, 8 + index * 8);
  }
  return run(
    'python3',
    '-c',
    'import os, sys; os.setxattr(sys.argv[1], "system.posix_acl_access", bytes.fromhex(sys.argv[2]))',
    path,
    list.toString('hex'),
  );
};

/** As overlayfs does, and who is in the container. */
const write = `import os, struct, sys
os.chdir(sys.argv[1])
os.mkdir('etc'); os.mkdir('old'); os.mkdir('bin')
os.mknod('etc/gone', 0o20000, os.makedev(0, 0))
os.setxattr('old', 'trusted.overlay.opaque', b'y')
def put(name, mode, uid, gid):
    with open(name, 'w') as f: f.write(name)
    os.chown(name, uid, gid); os.chmod(name, mode)
put('old/new', 0o600, 1000, 1000)
put('bin/tool', 0o4755, 0, 33)
os.link('bin/tool', 'bin/twin')
os.setxattr('bin/tool', 'user.note', b'mine')
put('bin/able', 0o755, 0, 0)
os.setxattr('bin/able', 'security.capability', struct.pack('<5I', 0x02000001, 1 << 13, 0, 0, 0))
put('bin/listed', 0o640, 0, 0)
entries = [(1, 6, 0xffffffff), (2, 4, 1000), (4, 4, 0xffffffff), (16, 4, 0xffffffff), (32, 0, 0xffffffff)]
acl = struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *entry) for entry in entries)
os.setxattr('bin/listed', 'system.posix_acl_access', acl)
`;

/** By path: owner, mode, and extended attributes of a tree. */
const look = `import json, os, sys
os.chdir(sys.argv[1])
found = {}
for place, _, names in os.walk('.'):
    for path in [place] + [os.path.join(place, name) for name in names]:
        s = os.lstat(path)
        xattrs = {} if os.path.islink(path) else {n: os.getxattr(path, n).hex() for n in os.listxattr(path)}
        found[os.path.normpath(path)] = ['%o %d:%d' % (s.st_mode, s.st_uid, s.st_gid), xattrs]
print(json.dumps(found))
`;

const unpacked = async (path: string): Promise<{ readonly tree: string; readonly found: unknown }> => {
  const tree = `${path}.tree`;
  await run('unsquashfs', '-quiet', '-no-progress', '-d', tree, path);
  return { tree, found: JSON.parse(await run('python3', '-c', look, tree)) };
};

describeWith(['root', 'sqfstar'], 'a root that is saved', () => {
  it('is what the container sees: owners, modes, links and attributes of its own', async () => {
    const { pool, root, upper, path, files } = await begin();
    await run('python3', '-c', write, upper);
    await symlink('/etc/shadow', join(upper, 'etc/link'));
    const heard: Progress[] = [];
    await pool.saveRoot(root, path, { ...work(), progress: (told) => heard.push(told) });
    expect(heard[0]).toMatchObject({ done: 0, total: 100, unit: 'percent' });
    expect(heard.at(-1)).toMatchObject({ done: 100 });
    expect(await files()).toEqual(['root.squashfs']);
    const { tree, found } = await unpacked(path);
    expect(found).toEqual({
      '.': ['40755 0:0', {}],
      bin: ['40755 0:0', {}],
      'bin/able': ['100755 0:0', { 'security.capability': '0100000200200000000000000000000000000000' }],
      // What a squashfs cannot keep is left out, and stops nothing.
      'bin/listed': ['100640 0:0', {}],
      'bin/tool': ['104755 0:33', { 'user.note': '6d696e65' }],
      'bin/twin': ['104755 0:33', { 'user.note': '6d696e65' }],
      etc: ['40755 0:0', {}],
      'etc/kept': ['100644 100:65534', {}],
      'etc/link': ['120777 0:0', {}],
      old: ['40755 0:0', {}],
      'old/new': ['100600 1000:1000', {}],
    });
    expect(await readFile(join(tree, 'etc/kept'), 'utf8')).toBe('etc/kept');
    expect(await run('stat', '--format=%h', join(tree, 'bin/twin'))).toBe('2\n');
  });

  it('says of access control lists that they are left out', async () => {
    const { pool, root, upper, path } = await begin();
    await writeFile(join(upper, 'listed'), '');
    const quiet: string[] = [];
    await pool.saveRoot(root, path, { ...work(), warn: (text) => quiet.push(text) });
    expect(quiet).toEqual([]);
    await rm(path);
    await giveList(join(upper, 'listed'));
    const told: string[] = [];
    await pool.saveRoot(root, path, { ...work(), warn: (text) => told.push(text) });
    expect(told).toEqual([expect.stringMatching(/^Left out: 1 attributes .*system\.posix_acl_access/)]);
  });

  it('is packed as images of roots are', async () => {
    const { pool, root, path } = await begin();
    await pool.saveRoot(root, path, work());
    const told = await run('unsquashfs', '-stat', path);
    for (const word of ['Compression lz4', 'Inodes are uncompressed', 'Duplicates are removed'])
      expect(told).toContain(word);
  });

  it('is not made again, and made anew where a crash left half of it', async () => {
    const { pool, root, upper, path, files } = await begin();
    await mkdir(`${path}.d/made`, { recursive: true });
    await writeFile(`${path}.d/made/tree`, 'half');
    await pool.saveRoot(root, path, work());
    await writeFile(join(upper, 'later'), '');
    await mkdir(`${path}.d`);
    await pool.saveRoot(root, path, work());
    expect(await files()).toEqual(['root.squashfs']);
    expect((await unpacked(path)).found).not.toHaveProperty('later');
  });

  it('leaves nothing when it is cancelled in the middle, and no mount', async () => {
    const { pool, root, path, files } = await begin();
    const cancel = new AbortController();
    const reason = new Error('the test cancels');
    const saving = pool.saveRoot(root, path, {
      signal: cancel.signal,
      progress: () => setImmediate(() => cancel.abort(reason)),
    });
    await expect(saving).rejects.toBe(reason);
    expect(await files()).toEqual([]);
    expect(await readFile('/proc/self/mountinfo', 'utf8')).not.toContain(path);
    await pool.saveRoot(root, path, work());
  });

  it('is missed where a part of it is lost, and its file is where it cannot be read', async () => {
    const { pool, root, path, files } = await begin();
    await chmod(root.image.path, 0o600);
    await writeFile(root.image.path, 'no squashfs');
    await expect(pool.saveRoot(root, path, work())).rejects.toMatchObject({
      class: 'HostError',
      message: expect.stringContaining(root.image.path) as string,
    });
    await pool.removeRoot(root.guest);
    await expect(pool.saveRoot(root, path, work())).rejects.toMatchObject({
      class: 'FailedPrecondition',
      data: { path: pool.rootSource(root).directory },
    });
    expect(await files()).toEqual([]);
  });

  it('is read by who can read everything, and nothing else', async () => {
    const { pool, root, path } = await begin();
    const place = `${path}.d`;
    await mkdir(join(place, 'run'), { recursive: true });
    await mkdir(join(place, 'made'));
    const argv = savingArgs(pool.rootSource(root), place, PACKING, 2 ** 20);
    const tool = argv.indexOf('/usr/bin/mksquashfs');
    expect(argv.slice(tool - 3, tool)).toEqual(['--die-with', `${process.pid}`, '--']);
    const asker = argv.slice(0, tool).filter((each) => each !== '--die-with' && each !== `${process.pid}`);
    const said = await run(
      asker[0] ?? '',
      ...asker.slice(1),
      '/bin/cat',
      '/proc/self/status',
      '/mnt/etc/kept',
    );
    expect(said).toContain(`Uid:\t${PACKER.uid}\t${PACKER.uid}`);
    for (const set of ['CapPrm', 'CapEff', 'CapInh', 'CapAmb'])
      expect(said).toContain(`${set}:\t0000000000000004`);
    expect(said).toContain('CapBnd:\t0000000000000000');
    expect(said).toMatch(/etc\/kept$/);
  });
});

it('a root is saved by no daemon without privileges', async () => {
  const pool = directoryPool({ name: 'default', path: '/nonexistent', launcherPath: launcherPath() });
  await expect(pool.requireSaveable()).rejects.toMatchObject({
    class: 'Unsupported',
    hint: 'Run it as root.',
  });
});
