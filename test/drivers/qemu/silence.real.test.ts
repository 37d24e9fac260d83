/** QEMUs that do not answer, each for a reason of its own: what is said of them, and how it ends by itself. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { stat, truncate, writeFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, onTestFinished } from 'vitest';
import type { GuestHandle, Launch } from '../../../drivers/driver.ts';
import { monitorPath } from '../../../drivers/qemu/guest-files.ts';
import { classifySilence } from '../../../drivers/qemu/qmp/silence.ts';
import { bootSectorDisk } from '../../guests/boot-sector.ts';
import { never, Witness } from '../../conformance/driver.ts';
import { describeWith } from '../../harness/needs.ts';
import { testDirectory } from '../../harness/test-directory.ts';
import { makeQemuHarness, processEnd, type QemuHarness } from './qemu-harness.ts';

const signal = never();

let harness: QemuHarness;
let witness: Witness;
let living: GuestHandle | undefined;

const quick = () => harness.driver({ silenceAfterMs: 100 });
const start = async (launch: Launch, driver = quick()): Promise<GuestHandle> => {
  living = await driver.launch(launch, { signal, descriptors: new Map(), observe: witness.observe });
  return living;
};
const context = () => ({ signal, cursor: 0, observe: witness.observe });

beforeEach(async () => {
  // A disk of FUSE is root's alone.
  harness = await makeQemuHarness({ ownUid: false });
  witness = new Witness();
});
afterEach(async () => {
  if (living) {
    await living.kill(signal).catch(() => undefined);
    await living.release();
    await processEnd(living.process);
  }
  living = undefined;
  await harness[Symbol.asyncDispose]();
});

/** A client that has a monitor to itself: QEMU has greeted it. */
const monopolize = async ({ place }: Launch): Promise<Socket> => {
  const socket = connect(monitorPath(place.runDirectory));
  onTestFinished(() => void socket.destroy());
  await once(socket, 'data');
  return socket;
};

describeWith(['qemu'], 'a monitor that serves another client', () => {
  it('is told as held, and can be attached to as soon as that client goes', async () => {
    const launch = await harness.makeLaunch('idle');
    await (await start(launch)).release();
    const other = await monopolize(launch);
    await expect(quick().attach(launch.place, context())).rejects.toMatchObject({
      class: 'Unavailable',
      data: { reason: 'held' },
    });
    const answered = quick().awaitAnswer(launch.place, context());
    await witness.until('silent held', 2);
    other.destroy();
    await answered;
    living = await harness.driver().attach(launch.place, context());
    expect(await living.queryState(signal)).toEqual({ state: 'starting' });
  });
});

describeWith(['qemu'], 'waiting for a monitor that is silent', () => {
  it('ends at its first word, and tells why it is silent until then', async () => {
    const launch = await harness.makeLaunch('idle');
    const { process: identity } = await start(launch);
    await living?.release();
    process.kill(identity.pid, 'SIGSTOP');
    const answered = quick().awaitAnswer(launch.place, context());
    await witness.until('silent stopped');
    process.kill(identity.pid, 'SIGCONT');
    await answered;
    living = await harness.driver().attach(launch.place, context());
  });

  it('ends when the process does, and at once where there is none', async () => {
    const launch = await harness.makeLaunch('idle');
    const { process: identity } = await start(launch);
    await living?.release();
    process.kill(identity.pid, 'SIGSTOP');
    const answered = quick().awaitAnswer(launch.place, context());
    await witness.until('silent stopped');
    process.kill(identity.pid, 'SIGKILL');
    await expect(answered).rejects.toMatchObject({ class: 'NotFound' });
    await expect(quick().awaitAnswer(launch.place, context())).rejects.toMatchObject({ class: 'NotFound' });
  });

  it('ends with its signal', async () => {
    const launch = await harness.makeLaunch('idle');
    const { process: identity } = await start(launch);
    await living?.release();
    process.kill(identity.pid, 'SIGSTOP');
    const given = new AbortController();
    const answered = quick().awaitAnswer(launch.place, { ...context(), signal: given.signal });
    await witness.until('silent stopped');
    given.abort(new Error('enough'));
    await expect(answered).rejects.toThrow('enough');
    process.kill(identity.pid, 'SIGCONT');
    living = await harness.driver().attach(launch.place, context());
  });
});

/** A disk served by a process of its own, by way of FUSE: who reads it while that one stands still waits in state D. */
const slowDisk = async (): Promise<{ readonly path: string; readonly server: ChildProcess }> => {
  const directory = await testDirectory('fuse');
  const path = join(directory, 'disk.raw');
  await writeFile(path, '');
  const backing = join(directory, 'backing.raw');
  await writeFile(backing, bootSectorDisk('idle'));
  await truncate(backing, 1024 ** 2);
  const server = spawn('qemu-storage-daemon', [
    ...['--blockdev', `driver=file,node-name=disk,filename=${backing},read-only=on`],
    ...['--export', `type=fuse,id=export,node-name=disk,mountpoint=${path},writable=off`],
    ...['--chardev', 'stdio,id=out', '--monitor', 'chardev=out'],
  ]);
  onTestFinished(async () => {
    server.kill('SIGCONT');
    server.kill('SIGTERM');
    await once(server, 'exit');
  });
  // It greets once everything is set up.
  await once(server.stdout, 'data');
  expect((await stat(path)).size).toBe(1024 ** 2);
  return { path, server };
};

describeWith(['root', 'qemu', 'qemu-storage-daemon', 'fuse'], 'a QEMU that waits for its disk', () => {
  it('is told to wait for storage, and goes on when the disk does', async () => {
    const { path, server } = await slowDisk();
    const launch = await harness.makeLaunch('idle');
    const disks = launch.disks.map((disk) => ({ ...disk, path, readOnly: true }));
    const handle = await start({ ...launch, disks });
    server.kill('SIGSTOP');
    await handle.resume(signal);
    // Nothing tells when the firmware comes to read.
    await expect
      .poll(() => classifySilence(handle.process.pid), { interval: 20, timeout: 60_000 })
      .toBe('storage');
    // A guest that pauses lets its disks come to rest first.
    const paused = handle.pause(signal);
    await witness.until('silent storage');
    server.kill('SIGCONT');
    await paused;
    await witness.until('paused user');
    expect(witness.story).toContain('heard');
    expect(await handle.queryState(signal)).toEqual({ state: 'paused', reason: 'user' });
  });
});
