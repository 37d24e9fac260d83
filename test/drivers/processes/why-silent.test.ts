import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { parseUnixSockets, whySilent } from '../../../drivers/processes/why-silent.ts';
import { deferred } from '../../../lib/abort.ts';

it('reads the sockets of the kernel that have a path, with spaces in it too', async () => {
  expect(
    parseUnixSockets(
      [
        'Num       RefCount Protocol Flags    Type St Inode Path',
        '0000000000000000: 00000002 00000000 00010000 0001 01 18051 /run/one.sock',
        '0000000000000000: 00000003 00000000 00000000 0001 03 18052',
        '00000000deadbeef: 00000002 00000000 00010000 0005 01     7 @abstract name',
        '0000000000000000: 00000002 00000000 00000000 0001 02     0 /run/one.sock',
        '',
      ].join('\n'),
    ),
  ).toEqual([
    { inode: '18051', path: '/run/one.sock' },
    { inode: '7', path: '@abstract name' },
    { inode: '0', path: '/run/one.sock' },
  ]);
  const directory = await mkdtemp(join(tmpdir(), 'unix-'));
  const path = join(directory, 'a socket');
  const server = createServer();
  const listening = deferred<void>();
  server.listen(path, listening.resolve);
  await listening.promise;
  expect(parseUnixSockets(await readFile('/proc/net/unix', 'utf8')).map((each) => each.path)).toContain(path);
  server.close();
  await rm(directory, { recursive: true, force: true });
});

it('is no other client where that cannot be told', async () => {
  expect(await whySilent(process.pid, { isGreeted: false })).toMatch(/^(busy|storage)$/);
  expect(await whySilent(2 ** 22 + 1, { isGreeted: false })).toBe('dead');
});
