/** Temporary directories that are gone after the test. */
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { worker } from './worker.ts';

/** A new empty directory with mode 0755, removed by whoever asked for it. */
export async function makeDirectory(name = 'd'): Promise<string> {
  const path = await mkdtemp(join(worker().directory, `${name}-`));
  await chmod(path, 0o755);
  return path;
}

/** A new empty directory with mode 0755, removed when the running test ends. For use inside a test. */
export async function testDirectory(name?: string): Promise<string> {
  const path = await makeDirectory(name);
  onTestFinished(() => rm(path, { recursive: true, force: true }));
  return path;
}
