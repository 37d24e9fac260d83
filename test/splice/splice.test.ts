/** roost-splice: what reaches the program, and how both end. */
import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { exec } from '../../lib/exec.ts';
import { ExecError } from '../../lib/exec-result.ts';
import { splicePath } from '../../native/index.ts';
import { testDirectory } from '../harness/test-directory.ts';

const ZEROS = 2n ** 64n - 1n;
const MEBIBYTE = 1024 ** 2;

const planOf = (...records: (readonly [bigint, number, number])[]): Buffer =>
  Buffer.concat(
    records.map(([source, offset, length]) => {
      const bytes = Buffer.alloc(24);
      bytes.writeBigUInt64LE(source, 0);
      bytes.writeBigUInt64LE(BigInt(offset), 8);
      bytes.writeBigUInt64LE(BigInt(length), 16);
      return bytes;
    }),
  );

const splice = async (
  plan: Buffer,
  sources: readonly (string | Buffer)[],
  program: readonly string[],
): Promise<{
  readonly exitCode?: number | undefined;
  readonly signal?: string | undefined;
  readonly said: string;
}> => {
  const directory = await testDirectory('splice');
  await writeFile(join(directory, 'plan'), plan);
  for (const [index, content] of sources.entries()) await writeFile(join(directory, `${index}`), content);
  const names = sources.map((_, index) => `${index}`);
  try {
    const { stdout } = await exec([splicePath(), 'plan', ...names, '--', ...program], {
      signal: AbortSignal.timeout(60_000),
      cwd: directory,
    });
    return { exitCode: 0, said: stdout };
  } catch (error) {
    if (!(error instanceof ExecError)) throw error;
    return { exitCode: error.exitCode, signal: error.terminatedBy, said: error.stderr };
  }
};

test('gives parts of files and zeros, in order', async () => {
  const plan = planOf([1n, 2, 3], [0n, 0, 2], [ZEROS, 0, 2], [1n, 0, 1], [0n, 5, 0]);
  expect(await splice(plan, ['abcde', 'vwxyz'], ['/bin/cat'])).toEqual({ exitCode: 0, said: 'xyzab\0\0v' });
});

test('gives more than a pipe or a turn holds', async () => {
  const content = Buffer.alloc(5 * MEBIBYTE + 7, 'x');
  const plan = planOf([0n, 3, content.length - 3], [ZEROS, 0, 3 * MEBIBYTE]);
  const { said } = await splice(plan, [content], ['/usr/bin/wc', '-c']);
  expect(Number(said)).toBe(content.length - 3 + 3 * MEBIBYTE);
});

test('takes as many records as there are', async () => {
  const plan = planOf(...Array.from({ length: 5000 }, (_, index) => [0n, index % 5, 1] as const));
  const { said } = await splice(plan, ['abcde'], ['/bin/cat']);
  expect(said).toBe('abcde'.repeat(1000));
});

test('ends as the program does', async () => {
  expect(await splice(planOf(), [], ['/bin/false'])).toMatchObject({ exitCode: 1 });
  expect(await splice(planOf(), [], ['/nonexistent'])).toMatchObject({ exitCode: 127 });
  const killsItself = ['/usr/bin/python3', '-c', 'import os,signal; os.kill(os.getpid(), signal.SIGTERM)'];
  expect(await splice(planOf(), [], killsItself)).toMatchObject({ signal: 'SIGTERM' });
});

test('a program that wants no more has failed', async () => {
  const plan = planOf([ZEROS, 0, 100 * MEBIBYTE]);
  expect(await splice(plan, [], ['/usr/bin/head', '-c', '1'])).toMatchObject({ exitCode: 124 });
});

test.each([
  ['a source that is too short', planOf([0n, 3, 3])],
  ['an offset beyond it', planOf([0n, 6, 0])],
  ['a sum that overflows', planOf([0n, 1, Number.MAX_SAFE_INTEGER])],
  ['a source that is not there', planOf([7n, 0, 1])],
  ['half a record', planOf([0n, 0, 1]).subarray(0, 20)],
])('%s kills the program', async (_title, plan) => {
  // Would print on a clean end of its input.
  const ended = await splice(plan, ['abcde'], ['/bin/sh', '-c', 'cat; echo whole']);
  expect(ended).toMatchObject({ exitCode: 124 });
  expect(ended.said).not.toContain('whole');
});

test('follows no link and reads no device', async () => {
  const directory = await testDirectory('splice');
  await mkdir(join(directory, 'd'));
  await symlink('/etc/passwd', join(directory, 'link'));
  await writeFile(join(directory, 'plan'), planOf());
  for (const source of ['link', '/dev/zero', 'd', 'missing'])
    await expect(
      exec([splicePath(), 'plan', source, '--', '/bin/cat'], {
        signal: AbortSignal.timeout(60_000),
        cwd: directory,
      }),
    ).rejects.toMatchObject({ exitCode: 124 });
});
