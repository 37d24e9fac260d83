/**
 * The package as dpkg takes it, in a small Debian of its own without systemd running: contents, units, configuration,
 * upgrade, refusal, removal and purge. How it works in a real host is tried by test/e2e/service.test.ts.
 */
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Database } from '../../daemon/inventory/database.ts';
import { migrations } from '../../daemon/inventory/migrations.ts';
import { exec } from '../../lib/exec.ts';
import { ExecError } from '../../lib/exec-result.ts';
import { hostSources } from '../../storage/debian/apt-sources.ts';
import { withFileLock } from '../../tools/file-lock.ts';
import { buildDeb } from '../../tools/package/build-deb.ts';
import { installTree } from '../../tools/package/install-tree.ts';
import { describeWith } from '../harness/needs.ts';
import { makeDirectory } from '../harness/test-directory.ts';

const { signal } = new AbortController();
const SUITE = 'bookworm';
const timeout = 600_000;
/** What the scripts and the programs of the package need; all that it depends on is tried by simulation alone. */
const ROOT_PACKAGES = ['systemd', 'init-system-helpers', 'debconf', 'libstdc++6', 'ca-certificates'];

/** A small Debian, made once for this checkout; a quarter of a minute. */
const smallRoot = async (): Promise<string> => {
  const directory = resolve(import.meta.dirname, '../../.cache/package-root');
  const path = join(directory, SUITE);
  await mkdir(directory, { recursive: true });
  await withFileLock({ path: join(directory, 'lock'), signal }, async () => {
    if (existsSync(path)) return;
    const { sources, aptOptions } = await hostSources(SUITE, signal);
    const building = `${path}.building`;
    await rm(building, { recursive: true, force: true });
    const options = [...aptOptions, 'APT::Sandbox::User "root"'].map((option) => `--aptopt=${option}`);
    await exec(
      [
        'mmdebstrap',
        '--mode=root',
        '--format=directory',
        '--variant=apt',
        '--skip=check/signed-by,cleanup/apt/lists',
        '--dpkgopt=force-unsafe-io',
        ...options,
        `--include=${ROOT_PACKAGES.join(',')}`,
        SUITE,
        building,
        ...sources,
      ],
      { signal, timeoutMs: 0 },
    );
    await rename(building, path);
  });
  return path;
};

let root: string;
let packages: { readonly first: string; readonly next: string; readonly older: string };

const inside = async (...argv: readonly string[]): Promise<string> => {
  const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8', DEBIAN_FRONTEND: 'noninteractive' };
  const { stdout, stderr } = await exec(['chroot', root, ...argv], { signal, env, timeoutMs: 120_000 });
  return stdout + stderr;
};

/** How it failed, in its own words. */
const failing = async (...argv: readonly string[]): Promise<string> => {
  try {
    await inside(...argv);
  } catch (error) {
    if (error instanceof ExecError) return error.stdout + error.stderr;
    throw error;
  }
  throw new Error(`${argv.join(' ')} did not fail`);
};

/** Without what it depends on: QEMU and the like are not needed to unpack and configure it. */
const dpkg = ['dpkg', '--force-depends', '--force-unsafe-io'] as const;
const versionOf = (): Promise<string> => inside('dpkg-query', '--show', '--showformat=${Version}', 'roost');
const isThere = (path: string): boolean => existsSync(join(root, path));

