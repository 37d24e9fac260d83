/** A QEMU whose disk does not answer: what is said of it, and that it goes on when the disk does. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { open, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, onTestFinished } from 'vitest';
import type { GuestHandle } from '../../../drivers/driver.ts';
import { classifySilence } from '../../../drivers/processes/qmp/silence.ts';
import { never, Witness } from '../../conformance/driver.ts';
import { bootSectorDisk } from '../../guests/boot-sector.ts';
import { describeWith } from '../../harness/needs.ts';
import { testDirectory } from '../../harness/test-directory.ts';
import { makeQemuHarness, processEnd, type QemuHarness } from './qemu-harness.ts';

const signal = never();

let harness: QemuHarness;
let witness: Witness;
let living: GuestHandle | undefined;

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

/** A disk served by a process of its own, by way of FUSE: who reads it while that one stands still waits in state D. */
const slowDisk = async (): Promise<{ readonly path: string; readonly server: ChildProcess }> => {
  const directory = await testDirectory('fuse');
  const path = join(directory, 'disk.raw');
  await writeFile(path, '');
  const backing = join(directory, 'backing.raw');
  await writeFile(backing, bootSectorDisk('idle'));
  await truncate(backing, 1024 ** 2);
  const server = spawn('qemu-storage-daemon', [
    `--blockdev=driver=file,node-name=disk,filename=${backing},read-only=on`,
    `--export=type=fuse,id=export,node-name=disk,mountpoint=${path},writable=off`,
    '--chardev=stdio,id=out',
    '--monitor=chardev=out',
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
    const driver = harness.driver({ silenceAfterMs: 100 });
    const descriptors = new Map<string, number>();
    const handle = await driver.launch(
      { ...launch, disks },
      { signal, descriptors, observe: witness.observe },
    );
    living = handle;
    // Once the machine is made it has read from the disk; opening the file drops that from the kernel's page cache.
    await handle.queryState(signal);
    await (await open(path)).close();
    server.kill('SIGSTOP');
    let paused: Promise<void>;
    try {
      await handle.resume(signal);
      // Nothing tells when the firmware comes to read.
      await expect
        .poll(() => classifySilence(handle.process.pid), { interval: 20, timeout: 60_000 })
        .toBe('storage');
      // A guest that pauses lets its disks come to rest first.
      paused = handle.pause(signal);
      await witness.until('silent storage');
    } finally {
      // Or its process could not even be killed.
      server.kill('SIGCONT');
    }
    await paused;
    await witness.until('paused user');
    expect(witness.story).toContain('heard');
    expect(await handle.queryState(signal)).toEqual({ state: 'paused', reason: 'user' });
  });
});
