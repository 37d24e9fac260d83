import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { Worker } from 'node:worker_threads';
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { addonPath, openPidfd, signalPidfd, watchReadable } from '../../native/index.ts';

const root = join(import.meta.dirname, '../..');

let child: ChildProcess;
let exited: Promise<unknown>;
let pidfd = -1;

beforeEach(async () => {
  child = spawn('cat', { stdio: ['pipe', 'ignore', 'ignore'] });
  exited = once(child, 'exit');
  await once(child, 'spawn');
  pidfd = openPidfd(pidOf(child));
});

afterEach(async () => {
  closeSync(pidfd);
  child.kill('SIGKILL');
  await exited;
});

function pidOf(process: ChildProcess): number {
  if (process.pid === undefined) throw new Error('the child did not start');
  return process.pid;
}

async function readable(fd: number): Promise<'fired'> {
  return new Promise((resolve) => void watchReadable(fd, () => resolve('fired')));
}

/** Runs a script in a Node of its own, with the child's pid as its argument. */
async function runScript(script: string): Promise<{ code: unknown; output: string }> {
  const imports = "import { openPidfd, watchReadable, signalPidfd } from './native/index.ts';\n";
  const node = spawn(
    process.execPath,
    ['--import', 'tsx', '--input-type=module', '-e', imports + script, '--', String(child.pid)],
    { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] },
  );
  onTestFinished(() => void node.kill('SIGKILL'));
  const [[code], output] = await Promise.all([once(node, 'exit'), text(node.stdout)]);
  return { code, output };
}

describe('signalPidfd', () => {
  it('signals the process, and says when it has ended', async () => {
    signalPidfd(pidfd, 0);
    signalPidfd(pidfd, constants.signals.SIGTERM);
    await exited;
    expect(child.signalCode).toBe('SIGTERM');
    expect(() => signalPidfd(pidfd, 0)).toThrow(
      expect.objectContaining({ code: 'ESRCH', syscall: 'pidfd_send_signal' }),
    );
  });
});

describe('openPidfd', () => {
  it('says that there is no such process', async () => {
    child.kill('SIGKILL');
    await exited;
    expect(() => openPidfd(pidOf(child))).toThrow(
      expect.objectContaining({ code: 'ESRCH', message: expect.stringContaining(`pid ${child.pid}`) }),
    );
  });
});

describe('watchReadable', () => {
  it('calls back when the process ends', async () => {
    const fired = readable(pidfd);
    signalPidfd(pidfd, constants.signals.SIGKILL);
    expect(await fired).toBe('fired');
  });

  it('calls back for a process that has ended before', async () => {
    signalPidfd(pidfd, constants.signals.SIGKILL);
    await exited;
    expect(await readable(pidfd)).toBe('fired');
  });

  it('lets several watch one descriptor, and the descriptor be closed meanwhile', async () => {
    const copy = openPidfd(pidOf(child));
    const fired = Promise.all([copy, copy, pidfd].map(readable));
    closeSync(copy);
    signalPidfd(pidfd, constants.signals.SIGKILL);
    expect(await fired).toEqual(['fired', 'fired', 'fired']);
  });

  it('does not call back after close, which may be called twice', async () => {
    let calls = 0;
    const watch = watchReadable(pidfd, () => {
      calls++;
    });
    const fired = readable(pidfd);
    watch.close();
    watch.close();
    signalPidfd(pidfd, constants.signals.SIGKILL);
    await fired;
    expect(calls).toBe(0);
  });

  it('may be closed by its own callback and after it', async () => {
    const watch = await new Promise<{ close(): void }>((resolve) => {
      const own = watchReadable(pidfd, () => {
        own.close();
        resolve(own);
      });
      signalPidfd(pidfd, constants.signals.SIGKILL);
    });
    expect(() => watch.close()).not.toThrow();
  });

  it('refuses what cannot be watched', () => {
    const file = openSync('/etc/hostname', 'r');
    expect(() => watchReadable(file, () => {})).toThrow(expect.objectContaining({ code: 'EPERM' }));
    closeSync(file);
    expect(() => watchReadable(file, () => {})).toThrow(expect.objectContaining({ code: 'EBADF' }));
  });

  it('does not keep the process alive, and does no harm when it is open at the end', async () => {
    const script = "watchReadable(openPidfd(+process.argv.at(-1)), () => {}); process.stdout.write('done');";
    expect(await runScript(script)).toEqual({ code: 0, output: 'done' });
    expect(await runScript(`${script} process.exit(7);`)).toEqual({ code: 7, output: 'done' });
  });

  it('survives the garbage collector', async () => {
    const script = `
      import { setFlagsFromString } from 'node:v8';
      import { runInNewContext } from 'node:vm';
      setFlagsFromString('--expose-gc');
      const collect = runInNewContext('gc');
      const pidfd = openPidfd(+process.argv.at(-1));
      const stay = setInterval(() => {}, 1 << 30);
      for (let i = 0; i < 100; i++) watchReadable(pidfd, () => {}).close();
      watchReadable(pidfd, () => { process.stdout.write('ended'); clearInterval(stay); });
      for (let i = 0; i < 3; i++) { await new Promise(setImmediate); collect(); }
      signalPidfd(pidfd, 9);
    `;
    expect(await runScript(script)).toEqual({ code: 0, output: 'ended' });
  });

  it('hands an exception of the callback to the process', async () => {
    const script = `
      process.on('uncaughtException', (error) => { process.stdout.write(error.message); process.exit(3); });
      const pidfd = openPidfd(+process.argv.at(-1));
      setInterval(() => {}, 1 << 30);
      watchReadable(pidfd, () => { throw new Error('from the callback'); });
      signalPidfd(pidfd, 9);
    `;
    expect(await runScript(script)).toEqual({ code: 3, output: 'from the callback' });
  });

  it('ends with the worker that it belongs to', async () => {
    const script = `
      const { parentPort, workerData } = require('node:worker_threads');
      const native = require(workerData.addon);
      native.watchReadable(native.openPidfd(workerData.pid), () => {});
      setInterval(() => {}, 1 << 30);
      parentPort.postMessage('watching');
    `;
    const worker = new Worker(script, { eval: true, workerData: { addon: addonPath(), pid: child.pid } });
    expect(await once(worker, 'message')).toEqual(['watching']);
    expect(await worker.terminate()).toBe(1);
  });
});
