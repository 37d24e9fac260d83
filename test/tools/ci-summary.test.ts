import { spawnSync } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { testDirectory } from '../harness/test-directory.ts';

const script = join(import.meta.dirname, '../../tools/ci-summary.mjs');

/** A report in the form of vitest's JSON reporter, as far as it is read. */
const report = (
  files: readonly { readonly file: string; readonly message?: string; readonly tests: readonly string[] }[],
) => {
  const statuses = files.flatMap(({ tests }) => tests);
  const count = (status: string): number => statuses.filter((other) => other === status).length;
  return {
    numPassedTests: count('passed'),
    numFailedTests: count('failed'),
    numPendingTests: count('skipped'),
    testResults: files.map(({ file, message, tests }) => ({
      name: file,
      message: message ?? '',
      status: message !== undefined || tests.includes('failed') ? 'failed' : 'passed',
      assertionResults: tests.map((status, index) => ({ fullName: `test ${index}`, status })),
    })),
  };
};

async function summary(reports: readonly object[], status: number): Promise<readonly string[]> {
  const folder = await testDirectory();
  await Promise.all(
    reports.map((entry, index) => writeFile(join(folder, `${index}.json`), JSON.stringify(entry))),
  );
  const run = spawnSync(process.execPath, [script, folder, `${status}`], { encoding: 'utf8' });
  expect(run).toMatchObject({ status: 0, stderr: '' });
  return run.stdout.trimEnd().split('\n');
}

describe('ci-summary', () => {
  it('adds up what several runners counted', async () => {
    const one = report([{ file: 'a', tests: ['passed', 'passed'] }]);
    const other = report([{ file: 'b', tests: ['passed'] }]);
    expect(await summary([one, other], 0)).toEqual(['3 passed, 0 failed']);
  });

  it('names what failed and what was skipped', async () => {
    const lines = await summary([report([{ file: 'a', tests: ['failed', 'skipped', 'passed'] }])], 1);
    expect(lines).toEqual([
      'Failed:',
      '  a › test 0',
      'Skipped:',
      '  a › test 1',
      '1 passed, 1 failed, 1 skipped',
    ]);
  });

  it('counts a file that failed without a failed test', async () => {
    const lines = await summary([report([{ file: 'a', message: 'left behind', tests: ['passed'] }])], 1);
    expect(lines).toEqual(['Failed:', '  a: left behind', '1 passed, 1 failed']);
  });

  it.each([[[]], [[report([{ file: 'a', tests: ['passed'] }])]]])(
    'never calls a failed run good',
    async (reports) => {
      expect((await summary(reports, 2)).at(-1)).toMatch(/^\d passed, 1 failed$/);
    },
  );
});
