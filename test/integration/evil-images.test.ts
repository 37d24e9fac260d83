/** Evil images by HTTP through a whole daemon: refused or resumed, nothing half-kept, ledger and host agree. */
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { deferred } from '../../lib/abort.ts';
import { evilImages } from '../guests/evil-images.ts';
import { ImageServer, whenFileHas } from '../harness/image-server.ts';
import { describeWith } from '../harness/needs.ts';
import { type DaemonHome, type RealDaemon, testDaemonHome } from '../harness/real-daemon.ts';
import { testDirectory } from '../harness/test-directory.ts';

const MEBIBYTE = 1024 ** 2;

const stopAndCompare = async (home: DaemonHome, daemon: RealDaemon): Promise<void> => {
  await daemon.stop();
  const { ledger, host } = await home.compare();
  expect(host).toEqual(ledger);
};

describeWith(['qemu-img'], 'evil images through the daemon', () => {
  it('are refused, each with its flaw, and nothing of them is left', async () => {
    const home = await testDaemonHome({ ownNamespace: false });
    const daemon = await home.start();
    const directory = await testDirectory('evil');
    const server = await ImageServer.start(Buffer.alloc(0));
    for (const [index, { what, format, flaw, make }] of evilImages.entries()) {
      const path = join(directory, `evil${index}`);
      await make(path);
      server.content = await readFile(path);
      const ended = await daemon.change('image-import', { name: 'evil', url: server.url(), format });
      expect({
        what,
        state: ended.state,
        class: ended.error?.class,
        flaw: ended.error?.data?.['flaw'],
      }).toEqual({
        what,
        state: 'failed',
        class: 'InvalidArgument',
        flaw,
      });
    }
    server.content = Buffer.alloc(MEBIBYTE, 'good ');
    const sha512 = createHash('sha512').update('another').digest('hex');
    const wrong = { name: 'evil', url: server.url(), format: 'raw', sha512 } as const;
    expect(await daemon.change('image-import', wrong)).toMatchObject({ error: { class: 'InvalidArgument' } });
    expect((await daemon.client.call('query-images', {})).images).toEqual([]);
    expect(await readdir(join(home.stateDirectory, 'images'))).toEqual([]);
    await stopAndCompare(home, daemon);
  });

  it('a download goes on after kill -9 of the daemon, with the same operation, and its curl has died with it', async () => {
    const home = await testDaemonHome({ ownNamespace: false });
    const doomed = await home.start();
    const content = Buffer.alloc(4 * MEBIBYTE, 'some disk ');
    const server = await ImageServer.start(content);
    const [stalled, left] = [deferred<void>(), deferred<void>()];
    server.onStall = stalled.resolve;
    server.onLeft = left.resolve;
    server.next({ stallAfter: 2 * MEBIBYTE });
    const url = server.url().replace('//', '//user:sesame@');
    const sha256 = createHash('sha256').update(content).digest('hex');
    const request = { name: 'debian/12', version: 'v1', url, format: 'raw', sha256 } as const;
    const { operation, id } = await doomed.client.call('image-import', request);
    await stalled.promise;
    await whenFileHas(join(home.stateDirectory, 'images', `.working-${id}`, 'fetching', 'partial'), MEBIBYTE);
    await doomed.kill9();
    await left.promise;
    const next = await home.start();
    const ended = await next.client.call('operation-wait', { operation });
    expect(ended).toMatchObject({ state: 'succeeded', result: { name: 'debian/12', version: 'v1' } });
    expect(server.asked).toHaveLength(2);
    expect(server.asked[1]?.range).toMatch(/^bytes=[1-9]/);
    expect(server.asked[1]?.authorization).toBe(server.asked[0]?.authorization);
    expect(doomed.log() + next.log()).not.toContain('sesame');
    const { images } = await next.client.call('query-images', {});
    expect(images).toMatchObject([{ sha256, virtualSizeBytes: 4 * MEBIBYTE }]);
    expect(await readdir(join(home.stateDirectory, 'images'))).toEqual([images[0]?.id]);
    await stopAndCompare(home, next);
  });

  it('a download that is cancelled while it runs leaves nothing', async () => {
    const home = await testDaemonHome({ ownNamespace: false });
    const daemon = await home.start();
    const server = await ImageServer.start(Buffer.alloc(4 * MEBIBYTE, 'some disk '));
    const stalled = deferred<void>();
    server.onStall = stalled.resolve;
    server.next({ stallAfter: MEBIBYTE });
    const { operation } = await daemon.client.call('image-import', {
      name: 'debian',
      url: server.url(),
      format: 'raw',
    });
    await stalled.promise;
    await daemon.client.call('operation-cancel', { operation });
    expect(await daemon.client.call('operation-wait', { operation })).toMatchObject({ state: 'cancelled' });
    expect(await readdir(join(home.stateDirectory, 'images'))).toEqual([]);
    await stopAndCompare(home, daemon);
  });
});
