/**
 * `make torture`: the long form of every torture, one after the other, with its progress and a table of figures.
 *   ONLY=random-kills,frames   these alone
 *   SEED=N                     the choices of an earlier run; it prints its seed
 *   COUNT=N                    as many rounds, frames or lives instead of the usual ones
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, watch } from 'node:fs';
import { appendFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BLOCK_MS, isOwnWork } from '../../lib/loop-watch.ts';
import { gatheredStandstills } from '../harness/standstills.ts';

interface Torture {
  readonly name: string;
  readonly what: string;
  /** Thousands of durable commits: they are not what is tried here, so they need no disk. */
  readonly inMemory?: boolean;
}

const tortures: readonly Torture[] = [
  { name: 'misbehaving-qemu', what: 'a QEMU that misbehaves under a whole daemon' },
  { name: 'every-step', what: 'every operation fails and crashes at every step' },
  { name: 'random-kills', what: 'daemon and QEMUs killed and stopped at random' },
  { name: 'boots', what: 'a thousand boots, one after another' },
  { name: 'forks', what: 'a hundred forks at once' },
  { name: 'containers', what: 'containers that live and die under daemons that are killed' },
  { name: 'stopped-guests', what: 'a list of guests of which some are stopped' },
  { name: 'frames', what: 'generated frames against socket and WebSocket', inMemory: true },
  { name: 'database-faults', what: 'a database whose writes fail, one after the other' },
  { name: 'lifecycles', what: 'thousands of lives on fakes', inMemory: true },
];

const root = join(import.meta.dirname, '../..');
const vitest = join(root, 'node_modules/.bin/vitest');

/** Passes on what is added to a file, as it is added. */
const follow = (path: string): (() => Promise<void>) => {
  let shown = 0;
  const show = async (): Promise<void> => {
    const text = await readFile(path, 'utf8');
    process.stdout.write(text.slice(shown));
    shown = text.length;
  };
  const watcher = watch(path, () => void show());
  return async () => {
    watcher.close();
    await show();
  };
};

/**
 * What event loops of daemons stood still for, 20 ms or more without a wait for a processor: the longest by name. Whether
 * none of it was computing for as long: that is a defect of ours on any machine. A wait in the kernel is told; for how
 * long a disk keeps a write is the disk's, and other tortures may have it busy.
 */
const tellStandstills = async (name: string, path: string, figuresPath: string): Promise<boolean> => {
  const all = gatheredStandstills(path);
  const lines = all.map(
    ({ work, ms, cpuMs, count }) =>
      `${work}: ${count} times, at most ${ms} ms, of which computing at most ${cpuMs} ms`,
  );
  for (const line of lines) process.stdout.write(`  event loop stood still: ${line}\n`);
  const value = lines[0] ?? 'never';
  await appendFile(
    figuresPath,
    `${JSON.stringify({ what: `${name}: longest standstill of an event loop`, value })}\n`,
  );
  return !all.some((block) => isOwnWork(block) && block.cpuMs >= BLOCK_MS);
};

const run = async ({ name, what, inMemory }: Torture, figuresPath: string): Promise<boolean> => {
  process.stdout.write(`${name}: ${what}\n`);
  const directory = await mkdtemp(join(tmpdir(), 'roost-torture-'));
  const progressPath = join(directory, 'progress');
  const standstillsPath = join(directory, 'standstills');
  await writeFile(progressPath, '');
  await writeFile(standstillsPath, '');
  const stop = follow(progressPath);
  const begun = performance.now();
  const child = spawn(
    vitest,
    ['run', '--project', 'real', '--reporter', 'dot', `test/torture/${name}.test.ts`],
    {
      cwd: root,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        ...process.env,
        ROOST_TORTURE: 'long',
        ROOST_TORTURE_PROGRESS: progressPath,
        ROOST_TORTURE_FIGURES: figuresPath,
        ROOST_TORTURE_STANDSTILLS: standstillsPath,
        ...(inMemory === true && existsSync('/dev/shm') ? { TMPDIR: '/dev/shm' } : {}),
      },
    },
  );
  let said = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => {
      said += chunk.toString('utf8');
    });
  const [code] = (await once(child, 'close')) as [number | null];
  await stop();
  const flowed = await tellStandstills(name, standstillsPath, figuresPath);
  await rm(directory, { recursive: true });
  const seconds = Math.round((performance.now() - begun) / 1000);
  const isWell = code === 0 && flowed;
  if (code !== 0) process.stdout.write(`${said}\n`);
  process.stdout.write(`  ${isWell ? 'well,' : 'FAILED after'} ${seconds} s\n`);
  return isWell;
};

const printTable = async (path: string): Promise<void> => {
  const lines = (await readFile(path, 'utf8')).split('\n').filter((line) => line !== '');
  const figures = lines.map((line) => JSON.parse(line) as { what: string; value: string | number });
  const width = Math.max(0, ...figures.map(({ what }) => what.length));
  process.stdout.write('\n');
  for (const { what, value } of figures) process.stdout.write(`${what.padEnd(width)}  ${value}\n`);
};

const main = async (): Promise<number> => {
  const only = process.env['ONLY']?.split(',');
  const unknown = only?.find((name) => !tortures.some((torture) => torture.name === name));
  if (unknown !== undefined) {
    process.stderr.write(
      `No torture is called ${unknown}; there are ${tortures.map(({ name }) => name).join(', ')}\n`,
    );
    return 2;
  }
  const directory = await mkdtemp(join(tmpdir(), 'roost-torture-'));
  const figuresPath = join(directory, 'figures');
  await writeFile(figuresPath, '');
  const failed: string[] = [];
  for (const torture of tortures.filter(({ name }) => only?.includes(name) ?? true))
    if (!(await run(torture, figuresPath))) failed.push(torture.name);
  await printTable(figuresPath);
  await rm(directory, { recursive: true });
  process.stdout.write(failed.length === 0 ? '\nAll went well.\n' : `\nFailed: ${failed.join(', ')}\n`);
  return failed.length === 0 ? 0 : 1;
};

process.exitCode = await main();
