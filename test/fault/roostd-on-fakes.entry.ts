/**
 * roostd over a pretended host, for tests that ask for everything: socket, WebSocket, dispatch, admission, operations and
 * inventory are those of a real one; guests, disks, images and networks are in memory, so that nothing it is asked for
 * costs more than the daemon's own work. A build of an image fails in its step, as on a host without a network.
 *   ROOST_TEST_KEEPING=PATH   a socket there tells whoever connects what the process keeps, see test/torture/steady-state.ts
 *   ROOST_TEST_IMAGE=PATH     a disk of this path can be imported
 */
import { createServer } from 'node:net';
import { runMain } from '../../daemon/main.ts';
import type { Driver } from '../../drivers/driver.ts';
import { FakeDriver } from '../../drivers/fake/fake-driver.ts';
import * as addressing from '../../network/addressing.ts';
import { fakeNetworkBackend } from '../../network/fake/fake-network.ts';
import { RoostError } from '../../protocol/errors.ts';
import { MEBIBYTE } from '../../protocol/types.ts';
import { FakeImageBuilder } from '../../storage/fake/fake-image-builder.ts';
import { FakeImageStore } from '../../storage/fake/fake-image-store.ts';
import { FakeOciImages } from '../../storage/fake/fake-oci-images.ts';
import { FakePool } from '../../storage/fake/fake-pool.ts';
import { keepingNow } from '../torture/steady-state.ts';

/** Keeps nothing of a process that is over. */
class ForgetfulDriver extends FakeDriver {
  override async clear(...[place]: Parameters<Driver['clear']>): Promise<void> {
    await super.clear(place);
    this.host.forget(place.id);
  }
}

class ForgetfulPool extends FakePool {
  override async removeGuest(...args: Parameters<FakePool['removeGuest']>): Promise<void> {
    await super.removeGuest(...args);
    this.calls.length = 0;
  }
}

const builder = new FakeImageBuilder(() => undefined);
builder.before = () => {
  builder.builds.length = 0;
  throw new RoostError('HostError', 'A pretended host builds no images');
};
const imageStore = new FakeImageStore();
const image = process.env['ROOST_TEST_IMAGE'];
if (image !== undefined) imageStore.offer(image, MEBIBYTE);

const keepingPath = process.env['ROOST_TEST_KEEPING'];
if (keepingPath !== undefined)
  createServer((socket) => {
    socket.on('error', () => socket.destroy());
    void keepingNow().then((keeping) => socket.end(JSON.stringify(keeping)));
  })
    .listen(keepingPath)
    .unref();

runMain(process.argv.slice(2), {
  parts: () => ({
    // Under the name of the driver that guests have unless they name one.
    drivers: [new ForgetfulDriver({ name: 'qemu' })],
    backends: [fakeNetworkBackend()],
    addressing,
    pool: new ForgetfulPool(),
    imageStore,
    imageBuilder: builder,
    ociImages: new FakeOciImages(() => undefined),
    describeGroups: { kind: 'none', why: 'all is pretended' },
    describeQemu: async () => ({ accelerator: { auto: 'tcg', why: 'all is pretended' }, qemuBinaries: [] }),
  }),
});
