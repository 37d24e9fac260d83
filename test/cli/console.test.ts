/** `roost console` in a real terminal: a pty made by script(1) of util-linux. */
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { Terminal } from '../harness/terminal.ts';
import { FakeDaemon, NO_REPLY, type Peer } from './fake-daemon.ts';

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

const serving = (onBytes: (chunk: Buffer, peer: Peer) => void): Promise<FakeDaemon> =>
  FakeDaemon.start({
    'guest-console': (_, peer) => {
      peer.becomeConsole(
        (reply) => [`${reply}login: `],
        (chunk) => onBytes(chunk, peer),
      );
      return NO_REPLY;
    },
  });

describe('roost console', () => {
  it('carries keys raw, leaves at Ctrl-] and restores the terminal', async () => {
    const received: string[] = [];
    await using daemon = await serving((chunk, { socket }) => {
      received.push(chunk.toString('latin1'));
      socket.write(`<${chunk.toString('hex')}>`);
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
    expect(daemon.calls[0]).toEqual({ command: 'guest-console', args: { guest: 'web1', replayBytes: 4096 } });
  });

  it('restores the terminal when the console closes, whatever mode it was left in', async () => {
    await using daemon = await serving((_, { socket }) => void socket.end('halted'));
    const terminal = consoleIn(daemon.socketPath);
    await terminal.seen('login: ');
    terminal.type('x');
    await terminal.ended();
    expect(terminal.output).toContain('halted');
    expect(terminal.output).toContain('The console of web1 closed.');
    const { before, after, code } = facts(terminal.output);
    expect(after).toBe(before);
    expect(code).toBe('0');
  });
});
