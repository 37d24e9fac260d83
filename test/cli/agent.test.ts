/** `roost exec` and `roost cp` against a scripted daemon. It has no `guest-exec-session` unless a test gives it one. */
import { readdir, readFile, writeFile } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { type ChannelFrame, ChannelFrameReader, encodeChannelFrame } from '../../lib/channel-frames.ts';
import { sessionChannels } from '../../protocol/byte-session.ts';
import { testDirectory } from '../harness/test-directory.ts';
import { FakeDaemon, type Handler, NO_REPLY, Refusal } from './fake-daemon.ts';
import { runCli } from './run-cli.ts';

const base64 = (text: string): string => Buffer.from(text).toString('base64');

let daemon: FakeDaemon;
let directory: string;
/** Files of the guest. */
let files: Map<string, Buffer>;
/** How the next program ends. */
let ending: object;

const fileHandlers = (): Record<string, Handler> => {
  const open: { path: string; at: number }[] = [];
  const of = (args: Readonly<Record<string, unknown>>) => {
    const file = open[Number(args['handle'])];
    if (!file) throw new Refusal({ class: 'NotFound', desc: 'No such handle' });
    return { file, content: files.get(file.path) ?? Buffer.alloc(0) };
  };
  return {
    'guest-file-open': ({ path, mode }) => {
      if (mode === 'w') files.set(String(path), Buffer.alloc(0));
      if (!files.has(String(path))) throw new Refusal({ class: 'FailedPrecondition', desc: 'refused' });
      return { handle: open.push({ path: String(path), at: 0 }) - 1 };
    },
    'guest-file-read': (args) => {
      const { file, content } = of(args);
      const bytes = content.subarray(file.at, file.at + Number(args['count']));
      file.at += bytes.length;
      return { buf: bytes.toString('base64'), eof: file.at >= content.length };
    },
    // Takes no more than a page at a time, as an agent may.
    'guest-file-write': (args) => {
      const { file, content } = of(args);
      const bytes = Buffer.from(String(args['buf']), 'base64').subarray(0, 4096);
      files.set(file.path, Buffer.concat([content, bytes]));
      return { count: bytes.length };
    },
    'guest-file-seek': (args) => {
      const { file, content } = of(args);
      file.at = args['whence'] === 'end' ? content.length : 0;
      return { position: file.at };
    },
    'guest-file-close': () => ({}),
  };
};

beforeEach(async () => {
  files = new Map();
  ending = { exited: true, exitcode: 0 };
  directory = await testDirectory('c');
  daemon = await FakeDaemon.start({
    ...fileHandlers(),
    'guest-exec': () => ({ pid: 431 }),
    'guest-exec-status': () => ending,
  });
  onTestFinished(() => daemon[Symbol.asyncDispose]());
});

const roost = (args: readonly string[], stdin = '') =>
  runCli([...args], { env: { ROOST_SOCKET: daemon.socketPath }, stdin });

describe('exec by an agent that runs programs to their end', () => {
  it('passes output, error output and the exit code through', async () => {
    ending = { exited: true, exitcode: 7, outData: base64('out\n'), errData: base64('err\n') };
    expect(await roost(['exec', 'web1', '--', 'ls', '-l', '--json'])).toMatchObject({
      code: 7,
      stdout: 'out\n',
      stderr: 'err\n',
    });
    expect(daemon.calls[1]).toMatchObject({
      command: 'guest-exec',
      args: { guest: 'web1', path: 'ls', arg: ['-l', '--json'], captureOutput: true },
    });
  });

  it('ends like a shell for a program that a signal ended', async () => {
    ending = { exited: true, signal: 9 };
    expect((await roost(['exec', 'web1', '--', 'sleep', '9'])).code).toBe(137);
  });

  it('says when output is missing', async () => {
    ending = { exited: true, exitcode: 0, outTruncated: true };
    expect((await roost(['exec', 'web1', '--', 'yes'])).stderr).toContain('longer than the agent keeps');
  });

  it('gives it standard input only when asked to', async () => {
    await roost(['exec', '-i', '-e', 'A=b', 'web1', '--', 'cat'], 'in');
    await roost(['exec', 'web1', '--', 'cat'], 'in');
    const [first, second] = daemon.calls.filter(({ command }) => command === 'guest-exec');
    expect(first?.args).toMatchObject({ inputData: base64('in'), env: ['A=b'] });
    expect(second?.args).not.toHaveProperty('inputData');
  });

  it('may only start it', async () => {
    expect(await roost(['exec', '-d', 'web1', '--', 'work'])).toMatchObject({ code: 0, stdout: '431\n' });
    expect(daemon.calls).toHaveLength(1);
  });

  it('names the process when its end cannot be told', async () => {
    daemon.handle('guest-exec-status', () => {
      throw new Refusal({ class: 'Unavailable', desc: 'silent' });
    });
    const ran = await roost(['exec', 'web1', '--', 'work']);
    expect(ran.code).toBe(1);
    expect(ran.stderr).toContain('431');
  });
});

