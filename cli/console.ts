/**
 * `roost console`: the terminal becomes that of the guest. Rules it keeps: whatever ends it, the terminal is as before;
 * no key but Ctrl-] is kept from the guest; nothing is read faster than the other side takes it.
 */
import type { Socket } from 'node:net';
import { deferred } from '../lib/abort.ts';
import type { CommandInput } from '../protocol/commands.ts';
import { toFailure, unreachable } from './failure.ts';
import type { Context, Io } from './io.ts';
import { enterRawMode } from './raw-mode.ts';
import type { Invocation } from './verb.ts';

/** Ctrl-]. */
const ESCAPE_BYTE = 0x1d;
const DEFAULT_REPLAY_BYTES = 4096;
const MAX_REPLAY_BYTES = 65_536;

/** Why it ended: the user left, standard input or the console closed. */
type Ending = 'left' | 'closed';

/** Carries bytes both ways until one side has had enough. Throws the signal's reason, or CliFailure. */
const carry = async (socket: Socket, io: Io, isTerminal: boolean): Promise<Ending> => {
  const over = deferred<Ending>();
  const onInput = (chunk: Buffer | string): void => {
    const bytes = Buffer.from(chunk);
    const escape = isTerminal ? bytes.indexOf(ESCAPE_BYTE) : -1;
    const sent = escape < 0 ? bytes : bytes.subarray(0, escape);
    if (sent.length > 0 && !socket.write(sent)) {
      io.stdin.pause();
      socket.once('drain', () => io.stdin.resume());
    }
    if (escape >= 0) over.resolve('left');
  };
  // The end of a pipe closes our half; what the guest still says is shown.
  const onInputEnd = (): void => void socket.end();
  const onOutput = (chunk: Buffer): void => {
    if (io.stdout.write(chunk)) return;
    socket.pause();
    io.stdout.once('drain', () => socket.resume());
  };
  const onAbort = (): void => over.reject(io.signal.reason as Error);
  const onLost = (error: Error): void =>
    over.reject(unreachable(`The console was lost: ${error.message}`, 'Attach again.', error));
  io.signal.addEventListener('abort', onAbort, { once: true });
  socket.on('data', onOutput);
  socket.once('end', () => over.resolve('closed'));
  socket.once('close', () => over.resolve('closed'));
  socket.once('error', onLost);
  io.stdin.on('data', onInput);
  io.stdin.once('end', onInputEnd);
  socket.resume();
  io.stdin.resume();
  try {
    if (io.signal.aborted) onAbort();
    return await over.promise;
  } finally {
    io.signal.removeEventListener('abort', onAbort);
    io.stdin.off('data', onInput);
    io.stdin.off('end', onInputEnd);
    io.stdin.pause();
    // An open terminal or pipe would keep the process.
    io.stdin.unref?.();
    socket.destroy();
  }
};

export const attachConsole = async (invocation: Invocation, context: Context): Promise<number> => {
  const { io, note, signal } = context;
  const guest = String(invocation.positionals['NAME']);
  const replay = Number(invocation.flags['replay'] ?? DEFAULT_REPLAY_BYTES);
  const args: CommandInput<'guest-console'> = { guest, replayBytes: Math.min(replay, MAX_REPLAY_BYTES) };
  const client = await context.client();
  const socket = await client.attach('guest-console', args, { signal });
  const isTerminal = io.stdin.isTTY === true;
  if (isTerminal) note(`Console of ${guest}. Ctrl-] leaves; the guest goes on.`);
  const restore = enterRawMode(io);
  try {
    const ending = await carry(socket, io, isTerminal);
    restore();
    // The cursor stands wherever the guest left it.
    if (isTerminal)
      note(['', ending === 'left' ? `Left the console of ${guest}.` : `The console of ${guest} closed.`]);
    return 0;
  } catch (error) {
    restore();
    throw signal.aborted ? error : toFailure(error);
  }
};
