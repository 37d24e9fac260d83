/** Whether a port of the host can be a guest's: found out before it is started. */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { RoostError } from '../../protocol/errors.ts';
import type { PortForward } from '../../protocol/net-port.ts';

/** Ports below are for privileged processes, which no guest is (ip(7)). */
const UNPRIVILEGED_PORT_START = '/proc/sys/net/ipv4/ip_unprivileged_port_start';

export const forwardText = ({ protocol, hostAddress, hostPort }: PortForward): string =>
  `${protocol} port ${hostPort} of ${hostAddress}`;

/**
 * `by`: the guest's own process listens there, or rules pass it on. Errors: FailedPrecondition for one that is taken, may
 * not be had, or lies at an address that is not the host's.
 */
export async function requireFree(
  forward: PortForward,
  by: 'process' | 'rules',
  signal: AbortSignal,
): Promise<void> {
  signal.throwIfAborted();
  const first = Number(await readFile(UNPRIVILEGED_PORT_START, 'utf8').catch(() => '1024'));
  if (by === 'process' && forward.hostPort < first)
    throw refusal(forward, `is for privileged processes: the first one for a guest is ${first}`);
  try {
    await (forward.protocol === 'tcp' ? tryTcp(forward) : tryUdp(forward));
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'EADDRINUSE') throw refusal(forward, 'is in use on this host', error);
    if (code === 'EADDRNOTAVAIL')
      throw refusal(forward, 'cannot be had: the host has no such address', error);
    throw refusal(forward, `cannot be had: ${error instanceof Error ? error.message : String(error)}`, error);
  }
}

async function tryTcp({ hostAddress, hostPort }: PortForward): Promise<void> {
  const server = createServer();
  server.listen({ host: hostAddress, port: hostPort, exclusive: true });
  await once(server, 'listening');
  server.close();
  await once(server, 'close');
}

async function tryUdp({ hostAddress, hostPort }: PortForward): Promise<void> {
  const socket = createSocket('udp4');
  socket.bind({ address: hostAddress, port: hostPort, exclusive: true });
  try {
    await once(socket, 'listening');
  } finally {
    socket.close();
  }
}

const refusal = (forward: PortForward, why: string, cause?: unknown): RoostError =>
  new RoostError('FailedPrecondition', `${capitalized(forwardText(forward))} ${why}`, {
    cause,
    data: { ...forward },
    hint: 'Find out who listens there with `ss -lntup`, or give the guest another port of the host.',
  });

const capitalized = (text: string): string => `${text.charAt(0).toUpperCase()}${text.slice(1)}`;
