/**
 * Builds the project: the parts written in C, then one bundle for each program.
 *   daemon/roostd.ts       dist/roostd.cjs      with dist/roostd-HASH.code, the code that V8 makes of it
 *   cli/main.ts            dist/roost.cjs       the same
 *   test/fault/*.entry.ts  dist/test/*.js       programs of the tests, where there are any
 *
 * A file whose content did not change is left alone, and every other is replaced by rename: a program that runs
 * keeps the file it has, and two builds at once can't leave half a file.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, realpathSync } from 'node:fs';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BuildError, buildNative } from './build-native.mjs';

const root = dirname(import.meta.dirname);
const dist = join(root, 'dist');

/** What CommonJS dependencies inside an ES module need: a `require` that works. */
const moduleBanner =
  "import { createRequire as createRequireOfBundle } from 'node:module';\n" +
  'const require = createRequireOfBundle(import.meta.url);';

/** A function for bin/run-bundle.cjs to call: Node can keep the code of scripts, and that of modules it cannot. */
const scriptBanner =
  '(function (require, module, __filename, __dirname) { "use strict"; const exports = module.exports;\n' +
  "const urlOfBundle = require('node:url').pathToFileURL(__filename).href;";

/** zod brings its messages in fifty languages; ours are English, and what is not there is not read at each start. */
const englishOnly = {
  name: 'english-only',
  setup(build) {
    build.onResolve({ filter: /\/locales\/index\.js$/ }, ({ resolveDir }) => ({
      path: join(resolveDir, '../locales/en.js'),
    }));
  },
};

/** commander can start programs for subcommands; we have no such, and what it would need is slow to load. */
const withoutPrograms = {
  name: 'commander-without-programs',
  setup(build) {
    build.onResolve({ filter: /^(node:)?child_process$/ }, ({ importer }) =>
      importer.includes('/node_modules/commander/') ? { path: 'none', namespace: 'empty' } : undefined,
    );
    build.onLoad({ filter: /.*/, namespace: 'empty' }, () => ({ contents: 'module.exports = {};' }));
  },
};

/**
 * What the command line needs of the contract is data, which schemas take long to make: made here, once, it is in the
 * bundle as a text. Nothing of zod is in it then.
 */
const contractAsData = {
  name: 'contract-as-data',
  setup(build) {
    build.onLoad({ filter: /\/cli\/contract-facts\.ts$/ }, async ({ path }) => {
      const entries = Object.entries(await runModule(path));
      // A text that JSON.parse reads is quicker to load than the same as an expression.
      const lines = entries.map(
        ([name, value]) => `export const ${name} = JSON.parse(${JSON.stringify(asciiJson(value))});`,
      );
      return { contents: lines.join('\n') };
    });
  },
};

/** JSON in half the memory: one character beyond ASCII makes V8 keep two bytes for each. */
const asciiJson = (value) =>
  JSON.stringify(value).replace(
    /[^\0-\x7f]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );

/** The exports of a module of ours, which is written in TypeScript. */
async function runModule(path) {
  const { build } = await import('esbuild');
  const { outputFiles } = await build({
    ...common,
    entryPoints: [path],
    format: 'esm',
    plugins: [englishOnly],
    sourcemap: false,
  });
  return import(`data:text/javascript;base64,${Buffer.from(outputFiles[0].contents).toString('base64')}`);
}

const common = {
  absWorkingDir: root,
  bundle: true,
  write: false,
  platform: 'node',
  target: 'node20.19',
  // Compiled for one Node; it stays in node_modules.
  external: ['better-sqlite3'],
  sourcemap: 'linked',
  // Sources are in the repository beside it.
  sourcesContent: false,
  legalComments: 'none',
  logLevel: 'silent',
  outdir: dist,
  plugins: [englishOnly, withoutPrograms, contractAsData],
};

const asModule = { format: 'esm', banner: { js: moduleBanner } };
const asScript = {
  format: 'cjs',
  banner: { js: scriptBanner },
  footer: { js: '})' },
  define: { 'import.meta.dirname': '__dirname', 'import.meta.url': 'urlOfBundle' },
  outExtension: { '.js': '.cjs' },
};

/** Programs that people start, and what of each is run for its code to be made: the most usual, without any effect. */
const started = [
  { name: 'roostd', source: 'daemon/roostd.ts', commandLines: [['--version']] },
  {
    name: 'roost',
    source: 'cli/main.ts',
    commandLines: [
      ['ls'],
      ['start', 'guest'],
      ['exec', 'guest', 'true'],
      ['create', 'guest', '--image', 'image'],
      ['run', '--rm', 'image'],
    ].map((words) => ['--socket', '/nonexistent', ...words]),
  },
];

function programs() {
  const scripts = started.map(({ name, source }) => ({ entryPoints: { [name]: source }, ...asScript }));
  const modules = faultEntries().map((entry) => ({
    entryPoints: { [`test/${basename(entry, '.entry.ts')}`]: entry },
    ...asModule,
  }));
  return [...scripts, ...modules];
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
  for (const { path, contents } of outputFiles) {
    const isScript = path.endsWith('.cjs');
    if (await replaceFile(path, isScript ? withHash(contents) : contents)) changed.push(path);
  }
  return changed;
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

/** Makes the code of a bundle that has none. A program without it runs all the same, after some time. */
async function makeCode({ name, commandLines }) {
  const hash = hashOf(await readFile(join(dist, `${name}.cjs`), 'latin1'));
  const wanted = `${name}-${hash}.code`;
  const kept = readdirSync(dist).filter((file) => file.startsWith(`${name}-`) && file.endsWith('.code'));
  if (!kept.includes(wanted)) {
    const argv = [
      join(root, 'tools/write-code.cjs'),
      join(dist, `${name}.cjs`),
      JSON.stringify(commandLines),
    ];
    await once(spawn(process.execPath, argv, { stdio: 'ignore' }), 'close');
  }
  const others = kept.filter((file) => file !== wanted);
  await Promise.all(others.map((file) => rm(join(dist, file), { force: true })));
}

/** The comment that a bundle begins with: by it its code is found. */
function withHash(contents) {
  const hash = createHash('sha256').update(contents).digest('hex').slice(0, 16);
  return Buffer.concat([Buffer.from(`/*${hash}*/`), contents]);
}

const hashOf = (source) => source.slice(2, 18);

/** Builds everything; returns the paths of the files that changed. Throws BuildError with what to tell. */
export async function buildAll() {
  checkInstalled();
  const built = buildNative();
  const results = await Promise.allSettled(programs().map(bundle));
  const failures = results.filter((result) => result.status === 'rejected').map((result) => result.reason);
  if (failures.length > 0) throw new BuildError(failures.map(describeFailure).join('\n'));
  const changed = results.flatMap((result) => result.value);
  await Promise.all(started.map(makeCode));
  return [...built, ...changed];
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
