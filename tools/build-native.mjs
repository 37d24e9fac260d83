/**
 * Builds the parts written in C, with plain gcc:
 *   native/*.c    build/native/roost.node           the addon
 *   launcher/*.c  build/launcher/roost-launcher     the guest launcher, static where libc allows
 *   guest/*.c     build/guest/roost-init            init and agent of a microVM, static: nothing else is in its initramfs
 *   splice/*.c    build/splice/roost-splice         gives a program parts of files, static likewise
 *   warden/*.c    build/warden/roost-warden         the process of a container, static, with a part of the launcher's
 *
 * An output newer than its sources is left alone. An output is replaced by rename, so that a running program
 * keeps the file it has mapped.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, realpathSync, renameSync, rmSync, statSync } from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(import.meta.dirname);
const commonFlags = ['-std=gnu11', '-O2', '-Wall', '-Wextra', '-Werror', '-fstack-protector-strong'];

/** A failure whose message is all that the person at the terminal needs. */
export class BuildError extends Error {}

/** Node's headers lie beside the Node that runs this, wherever it came from. */
function headerFolder() {
  const prefix = dirname(dirname(realpathSync(process.execPath)));
  const folder = join(prefix, 'include', 'node');
  const header = join(folder, 'node_api.h');
  if (existsSync(header)) return folder;
  throw new BuildError(
    `Node's headers are missing: there is no ${header}.\n` +
      `NodeSource's "nodejs" package and the archives of nodejs.org have them. For this Node, unpack\n` +
      `https://nodejs.org/dist/${process.version}/node-${process.version}-headers.tar.gz\n` +
      `so that its include/node becomes ${folder}.`,
  );
}

function sourcesOf(folder) {
  return readdirSync(join(root, folder))
    .filter((name) => name.endsWith('.c') || name.endsWith('.h'))
    .map((name) => join(root, folder, name));
}

function isFresh(output, sources) {
  if (!existsSync(output)) return false;
  const builtAt = statSync(output).mtimeMs;
  return [...sources, fileURLToPath(import.meta.url)].every((source) => statSync(source).mtimeMs < builtAt);
}

/** Runs gcc; returns what it printed when it failed, or undefined when it succeeded. */
function compile(args) {
  const run = spawnSync('gcc', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  if (run.error?.code === 'ENOENT') {
    throw new BuildError('gcc is missing. On Debian: apt install gcc libc6-dev');
  }
  if (run.error) throw run.error;
  return run.status === 0 ? undefined : run.stdout + run.stderr;
}

/** Tries each set of flags in turn; the last failure is the one that is told. */
function build(folder, output, attempts) {
  return buildFrom(sourcesOf(folder), output, attempts);
}

function buildFrom(sources, output, attempts) {
  if (isFresh(output, sources)) return false;
  mkdirSync(dirname(output), { recursive: true });
  const temporary = `${output}.${process.pid}`;
  const inputs = sources.filter((source) => source.endsWith('.c'));
  let failure;
  for (const flags of attempts) {
    failure = compile([...commonFlags, ...flags, '-o', temporary, ...inputs]);
    if (failure === undefined) {
      renameSync(temporary, output);
      return true;
    }
  }
  rmSync(temporary, { force: true });
  throw new BuildError(`gcc could not build ${relative(root, output)}:\n${failure}`);
}

/** With a shared libc: there are no static sanitizers. */
const sanitizers = [
  '-g',
  '-O1',
  '-fno-omit-frame-pointer',
  '-fsanitize=address,undefined',
  '-fno-sanitize-recover=all',
];

/** The same agent under AddressSanitizer and UndefinedBehaviorSanitizer, for tests. Returns its path. */
export function buildSanitizedInit() {
  const output = join(root, 'build/guest/roost-init-sanitized');
  build('guest', output, [sanitizers]);
  return output;
}

/**
 * A program of the tests out of one source of theirs and the agent's own parts but its main, under the sanitizers.
 * Returns its path.
 */
export function buildGuestTest(source) {
  const output = join(root, 'build/guest', basename(source, '.c'));
  const parts = sourcesOf('guest').filter((path) => basename(path) !== 'init.c');
  buildFrom([...parts, join(root, source)], output, [[...sanitizers, `-I${join(root, 'guest')}`]]);
  return output;
}

/** The warden, and what it has in common with the launcher. */
const wardenSources = () => [
  ...sourcesOf('warden'),
  ...['process.c', 'process.h'].map((name) => join(root, 'launcher', name)),
];
const wardenFlags = [`-I${join(root, 'launcher')}`];

/** The same warden under AddressSanitizer and UndefinedBehaviorSanitizer, for tests. Returns its path. */
export function buildSanitizedWarden() {
  const output = join(root, 'build/warden/roost-warden-sanitized');
  buildFrom(wardenSources(), output, [[...sanitizers, ...wardenFlags]]);
  return output;
}

/** Builds what is missing or old; returns the paths that were built. */
export function buildNative() {
  const addon = join(root, 'build/native/roost.node');
  const launcher = join(root, 'build/launcher/roost-launcher');
  const init = join(root, 'build/guest/roost-init');
  const splice = join(root, 'build/splice/roost-splice');
  const warden = join(root, 'build/warden/roost-warden');
  const built = [];
  const addonFlags = ['-shared', '-fPIC', '-fvisibility=hidden', '-DNAPI_VERSION=8', `-I${headerFolder()}`];
  if (build('native', addon, [addonFlags])) built.push(addon);
  if (build('launcher', launcher, [['-static'], []])) built.push(launcher);
  if (build('guest', init, [['-static', '-s', '-ffunction-sections', '-Wl,--gc-sections']])) built.push(init);
  if (build('splice', splice, [['-static'], []])) built.push(splice);
  if (buildFrom(wardenSources(), warden, [['-static', ...wardenFlags]])) built.push(warden);
  return built;
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  try {
    for (const output of buildNative()) console.log(`built ${relative(root, output)}`);
  } catch (error) {
    if (!(error instanceof BuildError)) throw error;
    console.error(error.message);
    process.exitCode = 1;
  }
}
