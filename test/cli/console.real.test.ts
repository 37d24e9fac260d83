/** `roost console`: in a real terminal, a pty made by script(1) of util-linux, and without one. */
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { ChannelFrameReader, encodeChannelFrame } from '../../lib/channel-frames.ts';
import { type SessionEnd, sessionChannels } from '../../protocol/byte-session.ts';
import { Terminal } from '../harness/terminal.ts';
import { FakeDaemon, NO_REPLY, Refusal } from './fake-daemon.ts';
import { runCli } from './run-cli.ts';

const roost = fileURLToPath(new URL('../../cli/main.ts', import.meta.url));
const tsx = import.meta.resolve('tsx');

const consoleIn = (socketPath: string): Terminal =>
  new Terminal(
    `echo "before $(stty -g)"; "${process.execPath}" --import "${tsx}" "${roost}" console web1 --socket "${socketPath}"; echo "code $?"; echo "after $(stty -g)"`,
  );

/** The settings of the terminal before and after, and the exit code. */
const facts = (output: string): { before: string; after: string; code: string } => {
  const find = (name: string): string => new RegExp(`${name} (\\S+)`).exec(output)?.[1] ?? '';
  return { before: find('before'), after: find('after'), code: find('code') };
};

/** The guest's side of a console. */
interface Guest {
  readonly says: (text: string) => void;
  readonly ends: (end: SessionEnd) => void;
  /** The connection ends without a word. */
  readonly isLost: () => void;
}

/** `onTyped` gets what is typed, an empty text for the end of it. */
const serving = (onTyped: (text: string, guest: Guest) => void): Promise<FakeDaemon> => {
  const frame = (channel: number, text: string): Buffer => encodeChannelFrame(channel, Buffer.from(text));
  return FakeDaemon.start({
    'guest-console': (_, { socket, becomeConsole }) => {
      const reader = new ChannelFrameReader(65_536);
      const guest: Guest = {
        says: (text) => void socket.write(frame(sessionChannels.stdout, text)),
        ends: (end) => void socket.end(frame(sessionChannels.end, JSON.stringify(end))),
        isLost: () => void socket.destroy(),
      };
      becomeConsole(
        (reply) => [`${reply}${frame(sessionChannels.stdout, 'login: ').toString('latin1')}`],
        (chunk) => {
          for (const { channel, payload } of reader.push(chunk))
            if (channel === sessionChannels.stdin) onTyped(payload.toString('latin1'), guest);
        },
      );
      return NO_REPLY;
    },
  });
};

describe('roost console in a terminal', () => {
  it('carries keys raw, leaves at Ctrl-] and restores the terminal', async () => {
    const received: string[] = [];
    await using daemon = await serving((text, guest) => {
      received.push(text);
      guest.says(`<${Buffer.from(text, 'latin1').toString('hex')}>`);
    });
    const terminal = consoleIn(daemon.socketPath);
    await terminal.seen('login: ');
    // Ctrl-C and Ctrl-D belong to the guest.
    terminal.type('a\u0003\u0004\r');
    await terminal.seen('<6103040d>');
    terminal.type('z\u001dnot sent');
    await terminal.ended();
    expect(terminal.output).toContain('Ctrl-] leaves');
    expect(terminal.output).toContain('Left the console of web1.');
    const { before, after, code } = facts(terminal.output);
    expect(before).toMatch(/^[0-9a-f:]+$/);
    expect(after).toBe(before);
    expect(code).toBe('0');
    expect(received.join('').replace(/z$/, '')).toBe('a\u0003\u0004\r');
    expect(daemon.calls[0]).toEqual({
      command: 'guest-console',
      args: { guest: 'web1', framed: true, replayBytes: 4096 },
    });
  });

  const ended = (end: SessionEnd) => (guest: Guest) => {
    guest.says('halted');
    guest.ends(end);
  };
  it.each([
    [
      'the guest ends',
      ended({ closed: 'guest-ended' }),
      /halted[^]*The console of web1 closed: the guest/,
      '0',
    ],
    [
      'it is let go',
      ended({ error: { class: 'Unavailable', desc: 'too far behind' } }),
      /halted[^]*too far behind/,
      '1',
    ],
    ['the daemon is gone', (guest: Guest) => guest.isLost(), /login: [^]*The console was lost/, '4'],
  ])('restores it when %s, whatever mode it was left in', async (_when, end, told, expected) => {
    await using daemon = await serving((_, guest) => end(guest));
    const terminal = consoleIn(daemon.socketPath);
    await terminal.seen('login: ');
    terminal.type('x');
    await terminal.ended();
    expect(terminal.output).toMatch(told);
    const { before, after, code } = facts(terminal.output);
    expect(before).toMatch(/^[0-9a-f:]+$/);
    expect(after).toBe(before);
    expect(code).toBe(expected);
  });
});

describe('roost console without a terminal', () => {
  const runConsole = (daemon: FakeDaemon, stdin: string) =>
    runCli(['console', 'web1'], { env: { ROOST_SOCKET: daemon.socketPath }, stdin });

  it('shows what the guest says after the end of its input, and no more than that', async () => {
    let input = '';
    await using daemon = await serving((text, guest) => {
      input += text;
      if (text.length > 0) return;
      guest.says('heard you');
      guest.ends({ closed: 'guest-ended' });
    });
    // No terminal, so that every byte goes to the guest.
    expect(await runConsole(daemon, 'a\u001db')).toEqual({ code: 0, stdout: 'login: heard you', stderr: '' });
    expect(input).toBe('a\u001db');
  });

  it('says it in words when the daemon is too old to know frames, and hands on any other refusal', async () => {
    let desc = 'guest-console: Unrecognized key: "framed"';
    await using daemon = await FakeDaemon.start({
      'guest-console': () => {
        throw new Refusal({ class: 'InvalidArgument', desc });
      },
    });
    const refused = await runConsole(daemon, '');
    expect({ ...refused, code: refused.code > 0 }).toMatchObject({
      code: true,
      stdout: '',
      stderr: expect.stringContaining('This roostd is older than this roost'),
    });
    desc = 'no guest is called so';
    expect((await runConsole(daemon, '')).stderr).toContain(desc);
  });
});
