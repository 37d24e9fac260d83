/**
 * Every check of the project, two at a time: one line for each with its time, and all that a failed one said.
 *   node tools/check.mjs            all of them, the unit tests beside the others
 *   node tools/check.mjs --static   all but the tests
 * With ROOST_REPORTS=FOLDER the counts go to FOLDER/check.json, in the form of vitest's JSON report.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

const root = dirname(import.meta.dirname);
const bin = (name) => join(root, 'node_modules/.bin', name);
const script = (path, ...args) => [process.execPath, '--import', 'tsx', path, ...args];

/** Each is a command line, or a function that returns what is wrong, one line each. */
const staticChecks = [
  { name: 'types', run: [bin('tsc'), '--noEmit', '-p', '.'] },
  { name: 'lint', run: [bin('oxlint'), '--type-aware', '--deny-warnings'] },
  { name: 'format', run: [bin('biome'), 'check', '--colors=off'] },
  { name: 'imports', run: script('tools/check-deps.ts') },
  { name: 'reference', run: script('tools/gen-docs.ts', '--check') },
  { name: 'version', run: checkVersion },
  { name: 'dependencies', run: checkDependencies },
  { name: 'links', run: checkLinks },
];
const unitTests = { name: 'unit tests', run: [bin('vitest'), 'run', '--project', 'unit', '--reporter=dot'] };

const read = (path) => readFile(join(root, path), 'utf8');

/** The version that programs speak of is the one that is released. */
async function checkVersion() {
  const wanted = JSON.parse(await read('package.json')).version;
  const source = await read('protocol/version.ts');
  const match = /major: (\d+), minor: (\d+), micro: (\d+)/.exec(source);
  const found = match?.slice(1).join('.');
  return found === wanted ? [] : [`protocol/version.ts says ${found}, package.json ${wanted}`];
}

/** A dependency without a reason is one that nobody dares to remove. */
async function checkDependencies() {
  const { dependencies, devDependencies } = JSON.parse(await read('package.json'));
  const reasons = await read('docs/decisions/dependencies.md');
  const names = Object.keys({ ...dependencies, ...devDependencies });
  const given = [...reasons.matchAll(/^\| `([^`]+)` \|/gm)].map((match) => match[1]);
  return [
    ...names
      .filter((name) => !given.includes(name))
      .map((name) => `${name}: no line in docs/decisions/dependencies.md`),
    ...given
      .filter((name) => !names.includes(name))
      .map((name) => `${name}: in docs/decisions/dependencies.md, not in package.json`),
  ];
}

/** Links between our own documents lead somewhere. */
async function checkLinks() {
  const documents = [...(await markdownIn('.', false)), ...(await markdownIn('docs', true))];
  const wrong = await Promise.all(
    documents.map(async (path) => {
      const targets = [...(await read(path)).matchAll(/\]\(([^)\s#]+)(?:#[^)]*)?\)/g)].map(
        (match) => match[1],
      );
      return targets
        .filter((target) => !/^[a-z]+:/.test(target) && !existsSync(join(root, dirname(path), target)))
        .map((target) => `${path}: ${target} does not exist`);
    }),
  );
  return wrong.flat();
}

async function markdownIn(folder, recursive) {
  const names = await readdir(join(root, folder), { recursive });
  return names.filter((name) => name.endsWith('.md')).map((name) => join(folder, name));
}

function runCommand([program, ...args]) {
  return new Promise((resolve) => {
    const environment = { ...process.env, NO_COLOR: '1' };
    // The unit tests' own counts are not those of the run that this is a part of.
    delete environment.ROOST_REPORTS;
    const child = spawn(program, args, { cwd: root, env: environment, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => {
        output += text;
      });
    }
    child.on('error', (error) => resolve({ ok: false, output: error.message }));
    child.on('close', (code, signal) =>
      resolve({ ok: code === 0, output: signal ? `${output}\nended by ${signal}` : output }),
    );
  });
}

async function runFunction(check) {
  try {
    const wrong = await check();
    return { ok: wrong.length === 0, output: wrong.join('\n') };
  } catch (error) {
    return { ok: false, output: String(error) };
  }
}

async function runCheck({ name, run }) {
  const start = performance.now();
  const { ok, output } = await (Array.isArray(run) ? runCommand(run) : runFunction(run));
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  console.log(`${ok ? 'ok    ' : 'FAILED'} ${name.padEnd(14)} ${seconds.padStart(5)} s`);
  return { name, ok, output: output.trim() };
}

/** Two at a time: more of them would only wait for each other. The longest is begun first. */
async function runAll(checks) {
  const waiting = [...checks];
  const results = [];
  const worker = async () => {
    for (let check = waiting.shift(); check; check = waiting.shift()) results.push(await runCheck(check));
  };
  await Promise.all([worker(), worker()]);
  return results;
}

async function report(results) {
  const folder = process.env.ROOST_REPORTS;
  if (folder === undefined) return;
  await mkdir(folder, { recursive: true });
  const failed = results.filter((result) => !result.ok);
  const counts = {
    numPassedTests: results.length - failed.length,
    numFailedTests: failed.length,
    numPendingTests: 0,
    success: failed.length === 0,
    testResults: failed.map(({ name }) => ({
      name: `check: ${name}`,
      status: 'failed',
      assertionResults: [{ fullName: name, status: 'failed' }],
    })),
  };
  await writeFile(join(folder, 'check.json'), JSON.stringify(counts));
}

const results = await runAll(process.argv.includes('--static') ? staticChecks : [unitTests, ...staticChecks]);
await report(results);
const failed = results.filter((result) => !result.ok);
for (const { name, output } of failed) console.error(`\n── ${name} ──\n${output}`);
if (failed.length > 0) process.exitCode = 1;
