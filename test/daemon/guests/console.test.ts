import { Duplex } from 'node:stream';
import { expect, test } from 'vitest';
import { Consoles } from '../../../daemon/guests/console.ts';
import type { Guest } from '../../../daemon/guests/guest.ts';

test('a guest that does not read holds up whoever writes, and its bytes are not gathered', async () => {
  const taken: (() => void)[] = [];
  const line = new Duplex({
    read: () => undefined,
    write: (_chunk, _encoding, done) => void taken.push(done),
  });
  const guest = {
    id: 'one',
    handle: { openConsole: async () => line },
    house: { stopping: new AbortController().signal },
  } as unknown as Guest;
  const attachment = await new Consoles().attach(guest, new AbortController().signal);
  const chunk = Buffer.alloc(64 * 1024);
  expect(attachment.write(chunk)).toBe(false);
  for (let count = 0; count < 10; count += 1) attachment.write(chunk);
  expect(line.writableLength).toBe(chunk.length);
  const drained = new Promise<void>((resolve) => attachment.once('drain', resolve));
  for (let count = 0; count < 11; count += 1) {
    taken.shift()?.();
    await new Promise((resolve) => setImmediate(resolve));
  }
  await drained;
  attachment.destroy();
});
