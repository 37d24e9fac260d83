/**
 * A real QEMU with no guest in it, for tests: two monitors (a socket and the black box), CPUs standing still,
 * its files in a directory of its own. It ends with the test, by its own pid.
 */
import { spawn, spawnSync } from 'node:child_process';
import { watch } from 'node:fs';
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deferred } from '../../lib/abort.ts';

const BINARY = 'qemu-system-x86_64';

/** Whether there is a QEMU to run here. */
export const hasQemu = spawnSync(BINARY, ['--version']).status === 0;

export interface RealQemu extends AsyncDisposable {
  readonly pid: number;
  readonly socketPath: string;
  readonly logPath: string;
  signal(signal: NodeJS.Signals): void;
  /** Resolves when the process has ended and is reaped. */
  readonly exited: Promise<void>;
}

/** Starts QEMU and waits until its monitor socket listens. */
export async function startQemu(): Promise<RealQemu> {
  const directory = await mkdtemp(join(tmpdir(), 'real-qemu-'));
  const socketPath = join(directory, 'qmp.sock');
  const logPath = join(directory, 'events.log');
  const inputPath = join(directory, 'events.in');
  await writeFile(inputPath, '{"execute":"qmp_capabilities"}\n');
  const files = await Promise.all([
    open(inputPath, 'r'),
    open(logPath, 'a'),
    open(join(directory, 'stderr.log'), 'a'),
  ]);
  const listening = firstBytes(logPath);
  const child = spawn(BINARY, argumentsOf(socketPath), { stdio: files.map((file) => file.fd) });
  await Promise.all(files.map((file) => file.close()));
  const exited = new Promise<void>((resolve) => child.once('close', () => resolve()));
  const early = exited.then(async () => {
    throw new Error(`QEMU ended: ${await readFile(join(directory, 'stderr.log'), 'utf8')}`);
  });
  // It ends one day, long after anybody waits for that here.
  early.catch(() => undefined);
  await Promise.race([listening, early]);
  if (child.pid === undefined) throw new Error('QEMU has no pid');
  return {
    pid: child.pid,
    socketPath,
    logPath,
    signal: (signal) => void child.kill(signal),
    exited,
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL');
      await exited;
      await rm(directory, { recursive: true });
    },
  };
}

function argumentsOf(socketPath: string): string[] {
  const machine = '-nodefaults -no-user-config -display none -S -m 64 -machine pc -accel tcg';
  const blackBox = '-chardev stdio,id=ev,signal=off -mon chardev=ev,mode=control';
  return [...`${machine} ${blackBox}`.split(' '), '-qmp', `unix:${socketPath},server=on,wait=off`];
}

/**
 * Resolves when something is written to the file. QEMU's first words in the black box come after all its
 * sockets listen; a socket's path is there a moment before that.
 */
async function firstBytes(path: string): Promise<void> {
  const written = deferred<void>();
  const watcher = watch(path, { persistent: false }, (event) => {
    if (event === 'change') written.resolve();
  });
  await written.promise;
  watcher.close();
}
