import { spawn } from 'node:child_process';
import { closeSync, existsSync } from 'node:fs';
import { lstat, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { openPidfd, watchReadable } from '../../../native/index.ts';
import type { BlockSource } from '../../../protocol/block-source.ts';
import type { GuestId } from '../../../protocol/types.ts';
import { directoryPool } from '../../../storage/directory/directory-pool.ts';
import type { Pool, RootSpec } from '../../../storage/pool.ts';
import { newGuest, work } from '../../conformance/pool.ts';
import { type RootHarness, rootConformance } from '../../conformance/pool-roots.ts';
import { whenFileHas } from '../../harness/image-server.ts';
import { describeWith } from '../../harness/needs.ts';
import { testDirectory } from '../../harness/test-directory.ts';
import { run, scratchDirectory } from '../scratch-directory.ts';

const guestDirectory = (pool: Pool, guest: GuestId): string => join(pool.path, 'guests', guest);

const makeImage = async (directory: string): Promise<BlockSource> => {
  const path = join(directory, 'image.raw');
  await writeFile(path, 'hsqs');
  return { format: 'raw', path, readOnly: true, sizeBytes: 4 };
};

rootConformance('the directory pool', async (): Promise<RootHarness> => {
  const scratch = await scratchDirectory();
  const pool = directoryPool({ name: 'default', path: join(scratch.path, 'pool') });
  return {
    pool,
    makeImage: () => makeImage(scratch.path),
    lose: (path) => rm(path, { recursive: true }),
    writeInto: ({ directory }, name) => writeFile(join(directory, 'upper', name), 'written'),
    written: async ({ directory }) => (await readdir(join(directory, 'upper'))).sort(),
    leaveHalf: async (guest, done) => {
      const half = join(
        guestDirectory(pool, guest),
        done === 'made' ? '.partial-root' : '.partial-root-removed',
      );
      await mkdir(join(half, 'upper', 'etc'), { recursive: true });
      await writeFile(join(half, 'upper', 'etc', 'passwd'), 'roo');
    },
    strays: async (guest) => (await readdir(guestDirectory(pool, guest))).filter((name) => name !== 'root'),
    [Symbol.asyncDispose]: () => scratch[Symbol.asyncDispose](),
  };
});

const setUp = async (): Promise<{ readonly pool: Pool; readonly root: RootSpec; readonly upper: string }> => {
  const scratch = await scratchDirectory();
  onTestFinished(() => scratch[Symbol.asyncDispose]());
  const pool = directoryPool({ name: 'default', path: join(scratch.path, 'pool') });
  const root = { guest: newGuest(), image: await makeImage(scratch.path) };
  await pool.prepareGuest(root.guest, undefined);
  await pool.prepareRoot(root, work());
  return { pool, root, upper: join(pool.rootSource(root).directory, 'upper') };
};

describe('a root in a directory', () => {
  it('is taken for lost when a part of it is', async () => {
    const { pool, root, upper } = await setUp();
    await rename(upper, join(dirname(upper), 'elsewhere'));
    await expect(pool.leaseRoot(root, work().signal)).rejects.toMatchObject({
      class: 'FailedPrecondition',
      data: { path: upper },
    });
  });

  it('is removed however deep a guest has dug', async () => {
    const { pool, root, upper } = await setUp();
    const name = 'd'.repeat(200);
    // By a program that goes down step by step: no path of the whole is short enough for the kernel.
    const dig = `import os,sys
os.chdir(sys.argv[1])
for _ in range(100):
    os.mkdir(sys.argv[2]); os.chdir(sys.argv[2])
open('treasure','w').close()`;
    await run('python3', '-c', dig, upper, name);
    await pool.removeRoot(root.guest);
    expect(existsSync(dirname(upper))).toBe(false);
    await pool.prepareRoot(root, work());
    await run('python3', '-c', dig, upper, name);
    await pool.removeGuest(root.guest);
    expect(await pool.inspect()).toEqual([]);
  });

  it('lets no link lead it out when it is removed', async () => {
    const { pool, root, upper } = await setUp();
    const precious = join(pool.path, 'precious');
    await mkdir(precious);
    await writeFile(join(precious, 'file'), 'mine');
    await run('ln', '-s', precious, join(upper, 'link'));
    await pool.removeRoot(root.guest);
    expect(await readdir(precious)).toEqual(['file']);
  });
});

describe('a crash', () => {
  const states: readonly (readonly [string, readonly string[]])[] = [
    ['before anything', []],
    ['with nothing made', ['.partial-root']],
    ['in the middle of a copy', ['.partial-root/upper/etc']],
    ['before the last name', ['.partial-root/upper', '.partial-root/work']],
    ['with all made', ['root/upper', 'root/work']],
    ['in the middle of a removal', ['.partial-root-removed/upper/etc']],
    ['in a removal, after one in the making', ['.partial-root/upper', '.partial-root-removed/upper']],
    ['after a root was made over a half removed one', ['root/upper', 'root/work', '.partial-root-removed']],
  ];

  it.each(states)('%s is made good by doing it again, and by removing it', async (_, paths) => {
    const { pool, root } = await setUp();
    const source = { ...root, guest: newGuest() };
    await pool.prepareGuest(source.guest, undefined);
    await pool.prepareRoot(source, work());
    const place = guestDirectory(pool, root.guest);
    const crash = async (): Promise<void> => {
      for (const name of await readdir(place)) await rm(join(place, name), { recursive: true });
      for (const path of paths) await mkdir(join(place, path), { recursive: true });
    };
    const makings = [
      () => pool.prepareRoot(root, work()),
      () => pool.cloneRoot(source.guest, root, work()),
    ] as const;
    for (const make of makings) {
      await crash();
      await make();
      await pool.leaseRoot(root, work().signal);
      await pool.removeRoot(root.guest);
      expect(await readdir(place)).toEqual([]);
    }
    await crash();
    await pool.removeRoot(root.guest);
    expect(await readdir(place)).toEqual([]);
  });

  it('of the daemon ends the copying with it', async () => {
    const { pool, root } = await setUp();
    const copy = { ...root, guest: newGuest() };
    await pool.prepareGuest(copy.guest, undefined);
    const programs = await testDirectory('programs');
    // In the place of cp: says who it is, and goes on for ever.
    await writeFile(join(programs, 'cp'), `#!/bin/sh\necho $$ >${programs}/pid\nexec sleep 1000\n`, {
      mode: 0o755,
    });
    const script = `
      import { directoryPool } from './storage/directory/directory-pool.ts';
      const [path, from, root] = process.argv.slice(1);
      const alive = setInterval(() => undefined, 1000);
      const work = { signal: new AbortController().signal, progress: () => undefined };
      await directoryPool({ name: 'default', path }).cloneRoot(from, JSON.parse(root), work);
      clearInterval(alive);`;
    const node = spawn(
      process.execPath,
      [
        '--import',
        'tsx',
        '--input-type=module',
        '-e',
        script,
        '--',
        pool.path,
        root.guest,
        JSON.stringify(copy),
      ],
      {
        cwd: join(import.meta.dirname, '../../..'),
        env: { ...process.env, PATH: `${programs}:${process.env.PATH ?? ''}` },
        stdio: ['ignore', 'inherit', 'inherit'],
      },
    );
    onTestFinished(() => void node.kill('SIGKILL'));
    await whenFileHas(join(programs, 'pid'), 2);
    const pidfd = openPidfd(Number(await readFile(join(programs, 'pid'), 'utf8')));
    const gone = new Promise<void>((resolve) => void watchReadable(pidfd, resolve));
    node.kill('SIGKILL');
    await gone;
    closeSync(pidfd);
    await pool.cloneRoot(root.guest, copy, work());
    expect(await pool.leaseRoot(copy, work().signal)).toEqual(pool.rootSource(copy));
  });
});

describeWith(['root'], 'a root in a directory of root', () => {
  it('is reached by root alone, and is itself as a root has to be', async () => {
    const { upper } = await setUp();
    const look = async (path: string): Promise<unknown> => {
      const { mode, uid, gid } = await lstat(path);
      return { mode: mode & 0o7777, uid, gid };
    };
    expect(await look(upper)).toEqual({ mode: 0o755, uid: 0, gid: 0 });
    expect(await look(join(dirname(upper), 'work'))).toEqual({ mode: 0o700, uid: 0, gid: 0 });
    expect(await look(dirname(upper))).toEqual({ mode: 0o700, uid: 0, gid: 0 });
  });

  it('is copied with all that overlayfs and the guest have put there', async () => {
    const { pool, root, upper } = await setUp();
    await run('mknod', join(upper, 'whiteout'), 'c', '0', '0');
    await mkdir(join(upper, 'opaque'));
    await writeFile(join(upper, 'a'), 'same');
    await run('ln', join(upper, 'a'), join(upper, 'b'));
    await run('ln', '-s', '/nowhere', join(upper, 'link'));
    await run('chown', '1000:33', join(upper, 'a'));
    await run('chmod', '6755', join(upper, 'a'));
    await run('chmod', '1770', upper);
    const setAttributes = `import os,sys
os.setxattr(sys.argv[1] + '/opaque', 'trusted.overlay.opaque', b'y')
os.setxattr(sys.argv[1] + '/a', 'security.capability', bytes.fromhex('0100000200200000000000000000000000000000'))`;
    await run('python3', '-c', setAttributes, upper);
    const copy = { ...root, guest: newGuest() };
    await pool.prepareGuest(copy.guest, undefined);
    await pool.cloneRoot(root.guest, copy, work());
    const copied = join(pool.rootSource(copy).directory, 'upper');

    const see = `import os,sys
top=sys.argv[1]
for d,dirs,files in sorted(os.walk(top)):
    for n in ['.'] + sorted(dirs + files):
        p=os.path.join(d,n); s=os.lstat(p)
        x={k: os.getxattr(p,k,follow_symlinks=False).hex() for k in sorted(os.listxattr(p,follow_symlinks=False))}
        print(os.path.relpath(p,top), oct(s.st_mode), s.st_uid, s.st_gid, s.st_rdev, s.st_nlink if not os.path.isdir(p) else '', x)`;
    const seen = await run('python3', '-c', see, upper);
    expect(seen).toContain('trusted.overlay.opaque');
    expect(seen).toContain('security.capability');
    expect(await run('python3', '-c', see, copied)).toBe(seen);
    expect(basename(dirname(copied))).toBe('root');
  });
});