describe('exec by an agent that gives the streams', () => {
  /** A program that answers each frame as `answer` says, and is told what it was asked for. */
  const program = (answer: (frame: ChannelFrame, socket: Socket) => void): void => {
    const reader = new ChannelFrameReader(65_536);
    daemon.handle('guest-exec-session', (_, peer) => {
      peer.becomeConsole(
        (reply) => [reply],
        (chunk) => {
          for (const frame of reader.push(chunk)) answer(frame, peer.socket);
        },
      );
      return NO_REPLY;
    });
  };
  const write = (socket: Socket, channel: number, text: string): void =>
    void socket.write(encodeChannelFrame(channel, Buffer.from(text)));

  it('passes input, both outputs and the exit code through', async () => {
    program(({ channel, payload }, socket) => {
      expect(channel).toBe(sessionChannels.stdin);
      if (payload.length > 0) {
        write(socket, sessionChannels.stdout, `<${payload.toString()}>`);
        return;
      }
      write(socket, sessionChannels.stderr, 'no more');
      write(socket, sessionChannels.end, '{"exitCode":5}');
    });
    expect(await roost(['exec', '-i', '-u', 'web', '-w', '/srv', 'web1', '--', 'cat', '-n'], 'in')).toEqual({
      code: 5,
      stdout: '<in>',
      stderr: 'no more',
    });
    expect(daemon.calls.map(({ args }) => args)).toEqual([
      { guest: 'web1', path: 'cat', arg: ['-n'], interactive: true, user: 'web', workingDirectory: '/srv' },
    ]);
  });

  it('ends like a shell for a signal, with the words of an error, and says when it was lost', async () => {
    const endWith = (end: (socket: Socket) => void): void => program((_, socket) => end(socket));
    endWith((socket) => write(socket, sessionChannels.end, '{"signal":15}'));
    expect(await roost(['exec', '-i', 'web1', 'work'], 'x')).toMatchObject({ code: 143, stderr: '' });
    endWith((socket) =>
      write(socket, sessionChannels.end, '{"error":{"class":"Unavailable","desc":"The agent is gone"}}'),
    );
    const failed = await roost(['exec', '-i', 'web1', 'work'], 'x');
    expect({ ...failed, code: failed.code > 0 }).toMatchObject({
      code: true,
      stderr: expect.stringContaining('The agent is gone'),
    });
    endWith((socket) => void socket.destroy());
    expect((await roost(['exec', '-i', 'web1', 'work'], 'x')).stderr).toContain('The program was lost');
  });

  it('refuses what does not go together before anything is asked', async () => {
    expect(await roost(['exec', '-it', 'web1', 'sh'])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('Standard input is no terminal'),
    });
    expect((await roost(['exec', '-d', '-t', 'web1', 'sh'])).code).toBe(2);
    expect(daemon.calls).toEqual([]);
  });

  it('refuses a terminal where the agent has none, and names what does', async () => {
    const ran = await roost(['exec', '-t', 'web1', 'sh']);
    expect(ran).toMatchObject({ code: 2, stderr: expect.stringContaining('roost ssh') });
    expect(daemon.calls.map(({ command }) => command)).toEqual(['guest-exec-session']);
  });
});

it('agent shows what the guest says of itself', async () => {
  daemon.handle('guest-info', () => ({
    version: '7.2.22',
    supportedCommands: ['guest-network-get-interfaces', 'guest-fsfreeze-status'],
  }));
  const ipAddresses = [{ ipAddress: '10.0.0.2', ipAddressType: 'ipv4', prefix: 24 }];
  daemon.handle('guest-network-get-interfaces', () => ({ interfaces: [{ name: 'ens3', ipAddresses }] }));
  daemon.handle('guest-fsfreeze-status', () => ({ status: 'thawed' }));
  const { stdout } = await roost(['agent', 'web1']);
  expect(stdout).toMatch(/^File systems: +thawed/m);
  expect(stdout).toContain('7.2.22');
  expect(stdout).toContain('10.0.0.2/24');
});

it('agent asks a frozen guest for no more than it tells', async () => {
  daemon.handle('guest-info', () => ({ version: '7.2.22', supportedCommands: ['guest-fsfreeze-status'] }));
  daemon.handle('guest-fsfreeze-status', () => ({ status: 'frozen' }));
  const { code, stdout } = await roost(['agent', 'web1']);
  expect({ code, stdout }).toMatchObject({
    code: 0,
    stdout: expect.stringMatching(/^File systems: +frozen/m),
  });
});

describe('cp', () => {
  const content = Buffer.from(Array.from({ length: 200_000 }, (_, index) => index % 251));

  it('copies into a guest, with its permissions, and looks at the size', async () => {
    const path = join(directory, 'tool');
    await writeFile(path, content, { mode: 0o750 });
    expect(await roost(['cp', path, 'web1:/opt/'])).toMatchObject({ code: 0, stderr: '' });
    expect(files.get('/opt/tool')?.equals(content)).toBe(true);
    const chmod = daemon.calls.find(({ command }) => command === 'guest-exec');
    expect(chmod?.args).toMatchObject({ path: 'chmod', arg: ['0750', '/opt/tool'] });
  });

  it('copies out of a guest into a directory, and leaves nothing else there', async () => {
    files.set('/var/log/syslog', content);
    expect(await roost(['cp', 'web1:/var/log/syslog', directory])).toMatchObject({ code: 0 });
    expect((await readFile(join(directory, 'syslog'))).equals(content)).toBe(true);
    expect(await readdir(directory)).toEqual(['syslog']);
  });

  it('keeps nothing of a file that changed meanwhile', async () => {
    files.set('/f', content);
    daemon.handle('guest-file-read', () => ({ buf: base64('short'), eof: true }));
    const ran = await roost(['cp', 'web1:/f', join(directory, 'f')]);
    expect(ran.code).toBe(1);
    expect(ran.stderr).toContain('5 bytes and should have 200000');
    expect(await readdir(directory)).toEqual([]);
  });

  it('refuses to copy between two places of the same side', async () => {
    expect((await roost(['cp', 'a', 'b'])).code).toBe(2);
    expect((await roost(['cp', 'web1:/a', 'web2:/b'])).code).toBe(2);
    expect(daemon.calls).toEqual([]);
  });
});
