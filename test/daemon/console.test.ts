/** The console of a pretended guest, which sends back what is typed, over the daemon's real socket. */
import type { Socket } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import { connect } from '../../cli/client.ts';
import { sessionOutput } from '../../cli/session-output.ts';
import { encodeChannelFrame } from '../../lib/channel-frames.ts';
import { sessionChannels } from '../../protocol/byte-session.ts';
import { aGuest, type FakeDaemon, fakeHouse } from './fake-house.ts';

const attach = async ({ daemon: { socketPath } }: FakeDaemon): Promise<Socket> => {
  const client = await connect({ socketPath, signal: new AbortController().signal });
  onTestFinished(() => client.close());
  return await client.attach('guest-console', { guest: 'web1', framed: true });
};

test('a client that does not read is let go and told so; the others go on to the end of the guest', async () => {
  const daemon = await (await fakeHouse()).start();
  await daemon.client.done('guest-create', aGuest('web1'));
  await daemon.client.done('guest-start', { guest: 'web1' });
  const lagging = await attach(daemon);
  const reading = await attach(daemon);
  const output = sessionOutput(reading);
  // More than the daemon keeps for one, and what the socket holds on its way.
  const block = Buffer.alloc(64 * 1024, 'x');
  let heard = 0;
  for (let count = 1; count <= 64; count += 1) {
    reading.write(encodeChannelFrame(sessionChannels.stdin, block));
    while (heard < count * block.length) {
      const next = await output.next();
      if (next.done === true) throw new Error(`who reads was let go: ${JSON.stringify(next.value)}`);
      heard += next.value.length;
    }
  }
  let late = 0;
  for (const output = sessionOutput(lagging); ; ) {
    const next = await output.next();
    if (next.done !== true) {
      late += next.value.length;
      continue;
    }
    expect(next.value).toMatchObject({
      error: {
        class: 'Unavailable',
        desc: expect.stringContaining('too far behind'),
        data: { guest: 'web1' },
      },
    });
    break;
  }
  expect(late).toBeLessThan(heard);
  await daemon.client.done('guest-stop', { guest: 'web1', force: true });
  expect(await output.next()).toEqual({ done: true, value: { closed: 'guest-ended' } });
});
