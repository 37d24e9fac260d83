import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { connectUnixSocket } from '../../lib/connect-unix-socket.ts';
import {
  connectablePath,
  MAX_SOCKET_PATH_BYTES,
  SocketPathTooLongError,
} from '../../lib/unix-socket-path.ts';

let root = '';
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'socket-path-'));
});
afterEach(() => rm(root, { recursive: true }));

test('a short path is itself, up to the last byte that fits', async () => {
  const longest = `/${'x'.repeat(MAX_SOCKET_PATH_BYTES - 1)}`;
  const { path, release } = await connectablePath(longest);
  expect(path).toBe(longest);
  await release();
});

test('binds and connects by a path that no address can hold', async () => {
  const directory = join(root, 'd'.repeat(120));
  await mkdir(directory);
  const target = await connectablePath(join(directory, 'qmp.sock'));
  expect(Buffer.byteLength(target.path)).toBeLessThanOrEqual(MAX_SOCKET_PATH_BYTES);
  const server = createServer((socket) => socket.end('hello'));
  server.listen(target.path);
  await once(server, 'listening');
  expect(await readdir(directory)).toEqual(['qmp.sock']);
  const socket = await connectUnixSocket(join(directory, 'qmp.sock'), new AbortController().signal);
  const [data] = (await once(socket, 'data')) as [Buffer];
  expect(data.toString()).toBe('hello');
  server.close();
  await once(server, 'close');
  await target.release();
});

test('refuses a file name that is too long by itself, and a directory that is not there', async () => {
  await expect(connectablePath(join(root, 'n'.repeat(120)))).rejects.toBeInstanceOf(SocketPathTooLongError);
  await expect(connectablePath(join(root, 'd'.repeat(120), 's'))).rejects.toMatchObject({ code: 'ENOENT' });
});

test('a connection that is refused, or not wanted any more, leaves nothing open', async () => {
  const { signal } = new AbortController();
  await expect(connectUnixSocket(join(root, 'none'), signal)).rejects.toMatchObject({ code: 'ENOENT' });
  const why = new Error('not wanted');
  await expect(connectUnixSocket(join(root, 'none'), AbortSignal.abort(why))).rejects.toBe(why);
});
