/** What every run of `roost` loads before anything else: it costs more than most of what is asked for. */
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { promisify } from 'node:util';
import { build, stop } from 'esbuild';
import { afterAll, expect, it } from 'vitest';
import { runCli } from './run-cli.ts';

const root = join(import.meta.dirname, '../..');

// It is a process of its own.
afterAll(() => stop());

it('roost begins without the schemas of the contract', async () => {
  const { metafile } = await build({
    absWorkingDir: root,
    entryPoints: ['cli/main.ts'],
    bundle: true,
    format: 'esm',
    platform: 'node',
    metafile: true,
    write: false,
    outdir: 'dist',
  });
  const begun = new Set<string>();
  const begin = (path: string): void => {
    if (begun.has(path)) return;
    begun.add(path);
    for (const { kind, path: imported, external } of metafile.inputs[path]?.imports ?? [])
      if (kind === 'import-statement' && external !== true) begin(imported);
  };
  begin('cli/main.ts');
  const names = [...begun].map((path) => relative(root, join(root, path)));
  expect(names).toContain('cli/run.ts');
  expect(names.filter((name) => name.includes('node_modules/zod'))).toEqual([]);
});

it('the built program has what it needs of the contract as data, and no schemas at all', async () => {
  const map = JSON.parse(await readFile(join(root, 'dist/roost.cjs.map'), 'utf8')) as { sources: string[] };
  const names = map.sources.map((source) => relative(root, join(root, 'dist', source)));
  expect(names).toContain('cli/run.ts');
  expect(names.filter((name) => /node_modules\/zod|^protocol\/commands/.test(name))).toEqual([]);
});

it.each(['create', 'events', 'image pull', 'api'])(
  'the built program helps with %s as its sources do',
  async (words) => {
    const argv = [...words.split(' '), '--help'];
    const built = await promisify(execFile)(join(root, 'bin/roost'), argv);
    expect(built.stdout).toBe((await runCli(argv)).stdout);
  },
);