describeWith(['root', 'mmdebstrap', 'dpkg-deb', 'systemd-analyze'], 'the Debian package', () => {
  beforeAll(async () => {
    const directory = await makeDirectory('package');
    root = join(directory, 'root');
    // With its devices, which Node's own copy would open.
    await exec(['cp', '--archive', '--reflink=auto', await smallRoot(), root], { signal, timeoutMs: 0 });
    packages = {
      first: await buildDeb({ directory: join(root, 'srv'), signal }),
      next: await buildDeb({ directory: join(root, 'srv'), version: '0.1.0+next', signal }),
      older: await buildDeb({ directory: join(root, 'srv'), version: '0.0.1', layout: 1, signal }),
    };
  }, timeout);
  afterAll(async () => {
    await rm(join(root, '..'), { recursive: true, force: true });
  }, timeout);

  const named = (path: string): string => path.slice(root.length);

  it('can be had with what it depends on, of which there is no Node.js', { timeout }, async () => {
    const plan = await inside(
      'apt-get',
      '--simulate',
      '--no-install-recommends',
      'install',
      named(packages.first),
    );
    expect(plan).toMatch(/^Inst roost /m);
    expect(plan).toMatch(/^Inst qemu-system-x86 /m);
    expect(plan).not.toMatch(/^Inst nodejs /m);
  });

  it('installs programs, units that systemd reads without a word, groups, pages and completions', {
    timeout,
  }, async () => {
    await inside(...dpkg, '--install', named(packages.first));
    expect(await inside('roost', '--version')).toMatch(/^\d+\.\d+\.\d+/);
    expect(await inside('roostd', '--check-config')).toContain('/etc/roost/roostd.yaml can be used');
    // What is not running cannot be found fault with, but dependencies of the units are there in a real host alone.
    const units = ['roostd.service', 'roostd.socket', 'roost-guests.service', 'roost.slice'];
    expect(await inside('systemd-analyze', 'verify', '--man=no', ...units)).toBe('');
    expect(
      (
        await inside('systemctl', 'is-enabled', 'roostd.service', 'roostd.socket', 'roost-guests.service')
      ).split('\n'),
    ).toEqual(['enabled', 'enabled', 'enabled', '']);
    expect(await inside('getent', 'group', 'roost', 'roost-images')).toMatch(/^roost:.*\nroost-images:/);
    for (const path of [
      'man/man1/roost.1.gz',
      'man/man8/roostd.8.gz',
      'bash-completion/completions/roost',
      'doc/roost/service.md',
      'doc/roost/copyright',
    ])
      expect([path, isThere(join('usr/share', path))]).toEqual([path, true]);
    expect(await readdir(join(root, 'usr/lib/roost'))).toContain('node');
  });

  it('keeps the configuration that somebody wrote, over an upgrade', { timeout }, async () => {
    const config = join(root, 'etc/roost/roostd.yaml');
    await writeFile(config, 'log: { level: debug }\n');
    await inside(...dpkg, '--force-confdef', '--install', named(packages.next));
    expect(await versionOf()).toBe('0.1.0+next');
    expect(await readFile(config, 'utf8')).toBe('log: { level: debug }\n');
  });

  it('refuses to take the place of a newer one whose inventory it could not read, and changes nothing', {
    timeout,
  }, async () => {
    await mkdir(join(root, 'var/lib/roost'), { recursive: true });
    new Database(join(root, 'var/lib/roost/roost.db')).close();
    const said = await failing(...dpkg, '--install', named(packages.older));
    expect(said).toContain(
      `was written by a newer Roost (layout ${migrations.length}; version 0.0.1 knows up to 1)`,
    );
    expect(await versionOf()).toBe('0.1.0+next');
    expect(await inside('roost', '--version')).toMatch(/^\d/);
  });

  it('removed, leaves configuration and state; purged, asks before it removes guests', {
    timeout,
  }, async () => {
    const disks = join(root, 'var/lib/roost/pools/default/guests/0');
    await mkdir(disks, { recursive: true });
    await inside(...dpkg, '--remove', 'roost');
    expect([isThere('usr/lib/roost'), isThere('etc/roost/roostd.yaml'), existsSync(disks)]).toEqual([
      false,
      true,
      true,
    ]);

    expect(await inside(...dpkg, '--purge', 'roost')).toContain('/var/lib/roost is kept');
    expect([isThere('etc/roost'), isThere('run/roost'), existsSync(disks)]).toEqual([false, false, true]);

    await writeFile(join(root, 'srv/answers'), 'roost roost/purge-guests boolean true\n');
    await inside('debconf-set-selections', '/srv/answers');
    await inside(...dpkg, '--install', named(packages.first));
    await inside(...dpkg, '--purge', 'roost');
    expect(isThere('var/lib/roost')).toBe(false);
    const left = await inside('find', '/etc', '/usr', '/var/lib/systemd', '/run', '-name', '*roost*');
    expect(left).toBe('');
  });

  it('is installed without dpkg, twice over, below a prefix whose programs and units find each other', {
    timeout,
  }, async () => {
    await installTree({ destination: root, prefix: '/usr/local' });
    const config = join(root, 'etc/roost/roostd.yaml');
    await writeFile(config, 'log: { level: debug }\n');
    await installTree({ destination: root, prefix: '/usr/local' });
    expect(await readFile(config, 'utf8')).toBe('log: { level: debug }\n');
    await inside('systemd-sysusers');
    expect(await inside('getent', 'group', 'roost', 'roost-images')).toMatch(/^roost:.*\nroost-images:/);
    expect(await inside('/usr/local/bin/roost', '--version')).toMatch(/^\d+\.\d+\.\d+/);
    expect(await inside('/usr/local/sbin/roostd', '--check-config')).toContain('can be used');
    const units = ['roostd.service', 'roostd.socket', 'roost-guests.service', 'roost.slice'];
    // It looks whether what they start is there.
    expect(await inside('systemd-analyze', 'verify', '--man=no', ...units)).toBe('');
    await inside('systemctl', 'enable', 'roostd', 'roost-guests');
    expect((await inside('systemctl', 'is-enabled', 'roostd.socket')).trim()).toBe('enabled');
  });
});
