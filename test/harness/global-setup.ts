/**
 * Runs once around the tests of each project: builds what they start, and in CI, where nobody else is on the machine,
 * compares the host before and after.
 */
import { existsSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import { buildAll } from '../../tools/build.mjs';
import { describeHost, newSince } from './host-objects.ts';
import { DIRECTORY_PREFIX } from './worker.ts';

/** While somebody writes a program of ours, the unit tests of everything else still run; real tests start programs. */
async function build(project: TestProject): Promise<void> {
  try {
    await buildAll();
  } catch (error) {
    if (project.name === 'real' || process.env.CI) throw error;
    console.warn(`The build failed; dist/ is not that of these sources.\n${String(error)}`);
  }
}

/** Directories of test files that never came to their end: interrupted, or without a test that was to run. */
async function removeAbandoned(): Promise<void> {
  const names = (await readdir(tmpdir())).filter((name) => name.startsWith(DIRECTORY_PREFIX));
  const abandoned = names.filter(
    (name) => !existsSync(`/proc/${name.slice(DIRECTORY_PREFIX.length).split('-')[0]}`),
  );
  await Promise.all(abandoned.map((name) => rm(join(tmpdir(), name), { recursive: true, force: true })));
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  await build(project);
  await removeAbandoned();
  const before = await describeHost();
  return async () => {
    await removeAbandoned();
    if (!process.env.CI) return;
    const left = newSince(before, await describeHost());
    if (left.length === 0) return;
    console.error(`The tests left on this host:\n  ${left.join('\n  ')}`);
    // vitest reports an error thrown here and succeeds all the same.
    process.exitCode = 1;
  };
}
