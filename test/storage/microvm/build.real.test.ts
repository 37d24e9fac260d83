/** What microVMs boot by, out of Debian's packages: each part is what it has to be, and nothing else is left. */
import { execFile } from 'node:child_process';
import { mkdir, open, readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

import { buildInitramfs } from '../../../guest/initramfs.ts';
import { extractPvhKernel } from '../../../guest/pvh-kernel.ts';
import { initPath } from '../../../native/index.ts';
import { microvmBuilder } from '../../../storage/microvm/build.ts';
import type { BuildRequest } from '../../../storage/pool.ts';
import { describeWith } from '../../harness/needs.ts';
import { testDirectory } from '../../harness/test-directory.ts';

const timeout = 300_000;
const run = promisify(execFile);

const build = async (recipe: BuildRequest['recipe']): Promise<string> => {
  const directory = join(await testDirectory('build'), 'image');
  await mkdir(directory);
  const builder = microvmBuilder({
    extractKernel: extractPvhKernel,
    buildInit: (moduleFolder) => buildInitramfs({ init: initPath(), moduleFolder }),
  });
  const work = { signal: AbortSignal.timeout(timeout), progress: () => undefined };
  const { path } = await builder.build({ recipe, suite: 'bookworm', directory }, work);
  expect(await readdir(directory)).toEqual(['result']);
  return path;
};

const begins = async (path: string, length: number): Promise<string> => {
  const file = await open(path);
  try {
    return (await file.read(Buffer.alloc(length), 0, length, 0)).buffer.toString('latin1');
  } finally {
    await file.close();
  }
};

describeWith(['root', 'mmdebstrap'], 'the parts of a microVM', () => {
  it('kernel: an ELF that needs no decompression', { timeout }, async () => {
    expect(await begins(await build('microvm-kernel'), 4)).toBe('\x7fELF');
  });

  it('init: an archive with our init and the modules of that kernel', { timeout }, async () => {
    const path = await build('microvm-init');
    expect(await begins(path, 6)).toBe('070701');
    const archive = await readFile(path);
    expect(archive.indexOf('init\0')).toBeGreaterThan(0);
    expect(archive.indexOf('virtio_blk.ko\0')).toBeGreaterThan(0);
  });

  it('upper: an empty file system that takes no room', { timeout }, async () => {
    const path = await build('microvm-upper');
    await run('e2fsck', ['-fn', path]);
    const { size, blocks } = await stat(path);
    expect(blocks * 512).toBeLessThan(size / 100);
  });
});
