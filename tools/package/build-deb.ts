/**
 * `make deb`: build/roost_VERSION_ARCH.deb out of the tree that `make install` makes. The same sources, Node.js and commit
 * give the same package, byte for byte: every time in it is the commit's.
 */
import { readdirSync } from 'node:fs';
import { lstat, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { migrations } from '../../daemon/inventory/migrations.ts';
import { exec } from '../../lib/exec.ts';
import { versionText } from '../../protocol/version.ts';
import { isMain } from '../is-main.ts';
import { installTree } from './install-tree.ts';

export interface DebOptions {
  /** Where the package is put. */
  readonly directory: string;
  /** Version of the package; that of the program unless given. */
  readonly version?: string;
  /** Highest layout of an inventory that the package claims to know; what it knows unless given. For tests. */
  readonly layout?: number;
  readonly signal: AbortSignal;
}

const root = join(import.meta.dirname, '../..');
const source = join(import.meta.dirname, 'debian');
const KIBIBYTE = 1024;

const said = async (signal: AbortSignal, ...argv: readonly [string, ...string[]]): Promise<string> =>
  (await exec(argv, { signal })).stdout.trim();

const kibibytesOf = async (directory: string): Promise<number> => {
  let total = 0;
  for (const entry of readdirSync(directory, { recursive: true, encoding: 'utf8' }))
    total += Math.ceil((await lstat(join(directory, entry))).size / KIBIBYTE);
  return total;
};

/** Seconds since the epoch of the last commit; outside of a repository what SOURCE_DATE_EPOCH says. */
const sourceDate = async (signal: AbortSignal): Promise<string> =>
  process.env['SOURCE_DATE_EPOCH'] ?? (await said(signal, 'git', '-C', root, 'log', '-1', '--format=%ct'));

const writeControl = async (tree: string, version: string, options: DebOptions): Promise<void> => {
  const { signal, layout = migrations.length } = options;
  // What the addons were linked with is the least they run with.
  const libc = await said(signal, 'dpkg-query', '--show', '--showformat=${source:Upstream-Version}', 'libc6');
  const values: Readonly<Record<string, string>> = {
    VERSION: version,
    ARCHITECTURE: await said(signal, 'dpkg', '--print-architecture'),
    INSTALLED_SIZE: String(await kibibytesOf(tree)),
    LIBC: libc,
    LAYOUT: String(layout),
  };
  await mkdir(join(tree, 'DEBIAN'), { mode: 0o755 });
  const files = {
    control: 0o644,
    preinst: 0o755,
    postinst: 0o755,
    prerm: 0o755,
    postrm: 0o755,
    templates: 0o644,
  };
  for (const [name, mode] of Object.entries(files)) {
    const text = await readFile(join(source, name === 'templates' ? 'roost.templates' : name), 'utf8');
    const filled = text.replaceAll(/@([A-Z_]+)@/g, (whole, key: string) => values[key] ?? whole);
    await writeFile(join(tree, 'DEBIAN', name), filled, { mode });
  }
  await writeFile(join(tree, 'DEBIAN/conffiles'), '/etc/roost/roostd.yaml\n', { mode: 0o644 });
};

/** Absolute path of the package. */
export const buildDeb = async (options: DebOptions): Promise<string> => {
  const { directory, signal, version = versionText } = options;
  const tree = join(directory, `roost_${version}.tree`);
  await rm(tree, { recursive: true, force: true });
  try {
    await installTree({ destination: tree, prefix: '/usr' });
    await writeControl(tree, version, options);
    const architecture = await said(signal, 'dpkg', '--print-architecture');
    const path = join(directory, `roost_${version}_${architecture}.deb`);
    await exec(['dpkg-deb', '--root-owner-group', '-Zzstd', '-z9', '--build', tree, `${path}.partial`], {
      signal,
      timeoutMs: 0,
      env: { SOURCE_DATE_EPOCH: await sourceDate(signal) },
    });
    await rename(`${path}.partial`, path);
    return path;
  } finally {
    await rm(tree, { recursive: true, force: true });
  }
};

if (isMain(import.meta.url)) {
  process.umask(0o022);
  const directory = join(root, 'build');
  const version = process.env['VERSION'];
  const path = await buildDeb({
    directory,
    signal: new AbortController().signal,
    ...(version === undefined || version === '' ? {} : { version }),
  });
  process.stdout.write(`${path}\n`);
}
