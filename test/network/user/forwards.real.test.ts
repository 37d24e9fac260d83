/** Ports of the host for guests of kind user: whether one is free, and what comes through it. On loopback. */
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { describe, expect, onTestFinished, test } from 'vitest';
import { bannerThrough } from '../../../network/user/banner.ts';
import { requireFree } from '../../../network/user/port-check.ts';
import type { PortForward } from '../../../protocol/net-port.ts';

const never = new AbortController().signal;

const serve = async (serve: (socket: Socket) => void = () => undefined): Promise<[Server, PortForward]> => {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    serve(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return [server, { protocol: 'tcp', hostAddress: '127.0.0.1', hostPort: address.port, guestPort: 22 }];
};

describe('a port of the host', () => {
  test('is free, or refused with why', async () => {
    const [server, forward] = await serve();
    const refused = (message: string) => ({
      class: 'FailedPrecondition',
      message: expect.stringContaining(message),
      data: expect.objectContaining({ guestPort: 22 }),
    });
    await expect(requireFree(forward, 'process', never)).rejects.toMatchObject(
      refused(`port ${forward.hostPort} of 127.0.0.1 is in use`),
    );
    await requireFree({ ...forward, protocol: 'udp' }, 'process', never);
    server.close();
    await once(server, 'close');
    await requireFree(forward, 'process', never);
    await expect(
      requireFree({ ...forward, hostAddress: '192.0.2.1' }, 'process', never),
    ).rejects.toMatchObject(refused('no such address'));
    const given = AbortSignal.abort(new Error('enough'));
    await expect(requireFree(forward, 'process', given)).rejects.toThrow('enough');
  });
});

describe('a guest behind a port', () => {
  test('is up when its SSH server has spoken, not when a connection is taken or closed', async () => {
    const greetings = [undefined, 'HTTP/1.1 400\r\n', 'SSH', 'SSH-2.0-OpenSSH\r\n'];
    let connections = 0;
    const [, forward] = await serve((socket) => {
      const greeting = greetings[connections];
      connections += 1;
      if (greeting === undefined) socket.destroy();
      else socket.end(greeting);
    });
    await bannerThrough(forward, never);
    expect(connections).toBe(4);
  });

  test('that takes connections and is silent is waited for until it is given up', async () => {
    const enough = new AbortController();
    const why = new Error('enough');
    const [, forward] = await serve(() => enough.abort(why));
    await expect(bannerThrough(forward, enough.signal)).rejects.toBe(why);
  });
});
