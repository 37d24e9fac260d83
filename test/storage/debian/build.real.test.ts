/** A build that does not come to its end: what it ran is gone, and nothing of it is left. Whole builds: test/e2e. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync } from 'node:fs';
import { mkdir, readdir, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { openPidfd, watchReadable } from '../../../native/index.ts';
import { debianBuilder } from '../../../storage/debian/build.ts';
import { describeWith } from '../../harness/needs.ts';
import { testDirectory } from '../../harness/test-directory.ts';

const root = join(import.meta.dirname, '../../..');
const timeout = 300_000;

/** Processes that work in a directory or below. */
const workersIn = async (directory: string): Promise<readonly number[]> => {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const places = await Promise.all(
    pids.map(async (pid) => ({ pid, cwd: await readlink(`/proc/${pid}/cwd`).catch(() => '') })),
  );
  return places.filter(({ cwd }) => `${cwd}/`.startsWith(`${directory}/`)).map(({ pid }) => Number(pid));
};

/** Resolves when the process is gone. */
const gone = async (pid: number): Promise<void> => {
  let pidfd: number;
  try {
    pidfd = openPidfd(pid);
  } catch {
    // It was gone already.
    return;
  }
  await new Promise<void>((resolve) => void watchReadable(pidfd, resolve));
  closeSync(pidfd);
};

const place = async (): Promise<string> => {
  const directory = join(await testDirectory('build'), 'image');
  await mkdir(directory);
  return directory;
};

describeWith(['root', 'mmdebstrap'], 'a build of a Debian image', () => {
  it('runs nothing any more once it is cancelled, and can be cleared away', { timeout }, async () => {
    const directory = await place();
    const builder = debianBuilder();
    const stop = new AbortController();
    const reason = new Error('the test cancels');
    let workers = 0;
    const progress = ({ message }: { readonly message?: string }): void => {
      if (message !== 'Fetching packages' || stop.signal.aborted) return;
      void workersIn(directory).then((pids) => {
        workers = pids.length;
        stop.abort(reason);
      });
    };
    const building = builder.build(
      { recipe: 'debian', suite: 'bookworm', directory },
      { signal: stop.signal, progress },
    );
    await expect(building).rejects.toBe(reason);
    expect(workers).toBeGreaterThan(0);
    expect(await workersIn(directory)).toEqual([]);
    await builder.clear(directory);
    expect(await readdir(directory)).toEqual([]);
  });

  it('ends with the process that began it, by whatever way that ends', { timeout }, async () => {
    const directory = await place();
    const script = `
      import { debianBuilder } from './storage/debian/build.ts';
      const progress = ({ message }) => console.log(message);
      const signal = new AbortController().signal;
      await debianBuilder().build({ recipe: 'debian', suite: 'bookworm', directory: process.argv[1] }, { signal, progress });`;
    const node = spawn(
      process.execPath,
      ['--import', 'tsx', '--input-type=module', '-e', script, '--', directory],
      { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] },
    );
    onTestFinished(() => void node.kill('SIGKILL'));
    let said = '';
    for await (const chunk of node.stdout) {
      said += String(chunk);
      if (said.includes('Fetching packages')) break;
    }
    const workers = await workersIn(directory);
    expect(workers.length).toBeGreaterThan(0);
    const ended = Promise.all(workers.map(gone));
    node.kill('SIGKILL');
    if (node.exitCode === null && node.signalCode === null) await once(node, 'exit');
    await ended;
    expect(await workersIn(directory)).toEqual([]);

    const builder = debianBuilder();
    await builder.clear(directory);
    expect(await readdir(directory)).toEqual([]);
  });
});
