/** What every run of `roost` loads before anything else: it costs more than most of what is asked for. */
import { join, relative } from 'node:path';
import { build, stop } from 'esbuild';
import { afterAll, expect, it } from 'vitest';

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
