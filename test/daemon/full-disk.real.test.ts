/**
 * The file system of the state directory is full, on a small one of the test's own: what cannot be written down is refused
 * as ResourceExhausted, the daemon answers, guests run on, and with room again all goes on.
 */
import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { isRoostError } from '../../protocol/errors.ts';
import { describeWith } from '../harness/needs.ts';
import { testDirectory } from '../harness/test-directory.ts';
import { run } from '../storage/scratch-directory.ts';
import { aGuest, type FakeDaemon, FakeHouse } from './fake-house.ts';

const CHUNK = 4096;

/** Takes all the room there is. */
const fill = async (path: string): Promise<void> => {
  await using file = await open(path, 'w');
  try {
    for (;;) await file.write(Buffer.alloc(CHUNK));
  } catch (error) {
    expect(error).toMatchObject({ code: 'ENOSPC' });
  }
};

const smallHouse = async (): Promise<{ house: FakeHouse; filler: string }> => {
  const directory = await testDirectory('full');
  await run('mount', '-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', directory);
  onTestFinished(async () => void (await run('umount', '-l', directory)));
  return { house: new FakeHouse(directory), filler: join(directory, 'filler') };
};

/** Makes guests until one is refused: the write-ahead log has some room of its own. */
const firstRefusal = async ({ client }: FakeDaemon): Promise<unknown> => {
  for (let n = 0; n < 500; n += 1) {
    try {
      const { operation } = await client.call('guest-create', aGuest(`more${n}`));
      const { error } = await client.call('operation-wait', { operation });
      if (error) return error;
    } catch (error) {
      return isRoostError(error) ? error.toWire() : error;
    }
  }
  return 'nothing was refused';
};

describeWith(['root'], 'a disk that is full', () => {
  test('while the daemon runs: changes are refused, the rest goes on, and nothing is lost', async () => {
    const { house, filler } = await smallHouse();
    const daemon = await house.start();
    await daemon.client.done('guest-create', { ...aGuest('web1'), start: true });
    await fill(filler);
    expect(await firstRefusal(daemon)).toMatchObject({ class: 'ResourceExhausted' });
    expect(await daemon.client.call('query-guest', { guest: 'web1' })).toMatchObject({ state: 'running' });
    expect(house.host.isAlive('web1')).toBe(true);
    expect(await daemon.client.call('query-daemon', {})).toMatchObject({ ready: true });

    await rm(filler);
    await daemon.client.done('guest-create', aGuest('afterwards'));
    await daemon.stop();
    const next = await house.start();
    expect(await next.client.call('query-guest', { guest: 'web1' })).toMatchObject({ state: 'running' });
    expect(await next.client.call('query-guest', { guest: 'afterwards' })).toMatchObject({
      state: 'stopped',
    });
  });

  test('when the daemon starts: it says so and changes nothing, or it answers', async () => {
    const { house, filler } = await smallHouse();
    const daemon = await house.start();
    await daemon.client.done('guest-create', { ...aGuest('web1'), start: true });
    await daemon.stop();
    await fill(filler);
    await expect(house.start()).rejects.toMatchObject({
      class: 'ResourceExhausted',
      hint: expect.stringMatching(/^Free space/) as string,
    });
    expect(house.host.isAlive('web1')).toBe(true);
    await rm(filler);
    const next = await house.start();
    expect(await next.client.call('query-guest', { guest: 'web1' })).toMatchObject({ state: 'running' });
  });
});
