/** A guest's serial console as a person at it would use it: type, and wait for what comes back. Never waits for time. */
import { join } from 'node:path';
import { connect } from '../../cli/client.ts';
import { sessionOutput } from '../../cli/session-output.ts';
import { encodeChannelFrame } from '../../lib/channel-frames.ts';
import { sessionChannels } from '../../protocol/byte-session.ts';
import type { RealDaemon } from './real-daemon.ts';

export interface GuestConsole extends Disposable {
  type(text: string): void;
  /** What came since the last call, up to the end of the pattern. Fails when the console closes before. */
  seen(pattern: string | RegExp): Promise<string>;
}

const endOf = (text: string, pattern: string | RegExp): number | undefined => {
  if (typeof pattern === 'string') {
    const at = text.indexOf(pattern);
    return at < 0 ? undefined : at + pattern.length;
  }
  const match = pattern.exec(text);
  return match === null ? undefined : match.index + match[0].length;
};

/** Attaches to the console. What the guest wrote before, in earlier runs too, is seen first unless `replayBytes` is 0. */
export const openGuestConsole = async (
  daemon: RealDaemon,
  guest: string,
  { replayBytes = 65_536 }: { readonly replayBytes?: number } = {},
): Promise<GuestConsole> => {
  const { runDirectory } = await daemon.client.call('query-daemon', {});
  const socketPath = join(runDirectory, 'roost.sock');
  const client = await connect({ socketPath, signal: new AbortController().signal });
  const socket = await client.attach('guest-console', { guest, framed: true, replayBytes });
  const chunks = sessionOutput(socket);
  let unseen = '';
  return {
    type: (text) => void socket.write(encodeChannelFrame(sessionChannels.stdin, Buffer.from(text))),
    seen: async (pattern) => {
      for (;;) {
        const end = endOf(unseen, pattern);
        if (end !== undefined) {
          const text = unseen.slice(0, end);
          unseen = unseen.slice(end);
          return text;
        }
        const next = await chunks.next();
        if (next.done === true)
          throw new Error(
            `The console of ${guest} closed (${JSON.stringify(next.value)}) without ${String(pattern)}:\n${unseen}`,
          );
        unseen += next.value.toString('utf8');
      }
    },
    [Symbol.dispose]: () => socket.destroy(),
  };
};

/** Logs in to the small image. */
export const logIn = async (console: GuestConsole): Promise<void> => {
  await console.seen('login: ');
  console.type('root\n');
  await console.seen('Password: ');
  console.type('roost\n');
  await console.seen('# ');
};

/** Runs a line in the shell of a guest; gives its output, with the line itself, and its exit status. */
export const runInGuest = async (
  console: GuestConsole,
  line: string,
): Promise<{ readonly output: string; readonly status: number }> => {
  console.type(`${line}; echo "status=$?."\n`);
  const output = await console.seen(/status=\d+\./);
  await console.seen('# ');
  return { output, status: Number(/status=(\d+)\.$/.exec(output)?.[1]) };
};
