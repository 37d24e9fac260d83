/**
 * QMP clients of other projects, to be talked to as they are: QEMU's own Python package, out of Debian's source of
 * QEMU, and digitalocean/go-qemu with the compiler it needs, out of Debian's packages. Nothing is installed and root is
 * not needed: files are fetched, and what tests run is kept in `.cache/foreign-clients` of this checkout.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { exec } from '../../../lib/exec.ts';
import { parseControl } from '../../../tools/small-image/debian-packages.ts';

/** The first time it is 105 MB and a compilation, 10 s on a fast line; later everything is there. */
export const fetchTimeoutMs = 10 * 60_000;

/** Debian 12's QEMU, as its maintainers repacked it. The same bytes everywhere, so they are pinned. */
const qemuSource = {
  path: 'pool/main/q/qemu/qemu_7.2+dfsg.orig.tar.xz',
  sha256: '91aca71520040edc40b8d437aa3004dae614f58e286cf653ee8996c07af2962f',
  pythonFolder: 'qemu-7.2.0/python',
} as const;

/** go-qemu, and what its package `qmp` imports. */
const goLibraries = [
  'golang-github-digitalocean-go-qemu-dev',
  'golang-github-digitalocean-go-libvirt-dev',
  'golang-golang-x-sys-dev',
] as const;

const cache = resolve(import.meta.dirname, '../../../.cache/foreign-clients');
/** apt drops to the user _apt for downloads, who can't write here; as root it is told not to. */
const aptOptions = process.getuid?.() === 0 ? ['-o', 'APT::Sandbox::User=root'] : [];

/**
 * What `make` leaves in `work/result` becomes `.cache/foreign-clients/<name>`, once. Two at the same time both make it,
 * and one of them wins.
 */
const once = async (name: string, make: (work: string) => Promise<void>): Promise<string> => {
  const path = join(cache, name);
  if (existsSync(path)) return path;
  await mkdir(cache, { recursive: true });
  const work = await mkdtemp(join(cache, 'work-'));
  try {
    await make(work);
    await rename(join(work, 'result'), path).catch((error: unknown) => {
      if (!existsSync(path)) throw error;
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return path;
};

/** Where this host gets Debian's packages from, with a slash at the end. */
const debianMirror = async (signal: AbortSignal): Promise<string> => {
  const format = '$(LABEL) $(COMPONENT) $(REPO_URI)';
  const { stdout } = await exec(['apt-get', 'indextargets', '--format', format, 'Created-By: Packages'], {
    signal,
  });
  const mirror = /^Debian main (\S+)$/m.exec(stdout)?.[1];
  if (mirror === undefined)
    throw new Error(`apt knows no Debian mirror; run apt-get update once:\n${stdout}`);
  return mirror;
};

/** The folder that holds QEMU's Python package `qemu.qmp`, for PYTHONPATH. */
export const fetchPythonClient = (signal: AbortSignal): Promise<string> =>
  once(`qemu-qmp-${qemuSource.sha256.slice(0, 12)}`, async (work) => {
    const archive = join(work, 'qemu.tar.xz');
    const uri = `${await debianMirror(signal)}${qemuSource.path}`;
    const helper = '/usr/lib/apt/apt-helper';
    await exec([helper, ...aptOptions, 'download-file', uri, archive, `SHA256:${qemuSource.sha256}`], {
      signal,
      timeoutMs: fetchTimeoutMs,
    });
    const wanted = `${qemuSource.pythonFolder}/qemu/qmp`;
    await exec(['tar', '-xJf', archive, '-C', work, wanted], { signal, timeoutMs: fetchTimeoutMs });
    await rename(join(work, qemuSource.pythonFolder), join(work, 'result'));
  });

/** The compiler and its library as Debian's current `golang-go` names them: golang-1.19-go, golang-1.19-src. */
const goCompiler = async (signal: AbortSignal): Promise<readonly string[]> => {
  const argv = ['apt-cache', 'show', '--no-all-versions', 'golang-go'] as const;
  const { stdout } = await exec(argv, { signal, env: { LC_ALL: 'C' } });
  const depends = parseControl(stdout)[0]?.get('depends') ?? '';
  const version = /\bgolang-([0-9.]+)-go\b/.exec(depends)?.[1];
  if (version === undefined) throw new Error(`golang-go depends on no compiler: "${depends}"`);
  return [`golang-${version}-go`, `golang-${version}-src`];
};

/** Unpacks packages into one folder, as an installation would lie in `/`. */
const unpackAll = async (packages: readonly string[], work: string, signal: AbortSignal): Promise<string> => {
  await exec(['apt-get', '-q', ...aptOptions, 'download', ...packages], {
    cwd: work,
    signal,
    timeoutMs: fetchTimeoutMs,
  });
  const folder = join(work, 'unpacked');
  for (const name of await readdir(work))
    if (name.endsWith('.deb')) await exec(['dpkg-deb', '-x', join(work, name), folder], { signal });
  return folder;
};

const goSource = join(import.meta.dirname, 'go-client.go');

/** A program of ours, `go-client.go`, compiled with go-qemu. The compiler is not kept: it takes 500 MB. */
export const fetchGoClient = async (signal: AbortSignal): Promise<string> => {
  const recipe = `${await readFile(goSource, 'utf8')}\n${goLibraries.join(' ')}`;
  const digest = createHash('sha256').update(recipe).digest('hex').slice(0, 12);
  return once(`go-client-${digest}`, async (work) => {
    const compiler = await goCompiler(signal);
    const folder = await unpackAll([...compiler, ...goLibraries], work, signal);
    const version = compiler[0]?.replace(/^golang-(.*)-go$/, '$1');
    const root = join(folder, `usr/lib/go-${version}`);
    const env = {
      GOROOT: root,
      GOPATH: join(folder, 'usr/share/gocode'),
      GOCACHE: join(work, 'compiled'),
      // Debian's libraries lie in GOPATH, without modules, and nothing may be looked for in the network.
      GO111MODULE: 'off',
      GOFLAGS: '',
      CGO_ENABLED: '0',
    };
    await exec([join(root, 'bin/go'), 'build', '-o', join(work, 'result'), goSource], {
      env,
      signal,
      timeoutMs: fetchTimeoutMs,
    });
  });
};
