/**
 * Builds the project: the parts written in C, then one bundle for each program.
 *   daemon/roostd.ts       dist/roostd.js       one file
 *   cli/main.ts            dist/roost.js        with dist/cli/*, loaded by the commands that need them
 *   test/fault/*.entry.ts  dist/test/*.js       programs of the tests, where there are any
 *
 * A file whose content did not change is left alone, and every other is replaced by rename: a program that runs
 * keeps the file it has, and two builds at once can't leave half a file.
 */
import { existsSync, readdirSync, readFileSync, realpathSync } from 'node:fs';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BuildError, buildNative } from './build-native.mjs';

const root = dirname(import.meta.dirname);
const dist = join(root, 'dist');

/** What CommonJS dependencies inside an ES module need: a `require` that works. */
const requireBanner =
  "import { createRequire as createRequireOfBundle } from 'node:module';\n" +
  'const require = createRequireOfBundle(import.meta.url);';

/** zod brings its messages in fifty languages; ours are English, and what is not there is not read at each start. */
const englishOnly = {
  name: 'english-only',
  setup(build) {
    build.onResolve({ filter: /\/locales\/index\.js$/ }, ({ resolveDir }) => ({
      path: join(resolveDir, '../locales/en.js'),
    }));
  },
};

const common = {
  absWorkingDir: root,
  bundle: true,
  write: false,
  platform: 'node',
  format: 'esm',
  target: 'node20.19',
  // Compiled for one Node; it stays in node_modules.
  external: ['better-sqlite3'],
  banner: { js: requireBanner },
  sourcemap: 'linked',
  // Sources are in the repository beside it.
  sourcesContent: false,
  legalComments: 'none',
  logLevel: 'silent',
  outdir: dist,
  plugins: [englishOnly],
};

function programs() {
  const found = [];
  const add = (name, source, options = {}) => {
    if (existsSync(join(root, source))) found.push({ entryPoints: { [name]: source }, ...options });
  };
  add('roostd', 'daemon/roostd.ts');
  // What `roost ls` does not need, it does not read: each lazy import is a file of its own.
  add('roost', 'cli/main.ts', {
    splitting: true,
    minifySyntax: true,
    minifyWhitespace: true,
    chunkNames: 'cli/[name]-[hash]',
  });
  for (const entry of faultEntries()) add(`test/${basename(entry, '.entry.ts')}`, entry);
  return found;
}

function faultEntries() {
  const folder = join(root, 'test/fault');
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((name) => name.endsWith('.entry.ts'))
    .map((name) => join('test/fault', name));
}

async function bundle(options) {
  // Not imported above, so that a missing installation is told in our words.
  const { build } = await import('esbuild');
  const { outputFiles } = await build({ ...common, ...options });
  const changed = [];
  for (const file of outputFiles) if (await replaceFile(file.path, file.contents)) changed.push(file.path);
  return { paths: outputFiles.map((file) => file.path), changed };
}

async function replaceFile(path, contents) {
  const before = await readFile(path).catch(() => undefined);
  if (before?.equals(contents)) return false;
  await mkdir(dirname(path), { recursive: true });
  const temporary = `${path}.${process.pid}`;
  await writeFile(temporary, contents);
  await rename(temporary, path);
  return true;
}

/** Parts of the command-line program that this build did not make any more. */
async function removeStaleParts(paths) {
  const folder = join(dist, 'cli');
  if (!existsSync(folder)) return;
  const kept = new Set(paths);
  const stale = readdirSync(folder)
    .map((name) => join(folder, name))
    .filter((path) => /\.js(\.map)?$/.test(path) && !kept.has(path));
  await Promise.all(stale.map((path) => rm(path, { force: true })));
}

/** Builds everything; returns the paths of the files that changed. Throws BuildError with what to tell. */
export async function buildAll() {
  checkInstalled();
  const built = buildNative();
  const results = await Promise.allSettled(programs().map(bundle));
  const failures = results.filter((result) => result.status === 'rejected').map((result) => result.reason);
  if (failures.length > 0) throw new BuildError(failures.map(describeFailure).join('\n'));
  const outputs = results.map((result) => result.value);
  await removeStaleParts(outputs.flatMap((output) => output.paths));
  return [...built, ...outputs.flatMap((output) => output.changed)];
}

function checkInstalled() {
  const { dependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const missing = [...Object.keys(dependencies), 'esbuild'].filter(
    (name) => !existsSync(join(root, 'node_modules', name)),
  );
  if (missing.length === 0) return;
  throw new BuildError(`Not installed: ${missing.join(', ')}. Run "make prerequisites" first.`);
}

function describeFailure(error) {
  const lines = (error.errors ?? []).map(({ text, location }) =>
    location
      ? `${location.file}:${location.line}:${location.column + 1}: ${text}\n    ${location.lineText}`
      : text,
  );
  return lines.length > 0 ? lines.join('\n') : String(error.stack ?? error);
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  try {
    const changed = await buildAll();
    const shown = changed.map((path) => relative(root, path)).filter((path) => !path.endsWith('.map'));
    for (const path of shown) console.log(`built ${path}`);
  } catch (error) {
    if (!(error instanceof BuildError)) throw error;
    console.error(error.message);
    process.exitCode = 1;
  }
}
