/**
 * Asks a guest behind QEMU's user-mode stack whether it is up. The stack accepts every connection at once, whether or not
 * anybody listens in the guest, so that a connection proves nothing; what comes through it does. An SSH server speaks
 * first: `SSH-2.0-…` (RFC 4253 section 4.2).
 *
 * Nothing tells when the guest begins to listen, so it is asked again and again, ever more rarely.
 */
import { connect } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { deadline, deferred, waitOrAbort } from '../../lib/abort.ts';
import type { PortForward } from '../../protocol/net-port.ts';

export const SSH_PORT = 22;
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 5_000;
/**
 * The stack asks a guest that does not hear it ever more rarely for the rest of a connection, so a fresh one is soon the
 * better question; but a slow guest takes its time to speak, so each is given longer.
 */
const FIRST_ATTEMPT_MS = 4_000;
const LONGEST_ATTEMPT_MS = 60_000;
const IDENTIFICATION = 'SSH-';

/** Resolves once an SSH server has spoken through the forward. Rejects with the signal's reason only. */
export async function bannerThrough(forward: PortForward, signal: AbortSignal): Promise<void> {
  let attemptMs = FIRST_ATTEMPT_MS;
  for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS)) {
    const outcome = await attempt(forward, attemptMs, signal);
    if (outcome === 'spoke') return;
    if (outcome === 'silent') attemptMs = Math.min(attemptMs * 2, LONGEST_ATTEMPT_MS);
    await pause(pauseMs, undefined, { signal, ref: false }).catch(() => signal.throwIfAborted());
  }
}

/** An address on which it listens everywhere is reached at the loopback one. */
export const reachableAt = ({ hostAddress }: PortForward): string =>
  hostAddress === '0.0.0.0' ? '127.0.0.1' : hostAddress;

type Outcome = 'spoke' | 'closed' | 'silent';

async function attempt(forward: PortForward, attemptMs: number, signal: AbortSignal): Promise<Outcome> {
  using limit = deadline(attemptMs, signal);
  const ended = deferred<Outcome>();
  const socket = connect({ host: reachableAt(forward), port: forward.hostPort });
  socket.unref();
  let said = '';
  socket.setEncoding('latin1');
  socket.on('data', (text: string) => {
    said += text;
    if (said.length >= IDENTIFICATION.length)
      ended.resolve(said.startsWith(IDENTIFICATION) ? 'spoke' : 'closed');
  });
  socket.on('error', () => ended.resolve('closed'));
  socket.on('close', () => ended.resolve('closed'));
  try {
    return await waitOrAbort(ended.promise, limit.signal);
  } catch {
    signal.throwIfAborted();
    return 'silent';
  } finally {
    socket.destroy();
  }
}
