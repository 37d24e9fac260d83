/** `roost console` in a real terminal: a pty made by script(1) of util-linux. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { FakeDaemon, NO_REPLY, type Peer } from './fake-daemon.ts';

const roost = fileURLToPath(new URL('../../cli/main.ts', import.meta.url));
const tsx = import.meta.resolve('tsx');

/** Runs a command line in a terminal and types into it when the expected text has appeared. */
class Terminal {
  output = '';
  readonly #child;
  #check: () => void = () => undefined;

  constructor(commandLine: string) {
    this.#child = spawn('script', ['-qec', commandLine, '/dev/null'], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#child.stdout.on('data', (chunk: Buffer) => {
      this.output += chunk.toString();
      this.#check();
    });
  }

  async seen(text: string): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#check = () => {
        if (this.output.includes(text)) resolve();
      };
      this.#child.once('close', () => reject(new Error(`Ended without '${text}':\n${this.output}`)));
      this.#check();
    });
  }

  type(text: string): void {
    this.#child.stdin.write(text);
  }

  async ended(): Promise<void> {
    if (this.#child.exitCode === null) await once(this.#child, 'close');
    this.#child.stdin.destroy();
  }
}

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
