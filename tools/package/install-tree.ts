/**
 * `make install`: everything that an installation consists of, below DESTDIR and PREFIX (/usr/local unless given). The
 * package is made of the same tree. It carries the Node.js that it was built with, because the addon of SQLite fits no other.
 */
import { chmod, cp, mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { completionScript } from '../../cli/completion.ts';
import { isMain } from '../is-main.ts';
import { roostdPage, roostPage } from './man-pages.ts';

export interface InstallOptions {
  /** Where the tree is made; `/` to install for this host. */
  readonly destination: string;
  /** Where its programs will be found, as `/usr`. */
  readonly prefix: string;
}

const root = join(import.meta.dirname, '../..');

/** What the bundle leaves outside of itself, and what that needs. */
const modules = ['better-sqlite3', 'bindings', 'file-uri-to-path'] as const;
/** Of better-sqlite3 all but its sources. */
const unneeded =
  /\/test(?:\/|$)|\.npmignore$|\.travis\.yml$|better-sqlite3\/(?:deps|src|binding\.gyp|build\/(?!Release(\/better_sqlite3\.node)?$))/;

const documents = [
  'README.md',
  'CHANGELOG.md',
  'docs/configuration.md',
  'docs/service.md',
  'docs/recovery.md',
  'docs/cloud-init.md',
  'docs/microvms.md',
] as const;

/** A file of its own content; directories are made with the mode that everybody may read. */
const put = async (path: string, content: string | Uint8Array, mode = 0o644): Promise<void> => {
  await mkdir(dirname(path), { recursive: true, mode: 0o755 });
  await writeFile(path, content);
  await chmod(path, mode);
};

const copy = async (from: string, to: string, mode = 0o644): Promise<void> =>
  await put(to, await readFile(from), mode);

/** The programs, beside the Node.js that runs them. */
const installPrograms = async (library: string, place: string): Promise<void> => {
  await copy(process.execPath, join(library, 'node'), 0o755);
  for (const program of ['roost', 'roostd'])
    await put(
      join(library, 'bin', program),
      (await readFile(join(root, 'bin', program), 'utf8')).replace(/^#!.*/, `#!${place}/node`),
      0o755,
    );
  for (const part of ['bin/package.json', 'bin/run-bundle.cjs'])
    await copy(join(root, part), join(library, part));
  for (const file of await readdir(join(root, 'dist')))
    if (/\.(cjs|code)$/.test(file)) await copy(join(root, 'dist', file), join(library, 'dist', file));
  await copy(join(root, 'build/native/roost.node'), join(library, 'build/native/roost.node'));
  await copy(
    join(root, 'build/launcher/roost-launcher'),
    join(library, 'build/launcher/roost-launcher'),
    0o755,
  );
  await copy(join(root, 'build/splice/roost-splice'), join(library, 'build/splice/roost-splice'), 0o755);
  await copy(join(root, 'build/warden/roost-warden'), join(library, 'build/warden/roost-warden'), 0o755);
  await copy(join(root, 'build/guest/roost-init'), join(library, 'build/guest/roost-init'), 0o755);
  for (const name of modules)
    await cp(join(root, 'node_modules', name), join(library, 'node_modules', name), {
      recursive: true,
      filter: (path) => !unneeded.test(path),
    });
};

const installUnits = async (base: string, prefix: string): Promise<void> => {
  const source = (name: string): Promise<string> => readFile(join(root, 'systemd', name), 'utf8');
  for (const unit of ['roostd.service', 'roostd.socket', 'roost.slice', 'roost-guests.service']) {
    const text = (await source(unit)).replaceAll(
      /\/usr\/(?=sbin\/roostd|bin\/roost |share\/doc\/roost)/g,
      `${prefix}/`,
    );
    await put(join(base, 'lib/systemd/system', unit), text);
  }
  await put(join(base, 'lib/sysusers.d/roost.conf'), await source('roost.sysusers'));
  await put(join(base, 'lib/tmpfiles.d/roost.conf'), await source('roost.tmpfiles'));
};

const installDocuments = async (share: string): Promise<void> => {
  for (const [page, text] of [
    ['man1/roost.1', roostPage()],
    ['man8/roostd.8', roostdPage()],
  ] as const)
    await put(join(share, 'man', `${page}.gz`), gzipSync(text, { level: 9 }));
  await put(join(share, 'bash-completion/completions/roost'), completionScript('bash'));
  await put(join(share, 'zsh/vendor-completions/_roost'), completionScript('zsh'));
  await put(join(share, 'fish/vendor_completions.d/roost.fish'), completionScript('fish'));
  for (const path of documents)
    await copy(join(root, path), join(share, 'doc/roost', path.split('/').at(-1) ?? path));
  await put(join(share, 'doc/roost/copyright'), await copyright());
};

/** Our licence, and those of what comes with us. */
const copyright = async (): Promise<string> => {
  const node = dirname(dirname(process.execPath));
  const licences = [
    ['Roost', join(root, 'LICENSE')],
    ['Node.js', join(node, 'share/doc/nodejs/LICENSE')],
    ['Node.js', join(node, 'LICENSE')],
    ...modules.flatMap((name) =>
      ['LICENSE', 'LICENSE.md'].map((file) => [name, join(root, 'node_modules', name, file)] as const),
    ),
  ] as const;
  const parts: string[] = [];
  for (const [name, path] of licences) {
    const text = await readFile(path, 'utf8').catch(() => undefined);
    if (text !== undefined) parts.push(`==== ${name} ====\n\n${text.trim()}\n`);
  }
  return parts.join('\n\n');
};

/** Makes the tree anew; what else lies below the destination stays. */
export const installTree = async ({ destination, prefix }: InstallOptions): Promise<void> => {
  const base = join(destination, prefix);
  const library = join(base, 'lib/roost');
  await rm(library, { recursive: true, force: true });
  await installPrograms(library, join(prefix, 'lib/roost'));
  for (const [directory, program] of [
    ['bin', 'roost'],
    ['sbin', 'roostd'],
  ] as const) {
    const link = join(base, directory, program);
    await mkdir(dirname(link), { recursive: true, mode: 0o755 });
    await rm(link, { force: true });
    await symlink(`../lib/roost/bin/${program}`, link);
  }
  await installUnits(base, prefix);
  await installDocuments(join(base, 'share'));
  const config = join(destination, 'etc/roost/roostd.yaml');
  // A configuration that is there is somebody's.
  if ((await readFile(config).catch(() => undefined)) === undefined)
    await copy(join(import.meta.dirname, 'roostd.yaml'), config);
};

if (isMain(import.meta.url)) {
  const prefix = process.env['PREFIX'] ?? '/usr/local';
  const destination = process.env['DESTDIR'] ?? '/';
  process.umask(0o022);
  await installTree({ destination, prefix });
  process.stdout.write(
    destination === '/'
      ? `Installed below ${prefix}. Next, as root: systemd-sysusers && systemctl daemon-reload && systemctl enable --now roostd roost-guests\n`
      : `Installed below ${join(destination, prefix)}\n`,
  );
}
