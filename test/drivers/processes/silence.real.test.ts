/** QEMUs that do not answer the daemon that comes back: what is said of them, and how it ends by itself. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { afterEach, beforeEach, expect, it, onTestFinished } from 'vitest';
import type { GuestHandle, Launch } from '../../../drivers/driver.ts';
import { monitorPath } from '../../../drivers/processes/guest-files.ts';
import { never, Witness } from '../../conformance/driver.ts';
import { describeWith } from '../../harness/needs.ts';
import { makeQemuHarness, processEnd, type QemuHarness } from '../qemu/qemu-harness.ts';

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
    expect(living.process).toEqual(identity);
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
